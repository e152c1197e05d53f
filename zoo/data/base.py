"""The dataset contract: what every reader gives and everything else takes."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from zoo.data.labels import class_indices
from zoo.device import chunks_in_order
from zoo.errors import ChangedError, DataError
from zoo.files import cache_root, write_cache

#: What one sample of a modality is called.
NOUNS = {"image": ("image", "images"), "skeleton": ("skeleton sequence", "skeleton sequences")}


@dataclass(frozen=True)
class Report:
    """What a reader saw, took and left while it opened one split.

    Attributes:
        took: number of samples in the dataset.
        left: reason -> what was left out for it (file names, keys or descriptions).
        notes: other things that a reader of the data must know, such as copies across splits.
    """

    took: int
    left: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def saw(self) -> int:
        """Samples and files that the reader looked at: those taken and those left out."""
        return self.took + sum(map(len, self.left.values()))

    def __str__(self) -> str:
        parts = []
        if self.left:
            reasons = ", ".join(f"{len(names):,} {reason}" for reason, names in self.left.items())
            parts.append(f"{self.saw:,} seen, {self.took:,} taken, {self.saw - self.took:,} left out: {reasons}")
        return "; ".join((*parts, *self.notes)) or f"{self.took:,} seen, all of them taken"


class Dataset:
    """Samples with stable keys, maybe labels, and a fingerprint of the content.

    A dataset keeps its samples where the subclass says; it implements `sample` and, unless it has a fingerprint of
    its own, `content`.

    Attributes:
        name: short name for tables, such as `"cifar10"`.
        split: name of this split, such as `"train"`; `"all"` where the data has none.
        modality: `"image"` or `"skeleton"`.
        class_names: one name per class; empty without labels.
        labels: `(N,)` int64 class indices, or None.
        keys: a stable identifier per sample (relative path, row number).
        licence: terms of use as the source states them, or "unknown".
        groups: what samples have in common beyond their class: kind (`"person"`, `"camera"`, `"setup"`) -> `(N,)`
            int64. Empty where the reader knows of none.
        home: the place within which `keys` name samples across splits; None where the same key in two splits means
            two samples.
        layout: joint names of skeletons, one of `zoo.preprocessing.joints.LAYOUTS`; empty for images.
    """

    name: str
    split: str = "all"
    modality: str = "image"
    class_names: tuple[str, ...] = ()
    labels: np.ndarray | None = None
    keys: Sequence[str]
    licence: str = "unknown"
    groups: Mapping[str, np.ndarray] = {}
    layout: str = ""
    home: str | None = None
    _report: Report | None = None

    def __init__(
        self,
        name: str,
        split: str,
        keys: Sequence[str],
        labels: np.ndarray | None = None,
        class_names: Sequence[str] = (),
        licence: str = "unknown",
        groups: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        if len(keys) == 0:
            raise DataError(f"{name}, split {split!r}, holds no {NOUNS[self.modality][0]}")
        self.name, self.split, self.keys, self.licence = name, split, keys, licence
        self.labels = None if labels is None else class_indices(labels, f"{name}, split {split!r}")
        self.class_names = () if labels is None else tuple(class_names)
        self.groups = {kind: np.asarray(values, dtype=np.int64) for kind, values in (groups or {}).items()}
        if self.labels is not None:
            _check_labels(self)

    def __len__(self) -> int:
        return len(self.keys)

    def __repr__(self) -> str:
        noun = NOUNS[self.modality][len(self) != 1]
        text = f"{self.name}/{self.split}: {len(self):,} {noun}"
        if self.labels is not None:
            text += f", {classes_text(self.class_names)}"
        return f"<{text}>"

    @property
    def report(self) -> Report:
        """What the reader saw, took and left."""
        return self._report or Report(len(self))

    def reported(self, left: Mapping[str, Sequence[str]] | None = None, notes: Sequence[str] = ()) -> Dataset:
        """This dataset, with what its reader left out and noted added to its report."""
        merged = dict(self.report.left)
        for reason, names in (left or {}).items():
            if names:
                merged[reason] = (*merged.get(reason, ()), *names)
        self._report = replace(self.report, left=merged, notes=(*self.report.notes, *notes))
        return self

    def sample(self, index: int) -> Any:
        """Sample `index`: a PIL image, or a skeleton sequence `(T, V, C)` float32 array in metres.

        Raises:
            DataError: the file is missing or cannot be decoded; names it.
        """
        raise NotImplementedError

    def content(self, index: int) -> bytes:
        """The stored bytes of sample `index`: the file, or the raw numbers where there is no file."""
        raise NotImplementedError

    def encoded(self, index: int) -> tuple[bytes, str] | None:
        """The bytes of the file that a sample is decoded from, and its name; None where samples are no files."""
        return None

    @cached_property
    def fingerprint(self) -> str:
        """sha256 (hex) over key, label and content of every sample, in order; computed once.

        Files that have not changed since the last time are not read again.
        """
        state = self._first_state
        if state is None:
            return self._fingerprint()
        index = cache_root() / "fingerprints" / state
        known = _read_fingerprint(index)
        if known is not None:
            return known
        value = self._fingerprint()
        self.check_unchanged()
        write_cache(index, value.encode())
        return value

    @cached_property
    def _first_state(self) -> str | None:
        return self._state()

    def check_unchanged(self) -> None:
        """Compare the files with what they were at the first call, or when the fingerprint was taken.

        Called before samples are read and after, so that a fingerprint vouches for the very samples that were read.

        Raises:
            ChangedError: a file was replaced or written to meanwhile. DataError: it was removed.
        """
        first = self._first_state
        if first is not None and self._state() != first:
            raise ChangedError(
                f"files of {self.name}, split {self.split!r}, changed while they were read; wait until nothing writes "
                "to them, and open the dataset again"
            )

    def _state(self) -> str | None:
        """Hash that changes whenever the content may have changed, cheap to get; None if there is none."""
        return None

    def _fingerprint(self) -> str:
        total = hashlib.sha256(b"encoder-zoo dataset 1\n")
        labels = ["-"] * len(self) if self.labels is None else self.labels.tolist()
        for index, digest in enumerate(self._digests()):
            key = self.keys[index].encode("utf-8", "surrogateescape")
            total.update(b"%d %s %s " % (len(key), key, str(labels[index]).encode()) + digest)
        return total.hexdigest()

    def _digests(self) -> Iterator[bytes]:
        """sha256 of the content of every sample, in order."""

        def digests(piece: range) -> list[bytes]:
            return [hashlib.sha256(self.content(i)).digest() for i in piece]

        for piece in chunks_in_order(digests, len(self), chunk=512):
            yield from piece

    def without(self, bad: Mapping[int, str]) -> Dataset:
        """The samples but those at the positions in `bad` (position -> problem); the report says which and why."""
        return Remaining(self, bad)

    def subset(self, indices: Sequence[int] | np.ndarray, split: str | None = None) -> Dataset:
        """The samples at `indices`, in that order, as a dataset of its own."""

        return Subset(self, np.asarray(indices), split or self.split)


def classes_text(names: Sequence[str]) -> str:
    """`81 classes (Apple, Avocado, Banana, ...)`."""
    shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return f"{len(names):,} {'class' if len(names) == 1 else 'classes'} ({shown})"


def _check_labels(dataset: Dataset) -> None:
    labels, classes = dataset.labels, len(dataset.class_names)
    if labels.shape != (len(dataset.keys),):
        raise DataError(f"{dataset.name}: {len(dataset.keys)} samples but labels of shape {labels.shape}")
    if labels.max() >= classes:
        raise DataError(
            f"{dataset.name}, split {dataset.split!r}: labels lie in {labels.min()}..{labels.max()}, "
            f"expected 0..{classes - 1} for its {classes} class names"
        )


def _read_fingerprint(path: Path) -> str | None:
    try:
        value = path.read_text()
    except (OSError, ValueError):
        return None
    return value if re.fullmatch("[0-9a-f]{64}", value) else None


def file_state(paths: Iterable[str], facts: Iterable[str]) -> str:
    """sha256 (hex) over what the file system says about each path, and one more fact for each."""
    state = hashlib.sha256(b"encoder-zoo state 1\n")
    for path, fact in zip(paths, facts, strict=True):
        try:
            stat = os.stat(path)
        except OSError as error:
            raise DataError(f"{path} cannot be read ({error.strerror}); open the dataset again") from None
        line = f"{path}\0{fact}\0{stat.st_size}\0{stat.st_mtime_ns}\0{stat.st_ctime_ns}\n"
        state.update(line.encode("utf-8", "surrogateescape"))
    return state.hexdigest()


class FileDataset(Dataset):
    """One file per sample; subclasses say how a file's bytes become a sample.

    Args:
        paths: absolute path of each file.
        keys: a stable name of each file, such as its path relative to the folder that was opened.
        others: as in `Dataset`.
    """

    def __init__(self, name: str, split: str, paths: Sequence[str], keys: Sequence[str], *others: Any, **named: Any):
        super().__init__(name, split, keys, *others, **named)
        self.paths = paths

    def content(self, index: int) -> bytes:
        try:
            with open(self.paths[index], "rb") as file:
                return file.read()
        except OSError as error:
            raise DataError(
                f"{self.paths[index]} cannot be read ({error.strerror}); restore it or open the folder again"
            ) from None

    def encoded(self, index: int) -> tuple[bytes, str] | None:
        return self.content(index), self.paths[index]

    def _state(self) -> str:
        labels = ["-"] * len(self) if self.labels is None else self.labels.tolist()
        return file_state(self.paths, (f"{key}\0{label}" for key, label in zip(self.keys, labels, strict=True)))


class Remaining(Dataset):
    """The samples of `parent` without some that cannot be read; as if the parent had never held them."""

    def __init__(self, parent: Dataset, bad: Mapping[int, str]) -> None:
        keep = np.array([i for i in range(len(parent)) if i not in bad], dtype=np.int64)
        self.parent, self.indices, self.modality = parent, keep, parent.modality
        super().__init__(
            parent.name,
            parent.split,
            [parent.keys[i] for i in keep.tolist()],
            None if parent.labels is None else parent.labels[keep],
            parent.class_names,
            parent.licence,
            {kind: values[keep] for kind, values in parent.groups.items()},
        )
        self.layout = parent.layout
        self.reported(parent.report.left, parent.report.notes)
        self.reported({"unreadable": [f"{parent.keys[i]}: {why}" for i, why in sorted(bad.items())]})

    def sample(self, index: int) -> Any:
        return self.parent.sample(int(self.indices[index]))

    def content(self, index: int) -> bytes:
        return self.parent.content(int(self.indices[index]))

    def encoded(self, index: int) -> tuple[bytes, str] | None:
        return self.parent.encoded(int(self.indices[index]))

    def check_unchanged(self) -> None:
        self.parent.check_unchanged()

    def _state(self) -> str | None:
        state = self.parent._state()
        kept = np.ascontiguousarray(self.indices, dtype="<i8").tobytes()
        return None if state is None else hashlib.sha256(state.encode() + kept).hexdigest()


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
        self.name, self.modality, self.layout = parent.name, parent.modality, parent.layout
        self.class_names, self.licence = parent.class_names, parent.licence
        self.labels = None if parent.labels is None else parent.labels[indices]
        self.keys = [parent.keys[i] for i in indices.tolist()]
        self.groups = {kind: values[indices] for kind, values in parent.groups.items()}
        self.reported(parent.report.left, parent.report.notes)

    def sample(self, index: int) -> Any:
        return self.parent.sample(int(self.indices[index]))

    def encoded(self, index: int) -> tuple[bytes, str] | None:
        return self.parent.encoded(int(self.indices[index]))

    @cached_property
    def fingerprint(self) -> str:
        """sha256 (hex) over the parent's fingerprint and the indices."""
        indices = np.ascontiguousarray(self.indices, dtype="<i8")
        head = b"encoder-zoo subset 1\n" + self.parent.fingerprint.encode()
        return hashlib.sha256(head + indices.tobytes()).hexdigest()

    def check_unchanged(self) -> None:
        self.parent.check_unchanged()


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
