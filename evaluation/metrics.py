"""Accuracy, mean per-class accuracy, and their bootstrap intervals over test samples."""

from __future__ import annotations

import numpy as np

from zoo.results import Metric

RESAMPLES = 1000


def accuracy(true: np.ndarray, predicted: np.ndarray) -> float:
    """Fraction of `(N,)` predictions that are right."""
    return float((true == predicted).mean())


def mean_per_class(true: np.ndarray, predicted: np.ndarray) -> float:
    """Recall averaged over the classes that occur in `true`."""
    right, count = np.bincount(true, weights=true == predicted), np.bincount(true)
    return float((right[count > 0] / count[count > 0]).mean())


def with_intervals(true: np.ndarray, predicted: np.ndarray, seed: int = 0) -> dict[str, Metric]:
    """`{"top1", "mean_per_class"}` with 95 % percentile bootstrap intervals.

    A resample draws N test samples with replacement. Because both metrics depend only on how often
    each class occurs and how often it is right, a resample is one multinomial draw over the
    (class, right or wrong) cells: the same distribution at a fraction of the work.

    Args:
        true, predicted: `(N,)` class indices.
        seed: of the resampling.
    """
    classes, inverse = np.unique(true, return_inverse=True)
    cells = np.stack([np.bincount(inverse, weights=true != predicted), np.bincount(inverse, weights=true == predicted)])
    draws = np.random.default_rng(seed).multinomial(len(true), (cells / len(true)).ravel(), size=RESAMPLES)
    wrong, right = draws.reshape(RESAMPLES, 2, len(classes)).transpose(1, 0, 2)
    count = wrong + right
    top1 = right.sum(axis=1) / len(true)
    # A class that a resample misses is left out of that resample's mean.
    recall = np.where(count > 0, right / np.maximum(count, 1), np.nan)
    per_class = np.nanmean(recall, axis=1)
    return {
        "top1": _metric(accuracy(true, predicted), top1),
        "mean_per_class": _metric(mean_per_class(true, predicted), per_class),
    }


def mean_with_interval(values: np.ndarray, seed: int = 0) -> Metric:
    """Mean of `(N,)` values with its 95 % percentile bootstrap interval over them."""
    drawn = np.random.default_rng(seed)
    means = [values[drawn.integers(len(values), size=len(values))].mean() for _ in range(RESAMPLES)]
    return _metric(float(values.mean()), np.array(means))


def _metric(value: float, resampled: np.ndarray) -> Metric:
    low, high = np.percentile(resampled, [2.5, 97.5])
    return Metric(value=value, low=float(low), high=float(high))
