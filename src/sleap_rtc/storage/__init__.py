"""Where bytes and rows are kept: SQLite, object stores, caches."""
