"""Any picture a person may hand over -> the same 8-bit RGB image, upright, through whichever door it came.

A picture is a PIL image, the bytes of an image file, a path, an array or a tensor. The white level follows from
the type (uint8: 255, uint16: 65535, bool and float: 1), never from the values of one picture.
PIL and NumPy only: help texts are made without torch.
"""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from zoo.errors import DataError, InputError

ORIENTATION = 0x0112
#: Sizes of an axis that holds colour channels.
CHANNELS = (1, 3, 4)
#: Brands of the ISO media container, bytes 8..12 of a file -> what is in it.
BRANDS = {b"avif": "AVIF", b"avis": "AVIF"} | dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"mif1"), "HEIC")
HEIF_EXTRA = 'pip install "encoder-zoo[heif]"'


def to_rgb(picture: Any) -> Image.Image:
    """A picture of any kind -> an upright 8-bit RGB PIL image.

    Args:
        picture: a PIL image of any mode (turned by its EXIF orientation; transparent parts become white; of an
            animation the current frame); the bytes or path of an image file; an array `(H, W)`, `(H, W, 1)`,
            `(H, W, 3)`, `(H, W, 4)`, or a tensor that may also have its channels first: uint8, uint16, bool, or
            floats in 0..1. Of 16 bits the upper eight count, as in PIL.

    Raises:
        InputError: another type, shape, dtype or range; a tensor that can be read in two ways; 32-bit integers and
            floats outside 0..1, whose white level nobody knows.
        DataError: a file or PIL image that cannot be decoded.
    """
    if isinstance(picture, Image.Image):
        return _from_pil(picture)
    if isinstance(picture, (bytes, bytearray, memoryview)):
        return _from_pil(decode(bytes(picture), "the picture's bytes"))
    if isinstance(picture, (str, os.PathLike)):
        return _from_pil(decode(file_bytes(picture), os.fspath(picture)))
    if is_tensor(picture):
        picture = _channels_last(picture.detach().cpu())
    if not isinstance(picture, np.ndarray):
        keys = f" with the keys {', '.join(map(repr, picture))}" if isinstance(picture, dict) else ""
        raise InputError(
            "expected a PIL image, the bytes or path of an image file, an array or a tensor, got a "
            f"{type(picture).__name__}{keys}"
        )
    return _from_array(picture)


def is_tensor(value: Any) -> bool:
    """Whether it is a torch tensor; does not import torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def decode(content: bytes, where: str, reduce: Callable[[int, int], int] | None = None) -> Image.Image:
    """Encoded bytes -> a PIL image of the mode it was stored in, upright by its EXIF orientation; the first frame.

    Args:
        content: of a file.
        where: what an error calls it.
        reduce: given width and height of the upright picture, says by what its sides may be divided: 1, 2, 4 or 8.
            Only JPEG can be decoded at a part of its resolution; other formats are decoded whole.

    Raises:
        DataError: not an image, truncated, of a format whose decoder is not installed, or larger than PIL's
            decompression-bomb limit; names `where`.
    """
    need_plugin(content, where)
    try:
        image = Image.open(io.BytesIO(content))
        if reduce is not None and image.format == "JPEG":
            width, height = image.size
            turned = image.getexif().get(ORIENTATION, 1) in (5, 6, 7, 8)
            by = reduce(height, width) if turned else reduce(width, height)
            if by > 1:
                image.draft(None, (width // by, height // by))
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        return image
    except Exception as error:  # PIL's readers raise OSError, ValueError, SyntaxError, struct.error and more
        problem = "it is empty" if not content else _problem(error)
        raise DataError(f"{where} cannot be decoded as an image ({problem}); replace or remove it") from None


def file_bytes(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a file; DataError if it cannot be read."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{os.fspath(path)} cannot be read: {error}") from error


def need_plugin(content: bytes, where: str) -> None:
    """Register the decoder that HEIC and AVIF need.

    Raises:
        DataError: it is not installed; says how to get it.
    """
    kind = BRANDS.get(content[8:12]) if content[4:8] == b"ftyp" else None
    if kind is None or (kind == "AVIF" and ".avif" in Image.registered_extensions()):
        return
    if not has_heif():
        raise DataError(f"{where} is a {kind} picture, which needs another package: {HEIF_EXTRA}")


def has_heif() -> bool:
    """Whether HEIC can be decoded; registers pillow-heif where it is installed."""
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener()
    return True


def can_decode(suffix: str) -> bool:
    """Whether files with this suffix (lower case, with its dot) can be decoded by what is installed."""
    return suffix in Image.registered_extensions() or (suffix in (".heic", ".heif") and has_heif())


def _problem(error: Exception) -> str:
    # PIL prints the address of the buffer it was given, which says nothing to a reader.
    return re.sub(r" <_io.BytesIO[^>]*>", "", str(error)) or type(error).__name__


def _channels_last(tensor: Any) -> np.ndarray:
    """One picture as a tensor, channels first or last, with its channels last."""
    array = tensor.float().numpy() if tensor.dtype.is_floating_point else tensor.numpy()
    if array.ndim != 3:
        return array
    first, last = array.shape[0] in CHANNELS, array.shape[-1] in CHANNELS
    if first and last:
        (a, b, c) = array.shape
        raise InputError(
            f"a tensor of shape ({a}, {b}, {c}) is either {b} x {c} pixels with {a} channels first or {a} x {b} pixels "
            f"with {c} channels last; hand over a NumPy array, whose channels are last, or a PIL image"
        )
    return array.transpose(1, 2, 0) if first else array


def _from_array(picture: np.ndarray) -> Image.Image:
    array = picture[..., 0] if picture.ndim == 3 and picture.shape[-1] == 1 else picture
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[-1] not in (3, 4)) or 0 in array.shape:
        hint = "; move its channels to the end: array.transpose(1, 2, 0)" if _channels_first(array) else ""
        raise InputError(f"expected an image array (H, W), (H, W, 3) or (H, W, 4), got shape {picture.shape}{hint}")
    return _from_pil(Image.fromarray(np.ascontiguousarray(eight_bits(array))))


def _channels_first(array: np.ndarray) -> bool:
    return array.ndim == 3 and array.shape[0] in CHANNELS


def eight_bits(array: np.ndarray) -> np.ndarray:
    """Pixels of any accepted dtype -> uint8, black at 0 and white at 255.

    Raises:
        InputError: another dtype, or floats outside 0..1.
    """
    if array.dtype == np.uint8:
        return array
    if array.dtype == bool:
        return array.astype(np.uint8) * 255
    if array.dtype.kind == "u" and array.dtype.itemsize == 2:
        return (array >> 8).astype(np.uint8)
    if array.dtype.kind == "f":
        # A comparison with NaN is false, so that NaN is refused as well.
        if array.size and not (array.min() >= 0 and array.max() <= 1):
            raise InputError(
                f"float images must lie in [0, 1] without NaN, got {array.min():g}..{array.max():g}; "
                "divide by the value that is white (255 for 0..255 values)"
            )
        return np.round(array * 255).astype(np.uint8)
    raise InputError(
        f"expected pixels of uint8, uint16, bool or float, got {array.dtype}, whose white level is unknown; "
        "scale them to uint8 yourself"
    )


def _from_pil(image: Image.Image) -> Image.Image:
    try:
        image.load()
        if image.getexif().get(ORIENTATION, 1) != 1:
            image = ImageOps.exif_transpose(image)
    except Exception as error:  # a file that PIL opened but had not decoded yet
        raise DataError(
            f"{getattr(image, 'filename', '') or 'the PIL image'} cannot be decoded as an image "
            f"({_problem(error)}); replace or remove it"
        ) from None
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return Image.fromarray(eight_bits(_deep(image))).convert("RGB")
    if image.mode == "La":  # PIL knows no direct way from here to RGBA
        image = image.convert("LA")
    if image.mode in ("RGBA", "LA", "PA", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    try:
        return image.convert("RGB")
    except ValueError as error:  # LAB
        raise InputError(f"a picture of mode {image.mode} cannot become RGB ({error}); save it as RGB") from None


def _deep(image: Image.Image) -> np.ndarray:
    """The pixels of a picture with more than 8 bits, in the dtype that its white level follows from."""
    array = np.asarray(image)
    if image.mode == "I" and image.format in ("PNG", "PPM"):  # these files have 16 bits at most
        return array.astype(np.uint16)
    return array
