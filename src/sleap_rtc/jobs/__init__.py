"""Jobs: what is asked for, how it goes, and its log of numbered events."""
