"""The baselines that stand in every table: the same network untrained, and the input itself."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from zoo.architectures import build
from zoo.data.base import Dataset
from zoo.encoder import Encoder
from zoo.errors import DataError
from zoo.preprocessing.image import ImageTransform
from zoo.preprocessing.joints import layout
from zoo.preprocessing.skeleton import SkeletonTransform
from zoo.strict import Architecture

#: Raw pixels are compared at this side at most: a probe on 224 x 224 x 3 inputs would take hours.
RAW_SIDE = 32
#: Raw joints are compared at this many frames.
RAW_FRAMES = 32


def untrained(encoder: Encoder, seed: int = 0) -> Encoder:
    """The same architecture with its own random initialisation, in eval mode.

    What the encoder took from its data before any training (`Encoder.data_statistics`) is kept: without it the baseline
    would be lower and the encoder look better.

    Raises:
        DataError: the encoder does not say how it was built.
    """
    if encoder.config is None:
        raise DataError(
            "the untrained baseline needs a loaded checkpoint: this encoder has no config; pass floors=False"
        )
    architecture: Architecture = encoder.config.architecture
    state = torch.get_rng_state()
    try:
        torch.manual_seed(seed)
        network = build(architecture, encoder.input).eval()
    finally:
        torch.set_rng_state(state)
    network.copy_data_statistics(encoder)
    return network


def raw(encoder: Encoder, dataset: Dataset) -> np.ndarray:
    """The input, flattened: `(N, D)` float32.

    Images: the encoder's own, in 0..1, side at most 32 px. Skeletons: joints of `RAW_FRAMES` evenly spaced frames,
    centred on the hip in each and turned to the camera by the body's mean axes, whatever the encoder does.

    Raises:
        DataError: a sample cannot be read.
    """
    return _joints(encoder, dataset) if dataset.modality == "skeleton" else _pixels(encoder, dataset)


def _joints(encoder: Encoder, dataset: Dataset) -> np.ndarray:
    steps = ("centre_frames", "align_mean", f"resample:{RAW_FRAMES}")
    transform = SkeletonTransform(encoder.input.model_copy(update={"steps": steps, "frames": None}))
    # The joint at the origin says nothing.
    origin = layout(encoder.input.layout).axes[0]
    frames = (np.delete(transform.frames(dataset.sample(index)), origin, axis=1) for index in range(len(dataset)))
    return np.stack([x.reshape(-1) for x in frames])


def _pixels(encoder: Encoder, dataset: Dataset) -> np.ndarray:
    transform = ImageTransform(encoder.input)
    height, width = (min(RAW_SIDE, side) for side in encoder.input.size)
    rows = np.empty((len(dataset), height * width * 3), dtype=np.float32)
    for index in range(len(dataset)):
        pixels = transform.pixels(dataset.sample(index))
        if pixels.shape[:2] != (height, width):
            pixels = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BOX))
        rows[index] = pixels.reshape(-1) / np.float32(255)
    return rows
