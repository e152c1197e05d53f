"""Skeleton sequences behind the dataset contract: in memory, or one file per sequence."""

from __future__ import annotations

import hashlib
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from zoo.data.base import Dataset, Subset
from zoo.data.images import FileImages, ImageDataset
from zoo.errors import DataError, InputError
from zoo.preprocessing.steps import untracked

log = logging.getLogger("zoo.data")


@dataclass(frozen=True)
class Facts:
    """What a reader knows beyond the contract.

    Attributes:
        layout: joint names, one of `zoo.preprocessing.joints.LAYOUTS`.
        groups: `(N,)` int64, the person who performs each sequence; None if unknown.
        notes: what a reader of the data must know, such as duplicates across its splits.
    """

    layout: str = "kinect_v1"
    groups: np.ndarray | None = None
    notes: tuple[str, ...] = ()


class _Skeletons(ImageDataset):
    """What all skeleton datasets share; only the storage of `ImageDataset` is used, nothing of images."""

    modality = "skeleton"
    facts: Facts

    def __init__(
        self,
        name: str,
        split: str,
        keys: Sequence[str],
        labels: np.ndarray | None,
        class_names: Sequence[str] = (),
        licence: str = "unknown",
        facts: Facts | None = None,
    ) -> None:
        if len(keys) == 0:
            raise DataError(f"{name}, split {split!r}, holds no skeleton sequence")
        ImageDataset.__init__(self, name, split, keys, labels, class_names, licence)
        self.facts = facts or Facts()

    def sample(self, index: int) -> np.ndarray:
        """Sequence `index`: `(T, V, C)` float32 in metres, zeros for untracked joints, bodies side by side along V."""
        raise NotImplementedError

    def content(self, index: int) -> bytes:
        x = np.ascontiguousarray(self.sample(index), dtype="<f4")
        return repr(x.shape).encode() + x.tobytes()


class ArraySkeletons(_Skeletons):
    """Sequences in memory: all frames `(F, V, C)` float32 one after the other, and `(N,)` lengths that sum to F."""

    def __init__(
        self, name: str, split: str, frames: np.ndarray, lengths: np.ndarray, keys: Sequence[str], *args, **kwargs
    ) -> None:
        super().__init__(name, split, keys, *args, **kwargs)
        if len(lengths) != len(keys) or frames.ndim != 3 or np.min(lengths) < 0 or np.sum(lengths) != len(frames):
            raise DataError(
                f"{name}: {len(keys)} keys, {len(lengths)} lengths that sum to {np.sum(lengths)}, and frames of shape "
                f"{frames.shape} do not fit together; expected frames (sum of lengths, joints, 3)"
            )
        self.frames = frames
        self.offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])

    def sample(self, index: int) -> np.ndarray:
        return self.frames[self.offsets[index] : self.offsets[index + 1]]


class FileSkeletons(_Skeletons, FileImages):
    """One file per sequence; `parse(content, path)` turns its bytes into `(T, V, C)`."""

    def __init__(
        self, name: str, split: str, paths: Sequence[str], keys: Sequence[str], *args, parse: Callable, **kwargs
    ) -> None:
        super().__init__(name, split, keys, *args, **kwargs)
        self.paths, self.parse = paths, parse

    def content(self, index: int) -> bytes:
        return FileImages.content(self, index)

    def sample(self, index: int) -> np.ndarray:
        return self.parse(self.content(index), self.paths[index])


class LazySkeletons(_Skeletons):
    """Sequences that `read(index)` gives, from a store too large for memory."""

    def __init__(self, name: str, split: str, keys: Sequence[str], *args, read: Callable, **kwargs) -> None:
        super().__init__(name, split, keys, *args, **kwargs)
        self.read = read

    def sample(self, index: int) -> np.ndarray:
        return self.read(index)


class SkeletonSequence(_Skeletons):
    """A list of arrays `(T, V, C)`, or one array `(N, T, V, C)`, without labels."""

    def __init__(self, sequences: Sequence[np.ndarray]) -> None:
        if len(sequences) == 0:
            raise InputError("expected a list of skeleton sequences (T, V, 3), got an empty one")
        super().__init__("skeletons", "all", [str(i) for i in range(len(sequences))], None)
        self.sequences = sequences

    def sample(self, index: int) -> np.ndarray:
        return np.asarray(self.sequences[index])


def facts_of(dataset: Dataset) -> Facts:
    """The facts of a skeleton dataset or of a subset of one; empty ones for any other dataset."""
    if isinstance(dataset, Subset):
        parent = facts_of(dataset.parent)
        groups = None if parent.groups is None else parent.groups[dataset.indices]
        return Facts(parent.layout, groups, parent.notes)
    return getattr(dataset, "facts", Facts())


def identical(sequences: Iterable[np.ndarray]) -> list[list[int]]:
    """Groups of positions whose sequences are equal bit for bit."""
    found: dict[bytes, list[int]] = defaultdict(list)
    for index, x in enumerate(sequences):
        x = np.ascontiguousarray(x, dtype="<f4")
        found[hashlib.sha256(repr(x.shape).encode() + x.tobytes()).digest()].append(index)
    return [group for group in found.values() if len(group) > 1]


@dataclass(frozen=True)
class Summary:
    """What opening a skeleton dataset should tell: counts, lengths in frames, share of untracked joints, copies."""

    sequences: int
    classes: int
    joints: int
    frames: int
    shortest: int
    median: float
    longest: int
    untracked: float
    duplicates: int
    notes: tuple[str, ...]

    def __str__(self) -> str:
        text = (
            f"{self.sequences:,} sequences of {self.classes} classes, {self.joints} joints, {self.frames:,} frames "
            f"({self.shortest}..{self.longest}, median {self.median:g}), "
            f"{100 * self.untracked:.2g} % of joints untracked, {self.duplicates} exact copies"
        )
        return "; ".join((text, *self.notes))


def summarise(dataset: Dataset) -> Summary:
    """Read every sequence once and count."""
    lengths, missing, points, joints = [], 0, 0, 0

    def each() -> Iterable[np.ndarray]:
        nonlocal missing, points, joints
        for index in range(len(dataset)):
            x = dataset.sample(index)
            lengths.append(len(x))
            missing, points, joints = missing + int(untracked(x).sum()), points + x[..., 0].size, x.shape[1]
            yield x

    copies = sum(len(group) - 1 for group in identical(each()))
    return Summary(
        sequences=len(lengths),
        classes=len(dataset.class_names),
        joints=joints,
        frames=sum(lengths),
        shortest=min(lengths),
        median=float(np.median(lengths)),
        longest=max(lengths),
        untracked=missing / max(points, 1),
        duplicates=copies,
        notes=facts_of(dataset).notes,
    )
