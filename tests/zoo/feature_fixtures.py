"""What tests of extraction share: a small encoder, random images that may be slow, one table against another."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from zoo.architectures import build
from zoo.data.base import Dataset
from zoo.features.table import FeatureTable
from zoo.preprocessing.image import ImageInput
from zoo.strict import Architecture

ROOT = Path(__file__).parents[2]
TINY = Architecture(family="timm", arguments={"model": "resnet10t", "model_args": {"channels": [8, 8, 8, 16]}})


def tiny_encoder(size: int = 16, crop_fraction: float = 1.0):
    """Its batch norms have seen noise: without that, features of two images differ by no more than rounding does."""
    torch.manual_seed(0)
    encoder = build(TINY, ImageInput(size=(size, size), crop_fraction=crop_fraction, mean=(0.5, 0.4, 0.3)))
    with torch.no_grad():
        for module in encoder.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = None
        encoder.train()(torch.randn(64, 3, 16, 16))
    return encoder.eval()


class Images(Dataset):
    """Labelled random images; `delay` makes a run long enough to be killed."""

    name, split, class_names = "random", "train", ("ant", "bee", "cat")

    def __init__(self, count: int = 70, size: int = 16, delay: float = 0.0) -> None:
        self.pixels = np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)
        self.keys = [f"image {i}.png" for i in range(count)]
        self.labels = np.arange(count) % 3
        self.delay = delay

    def sample(self, index):
        time.sleep(self.delay)
        return Image.fromarray(self.pixels[index])

    @property
    def fingerprint(self):
        return f"{len(self):064x}"


def same(a: FeatureTable, b: FeatureTable) -> bool:
    arrays = np.array_equal(a.features, b.features) and np.array_equal(a.labels, b.labels)
    return arrays and list(a.keys) == list(b.keys) and a.metadata() == b.metadata()
