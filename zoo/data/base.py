"""The dataset contract: what every reader gives and everything else takes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from zoo.errors import DataError


class Dataset:
    """Samples with stable keys, maybe labels, and a fingerprint of the content.

    Attributes:
        name: short name for tables, such as `"cifar10"`.
        split: name of this split, such as `"train"`; `"all"` where the data has none.
        modality: `"image"` or `"skeleton"`.
        class_names: one name per class; empty without labels.
        labels: `(N,)` int64 class indices, or None.
        keys: a stable identifier per sample (relative path, row number).
        licence: terms of use as the source states them, or "unknown".
    """

    name: str
    split: str = "all"
    modality: str = "image"
    class_names: tuple[str, ...] = ()
    labels: np.ndarray | None = None
    keys: Sequence[str]
    licence: str = "unknown"

    def __len__(self) -> int:
        return len(self.keys)

    def __repr__(self) -> str:
        """`<Dataset cifar10/test: 10,000 images, 10 classes (airplane, automobile, bird, ...)>`."""
        kind = {"image": "images", "skeleton": "skeleton sequences"}.get(self.modality, self.modality)
        shown = ", ".join(self.class_names[:3]) + (", ..." if len(self.class_names) > 3 else "")
        classes = f"{len(self.class_names)} classes ({shown})" if self.class_names else "no labels"
        return f"<{type(self).__name__} {self.name}/{self.split}: {len(self):,} {kind}, {classes}>"

    def sample(self, index: int) -> Any:
        """Sample `index`: a PIL image, or a skeleton sequence `(T, V, C)` float32 array in metres.

        Raises:
            DataError: the file is missing or cannot be decoded; names it.
        """
        raise NotImplementedError

    @property
    def fingerprint(self) -> str:
        """sha256 (hex) over keys, labels and the content of every sample; computed once."""
        raise NotImplementedError

    def subset(self, indices: Sequence[int] | np.ndarray, split: str | None = None) -> Dataset:
        """The samples at `indices`, in that order, as a dataset of its own."""

        return Subset(self, np.asarray(indices), split or self.split)


class Joined(Dataset):
    """The samples of `parts`, one part after the other; its split is called `"train+val"`.

    Raises:
        DataError: no part, parts of different modality or classes, or a split twice.
    """

    def __init__(self, parts: Sequence[Dataset]) -> None:
        if not parts:
            raise DataError("nothing to join: no split was given")
        first = parts[0]
        for part in parts[1:]:
            if (part.modality, part.class_names) != (first.modality, first.class_names):
                raise DataError(f"{first.name}/{first.split} and {part.name}/{part.split} do not have the same classes")
        names = [part.split for part in parts]
        if len(set(names)) < len(names):
            raise DataError(f"{first.name}: the splits {' + '.join(names)} name one twice")
        self.parts, self.starts = list(parts), np.cumsum([0, *map(len, parts)])
        self.name, self.modality = first.name, first.modality
        self.class_names, self.licence = first.class_names, first.licence
        self.split = "+".join(names)
        labels = [part.labels for part in parts]
        self.labels = None if any(each is None for each in labels) else np.concatenate(labels)
        self.keys = [f"{part.split}/{key}" for part in parts for key in part.keys]

    def sample(self, index: int) -> Any:
        index = range(len(self))[index]  # the last sample is -1, as in any sequence
        part = int(np.searchsorted(self.starts, index, side="right")) - 1
        return self.parts[part].sample(index - int(self.starts[part]))

    @cached_property
    def fingerprint(self) -> str:
        """sha256 (hex) over the fingerprints of the parts."""
        head = "encoder-zoo joined 1\n" + "\n".join(part.fingerprint for part in self.parts)
        return hashlib.sha256(head.encode()).hexdigest()


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
