"""Attention masks as pictures."""

from __future__ import annotations

import numpy as np
from PIL import Image

#: The hottest colour of the overlay, RGB.
HOT = (255, 64, 0)


def mask_over(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """A mask laid over its image: greyed and darkened where the mask is low, in a hot colour where it is high.

    Args:
        image: `(H, W, 3)` uint8. mask: `(h, w)`; stretched to its own range, as only ratios within a mask mean
            something, and enlarged bilinearly. A constant mask leaves the grey image.

    Returns:
        `(H, W, 3)` uint8.
    """
    low, high = float(mask.min()), float(mask.max())
    share = (mask - low) / max(high - low, 1e-12) if high - low > 1e-6 else np.zeros_like(mask)
    enlarged = Image.fromarray(np.round(share * 255).astype(np.uint8)).resize(
        image.shape[1::-1], Image.Resampling.BILINEAR
    )
    weight = np.asarray(enlarged, dtype=np.float32)[..., None] / 255
    grey = np.asarray(Image.fromarray(image).convert("L"), dtype=np.float32)[..., None]
    out = (0.75 * grey) * (1 - 0.55 * weight) + np.array(HOT, dtype=np.float32) * 0.55 * weight
    return np.round(np.clip(out, 0, 255)).astype(np.uint8)
