"""Evaluation preprocessing: a sample as users have it -> the tensor that `Encoder.forward` takes.

PIL and torch only: this sits on the `torch.hub` path, where torchvision need not be installed. torch is imported where
it is used, as `zoo list` reads specifications without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image
from pydantic import Field, field_validator

from zoo.errors import InputError
from zoo.preprocessing.skeleton import SkeletonInput
from zoo.strict import Strict

if TYPE_CHECKING:
    from torch import Tensor


class ImageInput(Strict):
    """Image preprocessing that belongs to the weights (see `zoo.preprocessing.image.ImageTransform`).

    `size`: height and width in pixels of what `forward` takes. `crop_fraction`: side of the centre
    crop relative to the resized image (0.875 = resize to 256, crop 224). `mean`, `std`: per RGB
    channel on the 0..1 scale; zeros and ones mean that pixels stay in [0, 1].
    """

    modality: Literal["image"] = "image"
    size: tuple[int, int] = (32, 32)
    crop_fraction: float = Field(default=1.0, gt=0, le=1)
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)

    @field_validator("size")
    @classmethod
    def _size(cls, value: tuple[int, int]) -> tuple[int, int]:
        if not all(8 <= side <= 4096 for side in value):
            raise ValueError(f"height and width must lie in 8..4096 pixels, got {value}")
        return value

    @field_validator("std")
    @classmethod
    def _std(cls, value: tuple[float, float, float]) -> tuple[float, float, float]:
        if not all(s > 0 for s in value):
            raise ValueError(f"every std must be > 0, got {value}")
        return value


_RESAMPLE = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def transform_for(input: ImageInput | SkeletonInput) -> Any:
    """The transform that belongs to an encoder's `input`."""
    if isinstance(input, ImageInput):
        return ImageTransform(input)
    from zoo.preprocessing.skeleton import SkeletonTransform

    return SkeletonTransform(input)


def to_rgb(image: Any) -> Image.Image:
    """Any image a person may hand over -> an 8-bit RGB PIL image.

    Args:
        image: a PIL image of any mode (transparent parts become white), or an array `(H, W)`,
            `(H, W, 1)`, `(H, W, 3)`, `(H, W, 4)`: uint8 in 0..255, or float in 0..1.

    Raises:
        InputError: another type, shape, dtype or range.
    """
    from torch import Tensor

    if isinstance(image, Image.Image):
        return _pil_to_rgb(image)
    if isinstance(image, Tensor):
        image = image.detach().cpu().numpy()
        if image.ndim == 3 and image.shape[0] in (1, 3) and image.shape[-1] not in (1, 3, 4):
            image = image.transpose(1, 2, 0)
    if not isinstance(image, np.ndarray):
        raise InputError(f"expected a PIL image or an array, got {type(image).__name__}")
    array = image[..., 0] if image.ndim == 3 and image.shape[-1] == 1 else image
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[-1] not in (3, 4)) or 0 in array.shape:
        raise InputError(f"expected an image array (H, W), (H, W, 3) or (H, W, 4), got shape {image.shape}")
    if np.issubdtype(array.dtype, np.floating):
        if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
            raise InputError("float images must lie in [0, 1] without NaN; divide 0..255 values by 255")
        array = np.round(array * 255).astype(np.uint8)
    if array.dtype != np.uint8:
        raise InputError(f"expected uint8 or float pixels, got {array.dtype}")
    return _pil_to_rgb(Image.fromarray(np.ascontiguousarray(array)))


def _pil_to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        # PIL clips these to 255 when converting, which turns a 16-bit scan white.
        array = np.asarray(image, dtype=np.float64)
        top = 65535.0 if array.max() > 255 else 255.0
        return Image.fromarray(np.clip(array * (255.0 / top), 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def resize_and_crop(image: Image.Image, size: tuple[int, int], crop_fraction: float, interpolation: str) -> Image.Image:
    """Resize so that the centre crop of `size` covers `crop_fraction` of the shorter side, then crop."""
    height, width = size
    if image.size == (width, height) and crop_fraction == 1:
        return image
    scale = max(round(height / crop_fraction) / image.height, round(width / crop_fraction) / image.width)
    resized = max(width, round(image.width * scale)), max(height, round(image.height * scale))
    left, top = (resized[0] - width) // 2, (resized[1] - height) // 2
    # Resizing only the box that survives the crop: an extreme aspect ratio costs no memory.
    box = (
        left * image.width / resized[0],
        top * image.height / resized[1],
        (left + width) * image.width / resized[0],
        (top + height) * image.height / resized[1],
    )
    return image.resize((width, height), _RESAMPLE[interpolation], box=box)


class ImageTransform:
    """PIL image or array -> `(3, H, W)` float32: RGB, resize, centre crop, 0..1, normalise.

    `pixels` stops before the float conversion: extraction batches that part on the device.
    """

    def __init__(self, input: ImageInput) -> None:
        import torch

        self.input = input
        self.mean = torch.tensor(input.mean).view(1, 3, 1, 1)
        self.std = torch.tensor(input.std).view(1, 3, 1, 1)

    def __call__(self, image: Any) -> Tensor:
        import torch

        return self.normalise(torch.from_numpy(self.pixels(image))[None])[0]

    def pixels(self, image: Any) -> np.ndarray:
        """One image -> `(H, W, 3)` uint8."""
        rgb = resize_and_crop(to_rgb(image), self.input.size, self.input.crop_fraction, self.input.interpolation)
        return np.array(rgb, dtype=np.uint8)

    def normalise(self, pixels: Tensor) -> Tensor:
        """uint8 `(N, H, W, 3)` -> float32 `(N, 3, H, W)`, channels last in memory, on the same device."""
        x = pixels.permute(0, 3, 1, 2).float().div_(255)
        if self.input.mean != (0.0, 0.0, 0.0) or self.input.std != (1.0, 1.0, 1.0):
            x = x.sub_(self.mean.to(x.device)).div_(self.std.to(x.device))
        return x

    def __repr__(self) -> str:
        return f"ImageTransform({self.input!r})"
