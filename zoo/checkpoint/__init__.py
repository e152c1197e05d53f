"""Checkpoint folders: configuration, weights, results, and where they come from."""
