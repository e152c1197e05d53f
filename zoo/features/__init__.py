"""Features: from a dataset to a table of vectors."""
