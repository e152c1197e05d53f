"""Images from files and from arrays: decoding, content, fingerprint."""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from zoo.data.base import Dataset
from zoo.device import chunks_in_order
from zoo.errors import DataError, InputError
from zoo.files import cache_root, write_cache


class ImageSequence(Dataset):
    """A sequence of images without labels: PIL images, arrays, file paths; or one array `(N, H, W[, C])`."""

    name = "images"

    def __init__(self, images: Sequence[Any] | np.ndarray) -> None:
        if not (isinstance(images, np.ndarray) or hasattr(images, "__getitem__")) or not hasattr(images, "__len__"):
            raise InputError(
                f"expected a dataset, a folder, or a sequence of images, got {type(images).__name__}; "
                "put a single image or a generator's images into a list"
            )
        if isinstance(images, np.ndarray) and images.dtype != object and images.dtype.kind != "U" and images.ndim < 3:
            raise InputError(f"expected an array of images (N, H, W) or (N, H, W, 3), got shape {images.shape}")
        self.images = images

    @cached_property
    def keys(self) -> Sequence[str]:
        """The path of a sample that is a file, else its position."""
        if isinstance(self.images, np.ndarray) and self.images.dtype.kind not in "OU":
            return [str(i) for i in range(len(self.images))]
        return [os.fspath(x) if isinstance(x, (str, os.PathLike)) else str(i) for i, x in enumerate(self.images)]

    def __len__(self) -> int:
        return len(self.images)

    def sample(self, index: int) -> Any:
        """A PIL image or an array.

        Raises:
            DataError: a file is missing or no image; names it.
        """
        image = self.images[index]
        if not isinstance(image, (str, os.PathLike)):
            return image
        return decode(_file_bytes(Path(image)), os.fspath(image))

    @cached_property
    def fingerprint(self) -> str:
        """sha256 (hex) over kind, shape and content of every image; a file counts by its bytes."""
        digest = hashlib.sha256()
        for index in range(len(self)):
            item = self.images[index]
            if isinstance(item, (str, os.PathLike)):
                content, kind = _file_bytes(Path(item)), "file"
            else:
                array = np.ascontiguousarray(item)
                content, kind = array.tobytes(), f"{array.dtype}{array.shape}{getattr(item, 'mode', '')}"
            digest.update(f"{kind} {len(content)};".encode() + content)
        return digest.hexdigest()


def _file_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from error


SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm", ".jp2", ".avif")
)


def decode(content: bytes, where: str) -> Image.Image:
    """Encoded bytes -> a PIL image of the mode it was stored in, upright by its EXIF orientation.

    Raises:
        DataError: not an image, truncated, or larger than PIL's decompression-bomb limit; names `where`.
    """
    try:
        image = Image.open(io.BytesIO(content))
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        return image
    except Exception as error:  # PIL's readers raise OSError, ValueError, SyntaxError, struct.error and more
        problem = "it is empty" if not content else _problem(error)
        raise DataError(f"{where} cannot be decoded as an image ({problem}); replace or remove it") from None


def _problem(error: Exception) -> str:
    # PIL prints the address of the buffer it was given, which says nothing to a reader.
    return re.sub(r" <_io.BytesIO[^>]*>", "", str(error)) or type(error).__name__


class ImageDataset(Dataset):
    """Images with a content hash per sample; readers implement `content` and `sample`."""

    def __init__(
        self,
        name: str,
        split: str,
        keys: Sequence[str],
        labels: np.ndarray | None,
        class_names: Sequence[str] = (),
        licence: str = "unknown",
    ) -> None:
        if len(keys) == 0:
            raise DataError(f"{name}, split {split!r}, holds no image")
        self.name, self.split, self.keys, self.licence = name, split, keys, licence
        self.labels = None if labels is None else np.asarray(labels, dtype=np.int64)
        self.class_names = () if labels is None else tuple(class_names)
        if self.labels is not None:
            _check_labels(self)

    def content(self, index: int) -> bytes:
        """The stored bytes of sample `index`: the file, or the raw pixels where there is no file."""
        raise NotImplementedError

    @cached_property
    def fingerprint(self) -> str:
        """sha256 (hex) over key, label and content of every sample, in order.

        Files that have not changed since the last time are not read again.
        """
        state = self._state()
        if state is None:
            return self._fingerprint()
        index = cache_root() / "fingerprints" / state
        known = _read_fingerprint(index)
        if known is not None:
            return known
        value = self._fingerprint()
        write_cache(index, value.encode())
        return value

    def _state(self) -> str | None:
        """Hash that changes whenever the content may have changed, cheap to get; None if there is none."""
        return None

    def _fingerprint(self) -> str:
        def digests(piece: range) -> list[bytes]:
            return [hashlib.sha256(self.content(i)).digest() for i in piece]

        total = hashlib.sha256(b"encoder-zoo dataset 1\n")
        labels = ["-"] * len(self) if self.labels is None else self.labels.tolist()
        index = 0
        for piece in chunks_in_order(digests, len(self), chunk=512):
            for digest in piece:
                key = self.keys[index].encode("utf-8", "surrogateescape")
                total.update(b"%d %s %s " % (len(key), key, str(labels[index]).encode()) + digest)
                index += 1
        return total.hexdigest()


def _check_labels(dataset: ImageDataset) -> None:
    labels, classes = dataset.labels, len(dataset.class_names)
    if labels.shape != (len(dataset.keys),):
        raise DataError(f"{dataset.name}: {len(dataset.keys)} samples but labels of shape {labels.shape}")
    if labels.min() < 0 or labels.max() >= classes:
        raise DataError(
            f"{dataset.name}, split {dataset.split!r}: labels lie in {labels.min()}..{labels.max()}, "
            f"expected 0..{classes - 1} for its {classes} class names"
        )


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


def _read_fingerprint(path: Path) -> str | None:
    try:
        value = path.read_text()
    except (OSError, ValueError):
        return None
    return value if re.fullmatch("[0-9a-f]{64}", value) else None


class FileImages(ImageDataset):
    """One image file per sample.

    Args:
        paths: absolute path of each file.
        keys: a stable name of each file, such as its path relative to the folder that was opened.
    """

    def __init__(
        self,
        name: str,
        split: str,
        paths: Sequence[str],
        keys: Sequence[str],
        labels: np.ndarray | None,
        class_names: Sequence[str] = (),
        licence: str = "unknown",
    ) -> None:
        super().__init__(name, split, keys, labels, class_names, licence)
        self.paths = paths

    def content(self, index: int) -> bytes:
        try:
            with open(self.paths[index], "rb") as file:
                return file.read()
        except OSError as error:
            raise DataError(
                f"{self.paths[index]} cannot be read ({error.strerror}); restore it or open the folder again"
            ) from None

    def sample(self, index: int) -> Image.Image:
        return decode(self.content(index), self.paths[index])

    def _state(self) -> str:
        labels = ["-"] * len(self) if self.labels is None else self.labels.tolist()
        return file_state(self.paths, (f"{key}\0{label}" for key, label in zip(self.keys, labels, strict=True)))


class ArrayImages(ImageDataset):
    """Images of one size held in memory: uint8 `(N, H, W)` grey or `(N, H, W, 3)` RGB. Keys are row numbers."""

    def __init__(
        self,
        name: str,
        split: str,
        images: np.ndarray,
        labels: np.ndarray | None,
        class_names: Sequence[str] = (),
        licence: str = "unknown",
        keys: Sequence[str] | None = None,
    ) -> None:
        super().__init__(name, split, keys or [str(i) for i in range(len(images))], labels, class_names, licence)
        self.images = images

    def content(self, index: int) -> bytes:
        pixels = self.images[index]
        return repr(pixels.shape).encode() + pixels.tobytes()

    def sample(self, index: int) -> Image.Image:
        return Image.fromarray(self.images[index])
