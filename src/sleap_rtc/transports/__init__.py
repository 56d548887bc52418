"""Where bytes come from: sources of blocks, links to peers, and the shells of a transfer."""
