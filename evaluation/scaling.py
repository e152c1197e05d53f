"""Each feature to mean 0 and deviation 1, as the training part has them."""

from __future__ import annotations

import numpy as np


def standardiser(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of each column of `(N, D)`, float64; the deviation of a constant column is infinite."""
    mean = features.mean(axis=0, dtype=np.float64)
    scale = features.std(axis=0, dtype=np.float64)
    return mean, divisor(mean, scale)


def divisor(mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """`deviation`, infinite for a constant column: that stays zero, where dividing by its rounding noise would not."""
    return np.where(deviation > 1e-7 * np.maximum(1, np.abs(mean)), deviation, np.inf)


def standardise(features: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """`(N, D)` float32 with the mean and deviation that `standardiser` gave."""
    return ((features - mean.astype(np.float32)) / scale.astype(np.float32)).astype(np.float32)
