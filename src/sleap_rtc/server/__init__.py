"""The server: it introduces devices to each other, and never sees what they send."""
