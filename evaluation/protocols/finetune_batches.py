"""Batches to fine-tune on: images cropped and flipped at random, sequences as their transform gives them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from zoo.data.base import Dataset
from zoo.data.stores.pixels import pixel_view
from zoo.encoder import Encoder

if TYPE_CHECKING:
    from evaluation.protocols.finetune import FineTuneV2

#: Images are kept this much larger than the input, so that small crops still have detail to show.
STORED = 256 / 224
#: Aspect ratios of a random crop, as RandomResizedCrop of torchvision.
RATIO = (3 / 4, 4 / 3)


class Inputs(Protocol):
    """Training samples, ready for batches."""

    def batch(self, indices: np.ndarray, rng: np.random.Generator) -> tuple[Tensor, Tensor | None]:
        """What `encoder.forward` takes for these samples; `rng` draws the augmentation."""
        ...


def inputs_of(encoder: Encoder, dataset: Dataset, settings: FineTuneV2) -> Inputs:
    """Batches of `dataset` for `encoder`."""
    return Images(encoder, dataset, settings) if encoder.modality == "image" else Sequences(encoder, dataset)


class Images:
    """Decoded once (shorter side a little above the input, centre square), then cropped and flipped at random."""

    def __init__(self, encoder: Encoder, dataset: Dataset, settings: FineTuneV2) -> None:
        self.transform, self.scale, self.flip = encoder.transform(), settings.crop_scale, settings.flip
        self.size = encoder.input.size
        self.pixels, self.rows = pixel_view(dataset, stored_side(dataset, self.size))
        self.resample = Image.Resampling[encoder.input.interpolation.upper()]

    def batch(self, indices: np.ndarray, rng: np.random.Generator) -> tuple[Tensor, None]:
        rows = indices if self.rows is None else self.rows[indices]
        side, (height, width) = self.pixels.shape[1], self.size
        boxes = crop_boxes(len(rows), side, self.scale, rng)
        flipped = rng.random(len(rows)) < 0.5 if self.flip else np.zeros(len(rows), dtype=bool)
        made = np.empty((len(rows), height, width, 3), dtype=np.uint8)
        for i, row in enumerate(rows):
            crop = Image.fromarray(self.pixels[row]).resize((width, height), self.resample, box=tuple(boxes[i]))
            made[i] = np.asarray(crop)[:, ::-1] if flipped[i] else np.asarray(crop)
        return self.transform.normalise(torch.from_numpy(made)), None


class Sequences:
    """Skeletons after the encoder's own transform, padded to the longest of a batch."""

    def __init__(self, encoder: Encoder, dataset: Dataset) -> None:
        self.transform = encoder.transform()
        self.frames = [self.transform(dataset.sample(i)) for i in range(len(dataset))]

    def batch(self, indices: np.ndarray, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        return self.transform.collate([self.frames[i] for i in indices])


def stored_side(dataset: Dataset, size: tuple[int, int]) -> int:
    """Side at which images are kept: the input's where the images themselves are no larger."""
    first = dataset.sample(0)
    own = min(first.size) if isinstance(first, Image.Image) else min(first.shape[:2])
    return max(max(size), min(own, round(max(size) * STORED)))


def crop_boxes(n: int, side: int, scale: tuple[float, float], rng: np.random.Generator) -> np.ndarray:
    """`(n, 4)` boxes left, top, right, bottom inside a square: area in `scale` of it, aspect ratio in `RATIO`.

    Ten draws each, as torchvision; where none fits, the whole square.
    """
    area = rng.uniform(*scale, size=(n, 10)) * side**2
    ratio = np.exp(rng.uniform(math.log(RATIO[0]), math.log(RATIO[1]), size=(n, 10)))
    width, height = np.sqrt(area * ratio), np.sqrt(area / ratio)
    fits = (width <= side) & (height <= side)
    first, any_fits = fits.argmax(axis=1), fits.any(axis=1)
    pick = np.arange(n), first
    width, height = np.where(any_fits, width[pick], side), np.where(any_fits, height[pick], side)
    left, top = rng.random(n) * (side - width), rng.random(n) * (side - height)
    return np.stack([left, top, left + width, top + height], axis=1)
