"""Files on disk: atomic placement, copying and hashing, validation, links."""
