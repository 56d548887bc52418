"""Messages, their codec and their rules: bytes in, values out, and nothing else."""
