"""The augmentation of SimCLR and MoCo v2, for a whole batch on its device.

Crop, flip, colour jitter, greyscale, blur, solarize: operations, order and parameter distributions are
those of `torchvision.transforms.v2` (SimCLR: Chen et al. 2020, arXiv:2002.05709, appendix A). Every
image has its own parameters, all drawn from one generator in one call (`parameters.py`) and carried out
in batches (`render.py`) by the operations of `geometry.py` and `colour.py`.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from training.augment.parameters import PRESETS, ImageAugmentConfig, sample
from training.augment.render import empty_views, images_within, render_batched, render_grouped
from zoo.errors import InputError

__all__ = ["PRESETS", "ImageAugment", "ImageAugmentConfig"]

#: Floats in one batch of `render_batched`; its temporaries take about six times as much.
BATCH_FLOATS = 1 << 27


class ImageAugment:
    """One random view of each image of a batch.

    Args:
        config: what to draw; `PRESETS` holds the published ones.
        size: side of the views, in pixels.
        compile: run the batched renderer through `torch.compile`, on any device (on the CPU this needs a
            C++ compiler).
        native: the crop is a patch of the view's own size at a uniformly random place, pixel for pixel.

    Example:
        >>> augment = ImageAugment(PRESETS["cifar"], size=32)
        >>> generator = torch.Generator().manual_seed(0)
        >>> augment(torch.zeros(4, 3, 32, 32, dtype=torch.uint8), generator).shape
        torch.Size([4, 3, 32, 32])
    """

    def __init__(self, config: ImageAugmentConfig, size: int, compile: bool = False, native: bool = False) -> None:
        self.config = config
        self.size = size
        self.compile = compile
        self.native = native
        self._render_batched = torch.compile(render_batched) if compile else render_batched

    @torch.no_grad()
    def __call__(self, images: Tensor, generator: torch.Generator | None = None, size: int | None = None) -> Tensor:
        """Augment a batch.

        Args:
            images: `(N, 3, H, W)`, uint8, or float in [0, 1]; best in channels_last memory.
            generator: on the device of `images`; the views depend on its state and on nothing else.
            size: side of these views, instead of the one given at construction (multi-crop).

        Returns:
            `(N, 3, size, size)` float32 in channels_last memory, in [0, 1] unless `mean`, `std` are set.

        Raises:
            InputError: another rank, channel count or dtype; a generator of another device; images smaller
                than a native patch.
        """
        _check(images, generator)
        n, _, height, width = images.shape
        size = size or self.size
        if self.native and size > min(height, width):
            raise InputError(f"a native patch of {size} px does not fit into images of {height}x{width} px")
        patch = size if self.native else None
        parameters = sample(self.config, n, height, width, generator, images.device, patch)
        if images.device.type == "cpu" and not self.compile:
            return render_grouped(images, parameters, self.config, size, self.native)
        out = empty_views(images, size)
        step = images_within(BATCH_FLOATS, images, size)
        for part in (slice(i, i + step) for i in range(0, n, step)):
            out[part] = self._render_batched(images[part], parameters[part], self.config, size, self.native)
        return out

    @cached_property
    def after_crop(self) -> ImageAugment:
        """The same without the crop, for images that are crops already: of a patch as large as the image itself."""
        return ImageAugment(self.config, self.size, self.compile, native=True)

    def __repr__(self) -> str:
        return f"ImageAugment(size={self.size}, native={self.native}, {self.config!r})"


def _check(images: Tensor, generator: torch.Generator | None) -> None:
    if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape[2:]:
        raise InputError(f"expected images (N, 3, H, W), got shape {tuple(images.shape)}")
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise InputError(f"expected uint8 images, or float ones in [0, 1], got {images.dtype}")
    if generator is not None and generator.device.type != images.device.type:
        raise InputError(
            f"the generator is on {generator.device}, the images on {images.device}; "
            f"make it with torch.Generator(device={str(images.device)!r})"
        )
