"""Datasets: readers of the formats people have, behind one contract (`zoo.data.base.Dataset`)."""

from __future__ import annotations

from zoo.data.addresses import available_splits, open_dataset
from zoo.data.base import Dataset

__all__ = ["Dataset", "available_splits", "open_dataset"]
