"""Small image files and folders for the tests of the data room."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def noise(seed: int, height: int = 12, width: int = 16) -> np.ndarray:
    """uint8 `(height, width, 3)`."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def write_image(path: Path, seed: int, mode: str = "RGB", height: int = 12, width: int = 16) -> Path:
    """Write one noise image of PIL mode `mode`; the suffix of `path` chooses the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if mode == "I;16":
        image = Image.fromarray(noise(seed, height, width)[..., 0].astype(np.uint16) * 257)
    else:
        image = Image.fromarray(noise(seed, height, width)).convert(mode)
    assert image.mode == mode
    image.save(path)
    return path


def make_folder(root: Path, splits=("train", "test"), classes=("cat", "dog"), per_class: int = 5) -> Path:
    """`root/split/class/N.png`; without splits `root/class/N.png`. Every image differs."""
    seed = 0
    for split in splits or ("",):
        for name in classes:
            for i in range(per_class):
                write_image(root / split / name / f"{i}.png", seed)
                seed += 1
    return root
