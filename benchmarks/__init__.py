"""Measurements: speed against peers, claims of papers at CPU scale, architecture search."""
