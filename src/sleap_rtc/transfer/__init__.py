"""The rules of a transfer, without network, clock or disk: which block from whom, how fast."""
