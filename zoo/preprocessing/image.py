"""Evaluation preprocessing: a sample as users have it -> the tensor that `Encoder.forward` takes.

PIL and torch only: this sits on the `torch.hub` path, where torchvision need not be installed. torch is imported where
it is used, as `zoo list` reads specifications without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image
from pydantic import Field, field_validator, model_serializer

from zoo.preprocessing.picture import to_rgb
from zoo.strict import Strict

if TYPE_CHECKING:
    from torch import Tensor


class ImageInput(Strict):
    """Image preprocessing that belongs to the weights (see `zoo.preprocessing.image.ImageTransform`).

    `size`: height and width in pixels of what `forward` takes. `crop_fraction`: side of the centre
    crop relative to the resized image (0.875 = resize to 256, crop 224). `mean`, `std`: per RGB
    channel on the 0..1 scale; zeros and ones mean that pixels stay in [0, 1]. `crop_mode`: how timm resizes and crops
    (`TimmTransform`), for encoders that were trained with it; None for the zoo's own way.
    """

    modality: Literal["image"] = "image"
    size: tuple[int, int] = (32, 32)
    crop_fraction: float = Field(default=1.0, gt=0, le=1)
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    crop_mode: Literal["center", "squash", "border"] | None = None

    @model_serializer(mode="wrap")
    def _without_none(self, handler: Any) -> dict[str, Any]:
        # Older zoos refuse a key that they do not know, and the digest of a checkpoint's network holds this text.
        return {key: value for key, value in handler(self).items() if key != "crop_mode" or value is not None}

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

    def transform(self) -> ImageTransform:
        """The preprocessing of one image."""
        if self.crop_mode is None:
            return ImageTransform(self)
        return TimmTransform(self)


_RESAMPLE = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


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
    """A picture of any kind that `to_rgb` takes -> `(3, H, W)` float32: RGB, resize, centre crop, 0..1, normalise.

    `pixels` stops before the float conversion: extraction batches that part on the device.
    """

    def __init__(self, input: ImageInput) -> None:
        import torch

        self.input = input
        plain = {"dtype": torch.float32, "device": "cpu"}  # whatever the caller's default is
        self.mean = torch.tensor(input.mean, **plain).view(1, 3, 1, 1)
        self.std = torch.tensor(input.std, **plain).view(1, 3, 1, 1)

    def __call__(self, image: Any) -> Tensor:
        import torch

        return self.normalise(torch.from_numpy(self.pixels(image))[None])[0]

    def pixels(self, image: Any) -> np.ndarray:
        """One picture -> `(H, W, 3)` uint8. Raises as `to_rgb`."""
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


class TimmTransform(ImageTransform):
    """`timm.data.create_transform(is_training=False)` of an `ImageInput` with a `crop_mode`.

    `pixels` gives the same 8-bit values, and `normalise` the same floats, as timm's transform of the RGB image.
    """

    def __init__(self, input: ImageInput) -> None:
        from timm.data import create_transform

        super().__init__(input)
        self._resize_and_crop = create_transform(
            input_size=(3, *input.size),
            is_training=False,
            use_prefetcher=True,  # stops at 8-bit pixels
            interpolation=input.interpolation,
            mean=input.mean,
            std=input.std,
            crop_pct=input.crop_fraction,
            crop_mode=input.crop_mode,
        )

    def pixels(self, image: Any) -> np.ndarray:
        """One image -> `(H, W, 3)` uint8."""
        return np.ascontiguousarray(self._resize_and_crop(to_rgb(image)).permute(1, 2, 0).numpy())
