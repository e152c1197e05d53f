"""Augmentation: batched random views, made on the device."""
