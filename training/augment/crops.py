"""`Crop`: which views of an image a recipe asks for, when they are more or others than a method's usual ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor

from training.augment.image import ImageAugment
from zoo.errors import ConfigError
from zoo.strict import Strict

if TYPE_CHECKING:
    from training.augment.strong import StrongAugment
    from training.stream import ViewCrops


class Crop(Strict):
    """Views of one kind: how many, how large, and how much of the image they show."""

    count: int = Field(
        default=1, ge=1, le=64, description="How many such views of each image; each has its own random draws."
    )
    size: int | None = Field(
        default=None,
        ge=8,
        le=4096,
        description="Side in pixels at full resolution; null: that of the input. At the smaller "
        "stages of view_sizes it shrinks in proportion.",
    )
    scale: tuple[float, float] | None = Field(
        default=None, description="Range of the crop's area relative to the image; null: the augmentation's crop_scale."
    )
    native: bool = Field(
        default=False,
        description="The view is a patch of its own size, cut from a random place of the stored image"
        " without resampling; flip and colour follow as usual. It takes no scale.",
    )

    @field_validator("scale")
    @classmethod
    def _scale(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and not 0 < value[0] <= value[1] <= 1:
            raise ValueError(f"must be (low, high) with 0 < low <= high <= 1, got {value}")
        return value

    @model_validator(mode="after")
    def _native(self) -> Crop:
        if self.native and self.scale is not None:
            raise ValueError(f"a native patch has the area of its own size, so scale={self.scale} must be left out")
        return self


def crop_augments(augment: ImageAugment, crops: Iterable[Crop], image_size: int) -> list[ImageAugment]:
    """One augmentation for each view that `crops` ask for, in their order; all else is as in `augment`.

    Args:
        augment: whose settings hold where a crop says nothing.
        image_size: side in pixels of a crop that names none.
    """
    made = []
    for crop in crops:
        config = augment.config.model_copy(update={"crop_scale": crop.scale or augment.config.crop_scale})
        one = ImageAugment(config, crop.size or image_size, augment.compile, crop.native)
        made += [one] * crop.count
    return made


def scaled(size: int, view_size: int, image_size: int) -> int:
    """Side of a view of `size` pixels while the views of `image_size` pixels have `view_size`."""
    return round(size * view_size / image_size)


def draw_views(
    augments: Sequence[ImageAugment | StrongAugment],
    images: Tensor | ViewCrops,
    generator: torch.Generator,
    view_size: int,
    image_size: int,
) -> list[Tensor]:
    """A view by each augmentation, of uint8 `images` `(N, 3, H, W)`: float32 `(N, 3, S, S)`, S as `scaled` says.

    From a stream come crops, which are as large as the views and are only changed further.

    On an accelerator, views by one and the same augmentation are made in one call, as starting so many kernels takes
    longer than carrying them out. The CPU makes one after the other, which its caches like better.
    """
    sides = [scaled(augment.size, view_size, image_size) for augment in augments]
    sources = [images] * len(augments) if isinstance(images, Tensor) else images.take(len(augments))
    if not isinstance(images, Tensor):
        augments = [augment.after_crop for augment in augments]
    if images.device.type == "cpu":
        drawn = zip(augments, sources, sides, strict=True)
        return [augment(source, generator, side) for augment, source, side in drawn]
    return draw_together(augments, sources, generator, sides)


def draw_together(
    augments: Sequence[ImageAugment | StrongAugment],
    sources: Sequence[Tensor],
    generator: torch.Generator,
    sides: Sequence[int],
) -> list[Tensor]:
    """Views of `sides` pixels, one of each source, with one call for all views of an augmentation and side."""
    places: dict[tuple[int, int], list[int]] = {}
    for place, (augment, side) in enumerate(zip(augments, sides, strict=True)):
        places.setdefault((id(augment), side), []).append(place)
    views = list(sources)
    for (_, side), same in places.items():
        joint = augments[same[0]](torch.cat([sources[place] for place in same]), generator, side)
        for place, view in zip(same, joint.chunk(len(same)), strict=True):
            views[place] = view
    return views


def check_crops(
    crops: Iterable[Crop], view_sizes: Iterable[int], image_size: int, stored: int, smallest: int = 1
) -> None:
    """Refuse crops that cannot be made, or that the encoder cannot take, at any stage of the training.

    Args:
        view_sizes: sides that the usual views have in the course of the training. image_size: the last of them.
        stored: side of the stored images.
        smallest: side from which on the encoder takes images.

    Raises:
        ConfigError: naming the crop, the stage and the fix.
    """
    for view_size in view_sizes:
        for crop in crops:
            size = crop.size or image_size
            side = scaled(size, view_size, image_size)
            what = f"{side} px"
            if side != size:
                what += f" (size {size} while view_sizes is at {view_size})"
            if side < smallest:
                raise ConfigError(
                    f"recipe: a view of {what} is too small: the encoder takes {smallest} px or more; raise its size"
                )
            if crop.native and side > stored:
                raise ConfigError(
                    f"recipe: a native patch of {what} does not fit into the stored images of {stored} px; "
                    f"lower its size, or raise data.store_size to {side}"
                )
