"""Images from files and from arrays: decoding, content, fingerprint."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image

from zoo.data.base import Dataset, FileDataset, file_state
from zoo.errors import InputError
from zoo.preprocessing.picture import CHANNELS, decode, file_bytes, is_tensor, to_rgb

#: Endings of image files that a folder may hold, those of extras included.
SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".tga", ".ppm", ".pgm", ".pbm")
    + (".jp2", ".avif", ".heic", ".heif")
)


class ImageSequence(Dataset):
    """A sequence of pictures without labels, each as `to_rgb` takes it; or one array or tensor of pictures.

    Args:
        images: a list of PIL images, paths, bytes, arrays or tensors; an array `(N, H, W)` or `(N, H, W, C)`; a
            tensor `(N, C, H, W)` or `(N, H, W, C)`.

    Raises:
        InputError: no sequence, or an array that is as well a single picture.
    """

    name = "images"

    def __init__(self, images: Sequence[Any] | np.ndarray) -> None:
        self.images = _checked(images)

    @cached_property
    def keys(self) -> Sequence[str]:
        """The path of a sample that is a file, else its position."""
        if is_tensor(self.images) or (isinstance(self.images, np.ndarray) and self._is_numeric()):
            return [str(i) for i in range(len(self.images))]
        return [os.fspath(x) if isinstance(x, (str, os.PathLike)) else str(i) for i, x in enumerate(self.images)]

    def _is_numeric(self) -> bool:
        return self.images.dtype.kind not in "OUS"

    def __len__(self) -> int:
        return len(self.images)

    def sample(self, index: int) -> Any:
        """A PIL image, an array or a tensor.

        Raises:
            DataError: a file is missing or no image; names it.
        """
        image = self.images[index]
        if isinstance(image, (bytes, bytearray, memoryview)):
            return decode(bytes(image), f"sample {index}")
        if not isinstance(image, (str, os.PathLike)):
            return image
        return decode(file_bytes(image), os.fspath(image))

    def _state(self) -> str | None:
        if not isinstance(self.images, Sequence):
            return None
        paths = [os.fspath(x) for x in self.images if isinstance(x, (str, os.PathLike))]
        return file_state(paths, [""] * len(paths)) if paths else None

    @cached_property
    def fingerprint(self) -> str:
        """sha256 (hex) over the content of every picture: a file by its bytes, anything else by what it shows."""
        self.check_unchanged()
        digest = hashlib.sha256()
        for index in range(len(self)):
            item = self.images[index]
            if isinstance(item, (str, os.PathLike)):
                content, kind = file_bytes(item), "file"
            elif isinstance(item, np.ndarray):
                content, kind = np.ascontiguousarray(item).tobytes(), f"{item.dtype}{item.shape}"
            else:
                shown = to_rgb(item)
                content, kind = shown.tobytes(), f"rgb{shown.size}"
            digest.update(f"{kind} {len(content)};".encode() + content)
        self.check_unchanged()
        return digest.hexdigest()

    def _state(self) -> str | None:
        if is_tensor(self.images) or (isinstance(self.images, np.ndarray) and self._is_numeric()):
            return None
        files = [os.fspath(item) for item in self.images if isinstance(item, (str, os.PathLike))]
        return file_state(files, [""] * len(files)) if files else None


def _checked(images: Any) -> Any:
    """`images` if they are a sequence of pictures and nothing else. Raises InputError."""
    if isinstance(images, (dict, bytes, str)) or not (hasattr(images, "__getitem__") and hasattr(images, "__len__")):
        raise InputError(
            f"expected a dataset, a folder, or a sequence of images, got {type(images).__name__}; "
            "put a single image or a generator's images into a list"
        )
    if not is_tensor(images) and not (isinstance(images, np.ndarray) and images.dtype.kind not in "OUS"):
        return images
    shape, what = tuple(images.shape), "a tensor" if is_tensor(images) else "an array"
    if len(shape) < 3 or len(shape) > 4:
        raise InputError(f"expected {what} of images (N, H, W) or (N, H, W, 3), got shape {shape}")
    if len(shape) == 4:
        if what == "an array" and shape[-1] not in CHANNELS and shape[1] in CHANNELS:
            raise InputError(
                f"expected an array of images (N, H, W, C), got shape {shape}; move the channels to the end: "
                "array.transpose(0, 2, 3, 1)"
            )
        return images
    if shape[-1] in CHANNELS or shape[0] == 3 or (shape[0] == 4 and what == "a tensor"):
        raise InputError(both_readings(shape, what))
    return images


def both_readings(shape: tuple[int, ...], what: str = "an array") -> str:
    """The error for a 3-d array that is one picture or many grey ones: both readings, and how to say which."""
    one = "(H, W, C)" if shape[-1] in CHANNELS else "(C, H, W)"
    as_one = "[x]" if shape[-1] in CHANNELS or what == "a tensor" else "[x.transpose(1, 2, 0)]"
    return (
        f"{what} of shape {shape} is either one picture {one} or {shape[0]} grey pictures of {shape[1]} x {shape[2]} "
        f"pixels; write {as_one} for one picture, x[..., None] for {shape[0]} grey ones"
    )


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
