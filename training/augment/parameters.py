"""What the image augmentation may draw, and the drawing itself: ranges -> parameters of every image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from pydantic import Field, field_validator
from torch import Tensor

from training.augment import colour, geometry
from training.augment.geometry import Interpolation
from zoo.strict import Strict

Triple = tuple[float, float, float]


class ImageAugmentConfig(Strict):
    """What is drawn, and from which ranges; `p` means the probability per image."""

    crop_scale: tuple[float, float] = Field(
        default=(0.08, 1.0), description="Area of the crop relative to the image, (low, high)."
    )
    crop_ratio: tuple[float, float] = Field(
        default=(3 / 4, 4 / 3), description="Width / height of the crop, (low, high), drawn log-uniformly."
    )
    interpolation: Interpolation = Field(default="bicubic", description="How crops are resampled; both antialiased.")
    flip_p: float = Field(default=0.5, ge=0, le=1, description="Probability of a horizontal flip.")
    jitter_p: float = Field(default=0.8, ge=0, le=1, description="Probability of colour jitter.")
    strength: float = Field(
        default=1.0,
        ge=0,
        le=2.5,
        description="s of SimCLR: factors from U(1 - x, 1 + x) with x = 0.8 s for brightness, "
        "contrast and saturation, and a turn of the hue from U(-0.2 s, 0.2 s).",
    )
    brightness: float | None = Field(default=None, ge=0, description="Replaces the value that strength gives.")
    contrast: float | None = Field(default=None, ge=0, description="Replaces the value that strength gives.")
    saturation: float | None = Field(default=None, ge=0, description="Replaces the value that strength gives.")
    hue: float | None = Field(default=None, ge=0, le=0.5, description="Replaces the value that strength gives.")
    greyscale_p: float = Field(default=0.2, ge=0, le=1, description="Probability of greyscale.")
    blur_p: float = Field(default=0.5, ge=0, le=1, description="Probability of a Gaussian blur.")
    blur_sigma: tuple[float, float] = Field(
        default=(0.1, 2.0), description="Standard deviation of the blur in output pixels, (low, high)."
    )
    blur_kernel: float = Field(
        default=0.1, ge=0, le=1, description="Width of the blur kernel relative to the output size; made odd."
    )
    solarize_p: float = Field(default=0.0, ge=0, le=1, description="Probability of solarization.")
    solarize_threshold: float = Field(default=0.5, ge=0, le=1, description="Values from here on are inverted.")
    mean: Triple | None = Field(default=None, description="Subtracted per channel at the end; null: that of input.")
    std: Triple | None = Field(default=None, description="Divided by per channel at the end; null: that of input.")

    @field_validator("crop_scale", "crop_ratio", "blur_sigma")
    @classmethod
    def _range(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 < value[0] <= value[1]:
            raise ValueError(f"must be (low, high) with 0 < low <= high, got {value}")
        return value

    @field_validator("crop_scale")
    @classmethod
    def _part(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[1] > 1:
            raise ValueError(f"a crop covers at most 1.0 of the area, got {value}")
        return value

    @field_validator("std")
    @classmethod
    def _positive(cls, value: Triple | None) -> Triple | None:
        if value is not None and min(value) <= 0:
            raise ValueError(f"every std must be > 0, got {value}")
        return value

    @property
    def jitter_ranges(self) -> tuple[tuple[float, float], ...]:
        """(low, high) of the brightness, contrast, saturation factors and of the hue shift."""
        scale = 0.8 * self.strength
        blends = (scale if x is None else x for x in (self.brightness, self.contrast, self.saturation))
        hue = 0.2 * self.strength if self.hue is None else self.hue
        return (*((max(0.0, 1 - x), 1 + x) for x in blends), (-hue, hue))

    def kernel_size(self, size: int) -> int:
        """Taps of the blur kernel for a view of `size` pixels: 23 at 224."""
        return int(self.blur_kernel * size) | 1


_MOCO = {"crop_scale": (0.2, 1.0), "brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1}

#: SimCLR on CIFAR and on ImageNet (appendices A, B.9); MoCo v2 (arXiv:2003.04297) at both sizes. Crops are drawn as
#: torchvision draws them. SimCLR's official code draws the aspect ratio uniformly instead of log-uniformly, and tries
#: up to 100 times instead of 10 before it takes a central crop.
PRESETS: dict[str, ImageAugmentConfig] = {
    "cifar": ImageAugmentConfig(strength=0.5, blur_p=0.0),
    "imagenet": ImageAugmentConfig(),
    "moco": ImageAugmentConfig(**_MOCO, interpolation="bilinear"),
    "moco_cifar": ImageAugmentConfig(**_MOCO, blur_p=0.0),
}


@dataclass(frozen=True)
class Parameters:
    """What happens to each image of a batch of N.

    Attributes:
        top, left, height, width: the crop, `(N,)` int64 pixels.
        flip, jitter, greyscale, blur, solarize: `(N,)` bool.
        order: `(N, 4)` int64, permutation of `colour.ADJUSTMENTS`.
        factors: `(N, 4)` float32, one per adjustment; neutral where `jitter` is False.
        sigma: `(N,)` float32 pixels.
    """

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor
    flip: Tensor
    jitter: Tensor
    greyscale: Tensor
    blur: Tensor
    solarize: Tensor
    order: Tensor
    factors: Tensor
    sigma: Tensor

    def __getitem__(self, index: slice | Tensor) -> Parameters:
        """The parameters of some of the images."""
        return Parameters(**{name: value[index] for name, value in vars(self).items()})


def sample(
    config: ImageAugmentConfig,
    n: int,
    height: int,
    width: int,
    generator: torch.Generator | None = None,
    device: torch.device | str = "cpu",
    patch: int | None = None,
) -> Parameters:
    """Draw the parameters for `n` images of `height` x `width` pixels, without a host synchronisation.

    With `patch`, every crop is a square of that side in pixels at a uniformly random place.
    """
    uniform = torch.rand(36, n, generator=generator, device=device)
    crop, order, amounts = uniform[:22], uniform[22:26], uniform[26:30]
    flip, jitter, greyscale, blur, solarize, sigma = uniform[30:]
    if patch is None:
        boxes = geometry.crop_boxes(crop, height, width, config.crop_scale, config.crop_ratio)
    else:
        boxes = geometry.patch_boxes(crop[20:], height, width, patch)
    top, left, box_height, box_width = boxes
    jitter = jitter < config.jitter_p
    factors = [
        torch.where(jitter, u * (high - low) + low, neutral)
        for u, (low, high), neutral in zip(amounts, config.jitter_ranges, colour.NEUTRAL, strict=True)
    ]
    low, high = config.blur_sigma
    return Parameters(
        top=top,
        left=left,
        height=box_height,
        width=box_width,
        flip=flip < config.flip_p,
        jitter=jitter,
        greyscale=greyscale < config.greyscale_p,
        blur=blur < config.blur_p,
        solarize=solarize < config.solarize_p,
        order=order.argsort(dim=0).T,
        factors=torch.stack(factors, dim=1),
        sigma=sigma * (high - low) + low,
    )
