"""Import: models that lie about on this machine become models of the library.

::

    a path ─► finding ─► candidates ─► examining ─► examined ─► taking ─► a model
              archives   what may be    reads, and    what is    hashes, links
              sets       one model      runs nothing  known      or copies, places

``importer`` joins them for one path after the other.
"""
