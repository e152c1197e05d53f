"""How well a score ranks: Spearman's rho and Kendall's tau with bootstrap intervals over the ranked items."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from zoo.errors import InputError

Estimate = tuple[float, float, float]


@dataclass(frozen=True)
class RankCorrelation:
    """`spearman` and `kendall` (tau-b), each (value, low, high): 95 % percentile bootstrap over items."""

    items: int
    spearman: Estimate
    kendall: Estimate


def rank_correlation(score: np.ndarray, truth: np.ndarray, resamples: int = 1000, seed: int = 0) -> RankCorrelation:
    """Agreement of two orders of the same items; infinite scores rank at their end.

    Args:
        score, truth: `(n,)`, larger is better.

    Raises:
        InputError: different lengths, fewer than 3 items, NaN.
    """
    score, truth = np.asarray(score, float), np.asarray(truth, float)
    if score.shape != truth.shape or score.ndim != 1 or len(score) < 3:
        raise InputError(f"rank_correlation takes two equal lists of at least 3, got {score.shape} and {truth.shape}")
    if np.isnan(score).any() or np.isnan(truth).any():
        raise InputError("rank_correlation: a score or truth is NaN; leave that item out or give it -inf")
    score, truth = rankdata(score), rankdata(truth)  # finite, and the same order
    n = len(score)
    rows = np.vstack([np.arange(n), np.random.default_rng(seed).integers(0, n, (resamples, n))])
    return RankCorrelation(n, _estimate(_spearman(score[rows], truth[rows])), _estimate(_kendall(score, truth, rows)))


def _estimate(values: np.ndarray) -> Estimate:
    """The first is of the items themselves, the others of resamples."""
    low, high = np.percentile(values[1:], [2.5, 97.5]) if len(values) > 1 else (values[0], values[0])
    return float(values[0]), float(low), float(high)


def _spearman(score: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Of each row of `(resamples, n)`."""
    a, b = (rankdata(x, axis=1) - (x.shape[1] + 1) / 2 for x in (score, truth))
    return _ratio((a * b).sum(1), np.sqrt((a * a).sum(1) * (b * b).sum(1)))


def _kendall(score: np.ndarray, truth: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """tau-b of each row of indices: agreeing minus disagreeing pairs over those that are no ties."""
    a, b = (np.sign(x[:, None] - x[None, :]).astype(np.int8) for x in (score, truth))
    out = np.empty(len(rows))
    for i, r in enumerate(rows):
        pairs = np.ix_(r, r)
        s, t = a[pairs].astype(np.int32), b[pairs].astype(np.int32)
        out[i] = _ratio((s * t).sum(), np.sqrt(float((s * s).sum()) * float((t * t).sum())))
    return out


def _ratio(above, below):
    """A constant score orders nothing: 0."""
    return np.divide(above, below, out=np.zeros_like(np.asarray(below, float)), where=np.asarray(below) > 0)


def rank_of(score: np.ndarray) -> np.ndarray:
    """Ranks 0..1 with ties averaged, for combining scores of different scales."""
    return (rankdata(score) - 1) / max(1, len(score) - 1)
