"""The strong augmentation of CLSA: the weak chain, then random draws from 14 operations.

CLSA (Wang and Qi, arXiv:2104.07713) in the form and with the magnitudes of its released code
(maple-research-lab/CLSA): 5 draws with replacement, each carried out with probability 1/2 at a level of
1..9 of 10, on 8-bit pixels, nearest resampling, black fill; then normalisation. Every image has its own
draws, taken from one generator in one call.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from pydantic import Field, field_validator
from torch import Tensor

from training.augment import eight_bit
from training.augment.image import ImageAugment
from training.augment.render import images_within, normalise_
from zoo.strict import Strict

#: The pool; the index of an operation is its number in `Draws`.
OPERATIONS = (
    "auto_contrast",
    "equalize",
    "identity",
    "brightness",
    "color",
    "contrast",
    "sharpness",
    "rotate",
    "shear_x",
    "shear_y",
    "translate_x",
    "translate_y",
    "posterize",
    "solarize",
)
_AFFINE = ("rotate", "shear_x", "shear_y", "translate_x", "translate_y")
_TABLES = ("auto_contrast", "equalize", "brightness", "contrast", "posterize", "solarize")

#: Values of one batch on an accelerator; its 64-bit indices take eight times as many bytes.
BATCH_VALUES = 1 << 26


class StrongConfig(Strict):
    """What is drawn after the weak chain."""

    draws: int = Field(default=5, ge=0, le=64, description="Operations per image, with replacement.")
    p: float = Field(default=0.5, ge=0, le=1, description="Probability that a drawn operation is carried out.")
    levels: tuple[int, int] = Field(
        default=(1, 9),
        description="Smallest and largest magnitude, whole tenths of the full one; the released code reaches 1..9.",
    )

    @field_validator("levels")
    @classmethod
    def _levels(cls, value: tuple[int, int]) -> tuple[int, int]:
        if not 0 <= value[0] <= value[1] <= 10:
            raise ValueError(f"must be (low, high) with 0 <= low <= high <= 10, got {value}")
        return value


@dataclass(frozen=True)
class Draws:
    """One drawn operation for each of N images: its number, level (int64), and whether its sign is negative."""

    operation: Tensor
    level: Tensor
    negative: Tensor

    def __getitem__(self, index: slice | Tensor) -> Draws:
        """The draws of some of the images."""
        return Draws(self.operation[index], self.level[index], self.negative[index])

    def are(self, *names: str) -> Tensor:
        """`(N,)` bool: whose operation is one of `names`."""
        chosen = torch.zeros_like(self.negative)
        for name in names:
            chosen = chosen | (self.operation == OPERATIONS.index(name))
        return chosen


def sample(
    config: StrongConfig, n: int, generator: torch.Generator | None = None, device: torch.device | str = "cpu"
) -> list[Draws]:
    """The draws for `n` images, in order; a draw that is not carried out is `identity`."""
    number, level, sign, carried_out = torch.rand(4, config.draws, n, generator=generator, device=device)
    # u * k may round up to k in float32.
    operation = (number * len(OPERATIONS)).long().clamp_(max=len(OPERATIONS) - 1)
    operation = torch.where(carried_out < config.p, operation, OPERATIONS.index("identity"))
    low, high = config.levels
    levels = (low + (level * (high - low + 1)).long()).clamp_(max=high)
    return [Draws(*one) for one in zip(operation, levels, sign < 0.5, strict=True)]


def apply(images: Tensor, draws: Draws) -> Tensor:
    """Carry out one draw: uint8 `(N, 3, H, W)` -> uint8 `(N, 3, H, W)`, a new tensor."""
    height, width = images.shape[2:]
    factor = 0.09 * draws.level.double() + 0.05
    images = _where(draws.are(*_TABLES), images, lambda i: eight_bit.look_up(images[i], _tables(images[i], draws[i])))
    images = _where(draws.are("color"), images, lambda i: eight_bit.saturation(images[i], factor[i]))
    images = _where(draws.are("sharpness"), images, lambda i: eight_bit.sharpness(images[i], factor[i]))
    return _where(
        draws.are(*_AFFINE), images, lambda i: eight_bit.affine(images[i], _matrices(draws[i], height, width))
    )


def _where(chosen: Tensor, images: Tensor, change: Callable[[slice | Tensor], Tensor]) -> Tensor:
    """`images`, changed where `chosen`. On the CPU only those are worked on; elsewhere that would need a wait."""
    if images.device.type != "cpu":
        return torch.where(chosen.view(-1, *[1] * (images.ndim - 1)), change(slice(None)), images)
    index = chosen.nonzero()[:, 0]
    return images.index_copy(0, index, change(index)) if len(index) else images


def _tables(images: Tensor, draws: Draws) -> Tensor:
    """The look-up tables of the drawn operations."""
    level = draws.level
    factor = 0.09 * level.double() + 0.05
    bits = 4 + torch.div(4 * level, 10, rounding_mode="floor")
    threshold = 256 - torch.div(256 * level, 10, rounding_mode="floor")
    makers: dict[str, Callable[[slice | Tensor], Tensor]] = {
        "auto_contrast": lambda i: eight_bit.auto_contrast_tables(images[i]),
        "equalize": lambda i: eight_bit.equalize_tables(images[i]),
        "brightness": lambda i: eight_bit.brightness_tables(factor[i]),
        "contrast": lambda i: eight_bit.contrast_tables(images[i], factor[i]),
        "posterize": lambda i: eight_bit.posterize_tables(bits[i]),
        "solarize": lambda i: eight_bit.solarize_tables(threshold[i]),
    }
    tables = eight_bit.identity_tables(images)
    for name, maker in makers.items():
        tables = _where(draws.are(name), tables, lambda i, make=maker: make(i).expand(-1, 3, -1))
    return tables


def _matrices(draws: Draws, height: int, width: int) -> Tensor:
    """The affine map of each image's draw: `(N, 6)` float64; the identity where it is another operation."""
    signed = torch.where(draws.negative, -draws.level, draws.level).double()
    amount = 0.03 * signed
    still = eight_bit.shear_x(torch.zeros_like(amount))
    makers = {
        "rotate": eight_bit.rotation(signed * (3 * math.pi / 180), height, width),
        "shear_x": eight_bit.shear_x(amount),
        "shear_y": eight_bit.shear_y(amount),
        # Whole pixels, towards zero, and in the released code's order of operations, which rounding depends on.
        "translate_x": eight_bit.translate_x((signed * 0.3 / 10 * width).trunc()),
        "translate_y": eight_bit.translate_y((signed * 0.3 / 10 * height).trunc()),
    }
    for name, matrix in makers.items():
        still = torch.where(draws.are(name)[:, None], matrix, still)
    return still


class StrongAugment:
    """One strong view of each image of a batch.

    Args:
        weak: the chain that comes first; its `mean` and `std` are applied after the strong operations.
        config: what is drawn.

    Example:
        >>> from training.augment.image import PRESETS
        >>> strong = StrongAugment(ImageAugment(PRESETS["moco_cifar"], size=32), StrongConfig())
        >>> strong(torch.zeros(4, 3, 32, 32, dtype=torch.uint8), torch.Generator().manual_seed(0)).shape
        torch.Size([4, 3, 32, 32])
    """

    def __init__(self, weak: ImageAugment, config: StrongConfig) -> None:
        self.config = config
        self.weak = weak
        self.size = weak.size
        self._normalisation = weak.config
        self._weak = ImageAugment(
            weak.config.model_copy(update={"mean": None, "std": None}), weak.size, weak.compile, weak.native
        )

    @torch.no_grad()
    def __call__(self, images: Tensor, generator: torch.Generator | None = None, size: int | None = None) -> Tensor:
        """Augment a batch; arguments, result and errors as `ImageAugment`'s."""
        views = self._weak(images, generator, size)
        draws = sample(self.config, len(images), generator, images.device)
        step = images_within(BATCH_VALUES, views, views.shape[-1])
        for part in (slice(i, i + step) for i in range(0, len(views), step)):
            pixels = views[part].mul(255).round_().to(torch.uint8).contiguous()
            for draw in draws:
                pixels = apply(pixels, draw[part])
            views[part] = pixels
        return normalise_(views.div_(255), self._normalisation)

    @cached_property
    def after_crop(self) -> StrongAugment:
        """The same without the crop, for images that are crops already."""
        return StrongAugment(self.weak.after_crop, self.config)

    def __repr__(self) -> str:
        return f"StrongAugment({self._weak!r}, {self.config!r})"
