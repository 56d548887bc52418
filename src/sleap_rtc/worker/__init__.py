"""The worker: a daemon that takes jobs, and one runner process for each of them."""
