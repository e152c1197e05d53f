"""Skeleton sequences behind the dataset contract: in memory, or one file per sequence."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from zoo.data.base import Dataset, FileDataset
from zoo.errors import DataError, InputError
from zoo.preprocessing.picture import is_tensor
from zoo.preprocessing.steps import untracked


class _Skeletons(Dataset):
    """What all skeleton datasets share.

    Args:
        layout: joint names, one of `zoo.preprocessing.joints.LAYOUTS`.
        others: as in `Dataset`.
    """

    modality = "skeleton"

    def __init__(self, *others, layout: str = "kinect_v1", **named) -> None:
        super().__init__(*others, **named)
        self.layout = layout

    def sample(self, index: int) -> np.ndarray:
        """Sequence `index`: `(T, V, C)` float32 in metres, zeros for untracked joints, bodies side by side along V."""
        raise NotImplementedError

    def content(self, index: int) -> bytes:
        sample = self.sample(index)
        try:
            x = np.ascontiguousarray(sample, dtype="<f4")
        except (TypeError, ValueError):
            came = f"{type(sample).__name__} of {getattr(sample, 'dtype', 'no dtype')}"
            raise InputError(
                f"{self.name}, sample {self.keys[index]!r}: expected a skeleton sequence (T, V, C) of numbers, "
                f"got {came}"
            ) from None
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


class FileSkeletons(FileDataset, _Skeletons):
    """One file per sequence; `parse(content, path)` turns its bytes into `(T, V, C)`."""

    def __init__(self, *others, parse: Callable[[bytes, str], np.ndarray], **named) -> None:
        super().__init__(*others, **named)
        self.parse = parse

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
        shape = getattr(sequences, "shape", None)
        if shape is not None and len(shape) == 3:
            raise InputError(
                f"an array of shape {tuple(shape)} is one sequence (T, V, 3), expected a list of sequences or "
                "(N, T, V, 3); write [x] for one sequence"
            )
        if len(sequences) == 0:
            raise InputError("expected a list of skeleton sequences (T, V, 3), got an empty one")
        super().__init__("skeletons", "all", [str(i) for i in range(len(sequences))], None)
        self.sequences = sequences

    def sample(self, index: int) -> np.ndarray:
        x = self.sequences[index]
        return x.detach().cpu().numpy() if is_tensor(x) else np.asarray(x)


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

    def __str__(self) -> str:
        return (
            f"{self.sequences:,} sequences of {self.classes} classes, {self.joints} joints, {self.frames:,} frames "
            f"({self.shortest}..{self.longest}, median {self.median:g}), "
            f"{100 * self.untracked:.2g} % of joints untracked, {self.duplicates} exact copies"
        )


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
    )
