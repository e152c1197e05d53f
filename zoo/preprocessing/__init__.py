"""Preprocessing: each specification beside the transform that carries it out."""
