"""Splits of datasets that torchvision leaves whole."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from zoo.data.splits import per_class
from zoo.errors import DataError

#: Indices of a split, and what its name says of how they were drawn.
Partition = dict[str, tuple[np.ndarray, str]]


def thirty_per_class(paths: list[str], labels: np.ndarray, folder: Path) -> Partition:
    """Caltech-101: 30 training images per class, the rest to test, drawn with seed 0.

    The field has no fixed lists, only this number (SimCLR, appendix B.8.1).
    """
    train, test = per_class(labels, 30, seed=0)
    return {"train": (train, "[30 per class, seed 0]"), "test": (test, "[the rest, seed 0]")}


def sun397_partition(paths: list[str], labels: np.ndarray, folder: Path) -> Partition:
    """SUN397: partition 1 of the authors where `Training_01.txt` and `Testing_01.txt` lie in the data's folder or in
    its `Partitions`; else 50 training and 50 test images per class, drawn with seed 0.

    Raises:
        DataError: only one of the two files, or a listed image that is missing.
    """
    home = Path(os.path.abspath(folder)) / "SUN397"
    for place in (home, home / "Partitions", folder / "Partitions"):
        lists = [place / "Training_01.txt", place / "Testing_01.txt"]
        if any(path.is_file() for path in lists):
            train, test = (_listed(path, paths, home) for path in lists)
            return {"train": (train, "[partition 1]"), "test": (test, "[partition 1]")}
    train, rest = per_class(labels, 50, seed=0)
    test = rest[per_class(labels[rest], 50, seed=0)[0]]
    return {"train": (train, "[50 per class, seed 0]"), "test": (test, "[another 50 per class, seed 0]")}


def _listed(file: Path, paths: list[str], home: Path) -> np.ndarray:
    if not file.is_file():
        raise DataError(f"{file} is missing beside its companion; unpack all of SUN397's Partitions.zip")
    index = {Path(path).relative_to(home).as_posix(): i for i, path in enumerate(paths)}
    names = [line.strip().lstrip("/") for line in file.read_text().splitlines() if line.strip()]
    missing = [name for name in names if name not in index]
    if missing:
        raise DataError(
            f"{file} lists {missing[0]}, which is not below {home} ({len(missing)} of {len(names)} missing)"
        )
    return np.sort(np.array([index[name] for name in names], dtype=np.int64))
