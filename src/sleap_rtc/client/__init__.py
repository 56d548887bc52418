"""What a person's machine does: rooms, jobs, models. The CLI and other programs use ``api``."""
