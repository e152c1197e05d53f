"""`Joined`: several splits of one dataset, one after the other."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from zoo.data.base import Dataset
from zoo.errors import DataError


class Joined(Dataset):
    """The samples of all `parts`, in order, as one split such as `"train+val"`. Keys begin with their split's name.

    Raises:
        DataError: a part twice, or parts of other classes, or labels in some of them only.
    """

    def __init__(self, parts: Sequence[Dataset]) -> None:
        first = parts[0]
        names = [part.split for part in parts]
        if len(set(names)) < len(names):
            raise DataError(f"{first.name}: the splits {' + '.join(names)} name one twice")
        for part in parts[1:]:
            if part.class_names != first.class_names or (part.labels is None) != (first.labels is None):
                raise DataError(f"{first.name}: {part.split} has other classes than {first.split}, so they do not join")
        self.parts = tuple(parts)
        self.name, self.split, self.modality = first.name, "+".join(names), first.modality
        self.class_names, self.licence = first.class_names, first.licence
        self.labels = None if first.labels is None else np.concatenate([part.labels for part in parts])
        self.keys = [f"{part.split}/{key}" for part in parts for key in part.keys]
        self._starts = np.cumsum([0, *(len(part) for part in parts)])

    def sample(self, index: int) -> Any:
        index = range(len(self))[index]
        which = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self.parts[which].sample(index - int(self._starts[which]))

    @cached_property
    def fingerprint(self) -> str:
        """sha256 (hex) over the fingerprints of the parts."""
        head = "encoder-zoo joined 1\n" + "\n".join(part.fingerprint for part in self.parts)
        return hashlib.sha256(head.encode()).hexdigest()
