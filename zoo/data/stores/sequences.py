"""Parse once: a dataset of skeletons -> all preprocessed frames in one array on disk, mapped into memory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from zoo.data.base import Dataset
from zoo.device import chunks_in_order
from zoo.errors import DataError, InputError
from zoo.files import cache_root, locked, remove_leftovers, replacing
from zoo.preprocessing.skeleton import SkeletonTransform

#: Part of the file name: raise it whenever the same sequence would give other numbers.
VERSION = 1


@dataclass(frozen=True)
class SequenceStore:
    """Preprocessed sequences one after the other: `frames` `(F, V, C)` float32, `offsets` `(N + 1,)` int64."""

    frames: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> np.ndarray:
        """Frames of each sequence, `(N,)`."""
        return np.diff(self.offsets)

    def sequence(self, index: int) -> np.ndarray:
        """Sequence `index`, `(T, V, C)`."""
        return self.frames[self.offsets[index] : self.offsets[index + 1]]


def sequence_store(
    dataset: Dataset,
    transform: SkeletonTransform,
    *,
    cache_dir: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> SequenceStore:
    """All sequences as `transform` gives them. The file is named after content and preprocessing.

    Raises:
        DataError: not skeletons, or a sequence that does not fit the transform (it is named); no room on the disk.
    """
    if dataset.modality != "skeleton":
        raise DataError(f"{dataset.name} holds {dataset.modality} samples, but the encoder takes skeletons")
    steps = hashlib.sha256(transform.input.model_dump_json().encode()).hexdigest()[:16]
    path = cache_root(cache_dir) / "sequences" / f"{dataset.fingerprint}-{steps}-v{VERSION}.npy"
    store = _load(path, len(dataset))
    if store is None:
        with locked(path):
            store = _load(path, len(dataset))
            if store is None:
                remove_leftovers(path)
                _build(path, dataset, transform, progress)
                store = _load(path, len(dataset))
    if store is None:
        raise DataError(f"{path} does not read back as it was written; check the disk or set ZOO_CACHE to another one")
    return store


def _lengths_path(path: Path) -> Path:
    return path.with_suffix(".lengths.npy")


def _load(path: Path, count: int) -> SequenceStore | None:
    """None if a file is missing, truncated or does not fit."""
    try:
        lengths = np.load(_lengths_path(path), allow_pickle=False)
        frames = np.load(path, mmap_mode="c", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    if lengths.shape != (count,) or frames.ndim != 3 or len(frames) != lengths.sum() or frames.dtype != np.float32:
        return None
    return SequenceStore(frames, np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]))


def _build(path: Path, dataset: Dataset, transform: SkeletonTransform, progress: Callable | None) -> None:
    def prepare(piece: range) -> list[np.ndarray]:
        return [_prepared(dataset, transform, index) for index in piece]

    sequences: list[np.ndarray] = []
    for part in chunks_in_order(prepare, len(dataset)):
        sequences += part
        if progress is not None:
            progress(len(sequences), len(dataset))
    dataset.check_unchanged()
    # The lengths come last: a store without them is not finished.
    _lengths_path(path).unlink(missing_ok=True)
    for place, content in (
        (path, np.concatenate(sequences)),
        (_lengths_path(path), np.array([len(x) for x in sequences], dtype=np.int64)),
    ):
        fix = "free some space or set ZOO_CACHE to another folder"
        with replacing(place, fix=fix) as temporary, open(temporary, "wb") as file:
            np.lib.format.write_array(file, content, allow_pickle=False)


def _prepared(dataset: Dataset, transform: SkeletonTransform, index: int) -> np.ndarray:
    try:
        return transform.frames(dataset.sample(index))
    except InputError as error:
        raise DataError(f"{dataset.name}, sample {dataset.keys[index]!r}: {error}") from None
