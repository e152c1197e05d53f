"""The dataset contract: what every reader gives and everything else takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


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
        from zoo.data.subset import Subset

        return Subset(self, np.asarray(indices), split or self.split)
