"""What happens: logs and metrics."""
