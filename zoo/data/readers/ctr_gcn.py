"""`NTU60_CS.npz` and its kin: NTU RGB+D as CTR-GCN and its followers prepare it.

`x_train`, `x_test`: `(N, T, 150)` floats, two bodies of 25 joints of x, y, z one after the other, zeros after the end
of a sequence; `y_train`, `y_test`: `(N, classes)` with a one for the class. Names of sequences are not kept, so nobody
knows who performs them. Source: Uason-Chen/CTR-GCN, data/ntu/seq_transformation.py (Chen et al., ICCV 2021).
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np

from zoo.data.reader import PathReader
from zoo.data.readers.ntu import BODIES, JOINTS
from zoo.data.skeletons import LazySkeletons
from zoo.errors import DataError

WIDTH = BODIES * JOINTS * 3
SPLITS = ("train", "test")


def has_layout(path: Path) -> bool:
    """Whether an `.npz` holds `x_train` and `y_train`, or the same of test."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return any({f"x_{split}", f"y_{split}"} <= set(file.files) for split in SPLITS)
    except Exception:  # zipfile and NumPy raise a dozen types; the reader of the zoo's own files names the fault
        return False


def open_ctr_gcn(path: Path, split: str) -> LazySkeletons:
    """One split; each sequence is `(T, 50, 3)`, two bodies side by side, up to its last frame that is not all zero.

    Raises:
        DataError: damaged, or arrays of other shapes.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            x, y = file[f"x_{split}"], file[f"y_{split}"]
    except Exception as error:  # zipfile, zlib and NumPy raise a dozen types for a damaged file
        raise DataError(f"{path} cannot be read as .npz without pickle ({type(error).__name__}: {error})") from None
    if x.ndim != 3 or x.shape[2] != WIDTH or x.dtype.kind != "f" or 0 in x.shape:
        raise DataError(f"{path}: x_{split} must be floats (N, T, {WIDTH}), got {x.dtype} {x.shape}")
    if y.ndim == 2 and len(y) == len(x):
        wrong = np.flatnonzero((y > 0).sum(axis=1) != 1)
        if len(wrong):
            raise DataError(
                f"{path}: row {wrong[0]} of y_{split} must have a single class, got {(y[wrong[0]] > 0).sum()}"
            )
        classes, labels = y.shape[1], y.argmax(axis=1)
    elif y.shape == (len(x),) and y.dtype.kind in "iu" and y.min() >= 0:
        classes, labels = int(y.max()) + 1, y.astype(np.int64)
    else:
        raise DataError(f"{path}: y_{split} must be ({len(x)}, classes) or ({len(x)},), got {y.dtype} {y.shape}")
    filled = x.any(axis=2)
    ends = np.where(filled.any(axis=1), x.shape[1] - filled[:, ::-1].argmax(axis=1), 0)
    rows = np.flatnonzero(ends)
    if not len(rows):
        raise DataError(f"{path}: every sequence of x_{split} is empty")

    def read(index: int) -> np.ndarray:
        frames = np.asarray(x[rows[index], : ends[rows[index]]], dtype=np.float32).reshape(-1, BODIES * JOINTS, 3)
        return np.where(np.isfinite(frames).all(axis=-1, keepdims=True), frames, np.float32(0))

    names = [f"A{i + 1:03d}" for i in range(classes)]
    keys = [f"{split}_{row}" for row in rows]
    data = LazySkeletons(path.stem.lower(), split, keys, labels[rows], names, layout="kinect_v2", read=read)
    data.reported({"sequences without a frame": [f"{split}_{row}" for row in np.flatnonzero(ends == 0)]})
    return data


class CTRGCN(PathReader):
    """An `.npz` with `x_train`, `y_train`, `x_test` and `y_test`."""

    example = "NTU60_CS.npz of CTR-GCN"
    prefixes = ("ctrgcn",)

    @classmethod
    def fits(cls, path: Path) -> bool:
        return path.is_file() and path.suffix.lower() == ".npz" and has_layout(path)

    @cached_property
    def found(self) -> list[str]:
        """The splits that the file holds."""
        try:
            with np.load(self.path, allow_pickle=False) as file:
                return [split for split in SPLITS if f"x_{split}" in file.files]
        except Exception as error:
            raise DataError(f"{self.path} cannot be read as .npz ({type(error).__name__}: {error})") from None

    def splits(self) -> list[str]:
        if not self.found:
            raise DataError(f"{self.path} holds neither x_train nor x_test")
        return self.found

    def open(self, split: str) -> LazySkeletons:
        return open_ctr_gcn(self.path, split)
