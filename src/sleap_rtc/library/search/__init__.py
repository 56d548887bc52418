"""The search box: what a person types, as conditions, and as SQL over the index."""
