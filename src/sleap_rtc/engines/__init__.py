"""Engines: the programs that train and track. ``base`` is the seam; the rest implement it."""
