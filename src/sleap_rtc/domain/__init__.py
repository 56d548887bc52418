"""Frozen values and their rules: no clock, socket, task, file or database."""
