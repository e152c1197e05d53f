"""Images from files and from arrays: decoding, content, fingerprint."""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from zoo.data.base import Dataset, FileDataset
from zoo.errors import DataError, InputError


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


class FileImages(FileDataset):
    """One image file per sample; see `FileDataset`."""

    def sample(self, index: int) -> Image.Image:
        return decode(self.content(index), self.paths[index])


class ArrayImages(Dataset):
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
