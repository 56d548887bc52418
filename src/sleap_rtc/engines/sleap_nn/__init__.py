"""The engine ``sleap-nn``: a program in an environment of its own, never imported here."""
