"""`Subset`: some samples of a dataset, as a dataset of its own."""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import Any

import numpy as np

from zoo.data.base import Dataset
from zoo.errors import DataError


class Subset(Dataset):
    """The samples of `parent` at `indices`, in that order. A subset of a subset refers to the first parent.

    Args:
        indices: `(n,)` integers in 0..len(parent)-1, repeats allowed, or a boolean mask `(len(parent),)`.
        split: name of the new split, such as `"train[:10%]"`.

    Raises:
        DataError: no index, an index out of range, or a mask of another length.
    """

    def __init__(self, parent: Dataset, indices: np.ndarray, split: str) -> None:
        indices = _checked(indices, len(parent))
        if isinstance(parent, Subset):
            parent, indices = parent.parent, parent.indices[indices]
        self.parent, self.indices, self.split = parent, indices, split
        self.name, self.modality = parent.name, parent.modality
        self.class_names, self.licence = parent.class_names, parent.licence
        self.labels = None if parent.labels is None else parent.labels[indices]
        self.keys = [parent.keys[i] for i in indices.tolist()]

    def sample(self, index: int) -> Any:
        return self.parent.sample(int(self.indices[index]))

    @cached_property
    def fingerprint(self) -> str:
        """sha256 (hex) over the parent's fingerprint and the indices."""
        indices = np.ascontiguousarray(self.indices, dtype="<i8")
        head = b"encoder-zoo subset 1\n" + self.parent.fingerprint.encode()
        return hashlib.sha256(head + indices.tobytes()).hexdigest()


def _checked(indices: np.ndarray, size: int) -> np.ndarray:
    if indices.dtype == bool:
        if indices.shape != (size,):
            raise DataError(f"a mask over {size} samples must have shape ({size},), got {indices.shape}")
        indices = np.flatnonzero(indices)
    if indices.ndim != 1 or len(indices) == 0:
        raise DataError(f"a subset needs at least one index, got indices of shape {indices.shape}")
    if not np.issubdtype(indices.dtype, np.integer):
        raise DataError(f"subset indices must be integers, got {indices.dtype}")
    if indices.min() < 0 or indices.max() >= size:
        raise DataError(f"subset indices must lie in 0..{size - 1}, got {indices.min()}..{indices.max()}")
    return indices.astype(np.int64)
