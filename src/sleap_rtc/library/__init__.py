"""The model library: records, aliases, index and the registry that joins them."""
