"""Several splits as one dataset."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from zoo.data.base import Dataset
from zoo.errors import DataError


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
        self.name, self.modality, self.layout = first.name, first.modality, first.layout
        self.class_names, self.licence = first.class_names, first.licence
        self.split = "+".join(names)
        labels = [part.labels for part in parts]
        self.labels = None if any(each is None for each in labels) else np.concatenate(labels)
        self.keys = [f"{part.split}/{key}" for part in parts for key in part.keys]
        shared = [kind for kind in first.groups if all(kind in part.groups for part in parts)]
        self.groups = {kind: np.concatenate([part.groups[kind] for part in parts]) for kind in shared}
        for part in parts:
            self.reported(part.report.left, [note for note in part.report.notes if note not in self.report.notes])

    def sample(self, index: int) -> Any:
        index = range(len(self))[index]  # the last sample is -1, as in any sequence
        part = int(np.searchsorted(self.starts, index, side="right")) - 1
        return self.parts[part].sample(index - int(self.starts[part]))

    def encoded(self, index: int) -> tuple[bytes, str] | None:
        index = range(len(self))[index]
        part = int(np.searchsorted(self.starts, index, side="right")) - 1
        return self.parts[part].encoded(index - int(self.starts[part]))

    @cached_property
    def fingerprint(self) -> str:
        """sha256 (hex) over the fingerprints of the parts."""
        head = "encoder-zoo joined 1\n" + "\n".join(part.fingerprint for part in self.parts)
        return hashlib.sha256(head.encode()).hexdigest()

    def check_unchanged(self) -> None:
        for part in self.parts:
            part.check_unchanged()
