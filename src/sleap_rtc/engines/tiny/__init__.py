"""The engine ``tiny``: a small heatmap network in numpy that learns in seconds.

It is real learning, on one processor thread, for trying things out and for testing
everything around an engine. For work, use ``sleap-nn``.
"""
