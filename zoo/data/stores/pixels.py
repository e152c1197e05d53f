"""Decode once: a dataset of images -> one uint8 array on disk, mapped into memory."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from zoo.data.base import Dataset, Subset
from zoo.data.unreadable import refusal
from zoo.device import chunks_in_order
from zoo.errors import DataError
from zoo.files import cache_root, locked, make_folder, remove_leftovers, replacing
from zoo.preprocessing.image import resize_and_crop, to_rgb

#: Part of the file name: raise it whenever the same image would give other pixels.
PIXEL_VERSION = 2
_FIX = "free some space, set ZOO_CACHE to another disk, or ask for a smaller size"
Progress = Callable[[int, int], None]


def pixel_cache(
    dataset: Dataset, size: int, *, cache_dir: str | Path | None = None, progress: Progress | None = None
) -> np.ndarray:
    """All images as uint8 `(N, size, size, 3)` RGB: shorter side resized to `size` (bicubic), centre crop.

    The file is named after the content of the dataset, built by one process while others wait,
    and mapped copy-on-write: writing to the array never reaches the disk.

    Args:
        size: side in pixels, 1..4096.
        cache_dir: default $ZOO_CACHE or ~/.cache/encoder-zoo.
        progress: called as `progress(done, total)` in the process that builds.

    Raises:
        DataError: not images, images that cannot be decoded (all of them are named), or no room on the disk.
    """
    array, indices = pixel_view(dataset, size, cache_dir=cache_dir, progress=progress)
    return array if indices is None else array[indices]


def pixel_view(
    dataset: Dataset, size: int, *, cache_dir: str | Path | None = None, progress: Progress | None = None
) -> tuple[np.ndarray, np.ndarray | None]:
    """`pixel_cache` without copying a subset: `(array, indices)`, sample i is `array[indices[i]]`.

    `indices` is None where it would be 0..N-1. Arguments and errors as in `pixel_cache`.
    """
    if dataset.modality != "image":
        raise DataError(f"{dataset.name} holds {dataset.modality} samples; only images have a pixel cache")
    if not 1 <= size <= 4096:
        raise DataError(f"the size of a pixel cache must lie in 1..4096 pixels, got {size}")
    folder = cache_root(cache_dir) / "pixels"
    if isinstance(dataset, Subset):
        parent = dataset.parent
        # A small part of a large set is decoded alone, unless the whole is there already.
        if 4 * len(dataset) >= len(parent) or _path(folder, parent, size).exists():
            return _load_or_build(folder, parent, size, progress), dataset.indices
    return _load_or_build(folder, dataset, size, progress), None


def _path(folder: Path, dataset: Dataset, size: int) -> Path:
    return folder / f"{dataset.fingerprint}-{size}px-v{PIXEL_VERSION}.npy"


def _load_or_build(folder: Path, dataset: Dataset, size: int, progress: Progress | None) -> np.ndarray:
    path, shape = _path(folder, dataset, size), (len(dataset), size, size, 3)
    array = _load(path, shape)
    if array is not None:
        return array
    with locked(path):
        array = _load(path, shape)
        if array is None:
            remove_leftovers(path)
            _build(path, dataset, size, progress)
            array = _load(path, shape)
    if array is None:
        raise DataError(f"{path} does not read back as it was written; check the disk or set ZOO_CACHE to another one")
    return array


def _load(path: Path, shape: tuple[int, ...]) -> np.ndarray | None:
    """The mapped array, or None if the file is missing, truncated or something else."""
    try:
        array = np.load(path, mmap_mode="c", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    if not isinstance(array, np.memmap) or array.dtype != np.uint8 or array.shape != shape:
        return None
    return array if path.stat().st_size == array.offset + array.nbytes else None


def _build(path: Path, dataset: Dataset, size: int, progress: Progress | None) -> None:
    needed = len(dataset) * size * size * 3
    make_folder(path.parent)
    if shutil.disk_usage(path.parent).free < needed:
        raise _no_room(path.parent, needed)
    corrupt: list[str] = []

    def decode(piece: range) -> np.ndarray:
        pixels = np.zeros((len(piece), size, size, 3), dtype=np.uint8)
        for row, index in enumerate(piece):
            try:
                pixels[row] = resize_and_crop(to_rgb(dataset.sample(index)), (size, size), 1.0, "bicubic")
            except DataError as error:
                corrupt.append(str(error))
        return pixels

    header = {"descr": "|u1", "fortran_order": False, "shape": (len(dataset), size, size, 3)}
    # Plain writes, in order: on a full disk a write fails cleanly, where a memory map would kill the process.
    with replacing(path, fix=_FIX) as temporary:
        with open(temporary, "wb") as file:
            np.lib.format.write_array_header_1_0(file, header)
            done = 0
            for pixels in chunks_in_order(decode, len(dataset)):
                file.write(pixels.data)
                done += len(pixels)
                if progress is not None:
                    progress(done, len(dataset))
        if corrupt:
            raise refusal(dataset, corrupt)
        dataset.check_unchanged()


def _no_room(folder: Path, needed: int) -> DataError:
    free = shutil.disk_usage(folder).free
    return DataError(f"no room for the pixel cache in {folder}: {needed:,} bytes needed, {free:,} free; {_FIX}")
