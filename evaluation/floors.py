"""The floors that stand in every table: the same network untrained, and the input itself."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from zoo.architectures import build
from zoo.config import Architecture
from zoo.data.base import Dataset
from zoo.encoder import Encoder
from zoo.errors import DataError
from zoo.transforms import ImageTransform

#: Raw pixels are compared at this side at most: a probe on 224 x 224 x 3 inputs would take hours.
RAW_SIDE = 32


def untrained(encoder: Encoder, seed: int = 0) -> Encoder:
    """The same architecture with its own random initialisation, in eval mode.

    Raises:
        DataError: the encoder does not say how it was built.
    """
    if encoder.config is None:
        raise DataError("the untrained floor needs a loaded checkpoint: this encoder has no config; pass floors=False")
    architecture: Architecture = encoder.config.architecture
    state = torch.get_rng_state()
    try:
        torch.manual_seed(seed)
        return build(architecture, encoder.input).eval()
    finally:
        torch.set_rng_state(state)


def raw(encoder: Encoder, dataset: Dataset) -> np.ndarray:
    """The encoder's own input, flattened: `(N, side * side * 3)` float32 in 0..1, side at most 32 px."""
    if dataset.modality != "image":
        raise DataError(f"no raw floor for {dataset.modality} data yet")
    transform = ImageTransform(encoder.input)
    height, width = (min(RAW_SIDE, side) for side in encoder.input.size)
    rows = np.empty((len(dataset), height * width * 3), dtype=np.float32)
    for index in range(len(dataset)):
        pixels = transform.pixels(dataset.sample(index))
        if pixels.shape[:2] != (height, width):
            pixels = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BOX))
        rows[index] = pixels.reshape(-1) / np.float32(255)
    return rows
