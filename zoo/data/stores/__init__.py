"""Stores: data decoded once and mapped into memory."""
