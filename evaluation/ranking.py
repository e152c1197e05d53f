"""How well a score ranks: Spearman's rho and Kendall's tau with bootstrap intervals over the ranked items."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import kendalltau, spearmanr

from zoo.errors import InputError


@dataclass(frozen=True)
class RankCorrelation:
    """`spearman` and `kendall` (tau-b), each (value, low, high): 95 % percentile bootstrap over items."""

    items: int
    spearman: tuple[float, float, float]
    kendall: tuple[float, float, float]


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
    generator = np.random.default_rng(seed)
    rows = generator.integers(0, len(score), (resamples, len(score)))
    found = {}
    for name, measure in (("spearman", spearmanr), ("kendall", kendalltau)):
        drawn = [_defined(measure(score[r], truth[r]).statistic) for r in rows]
        low, high = np.percentile(drawn, [2.5, 97.5])
        found[name] = (_defined(measure(score, truth).statistic), float(low), float(high))
    return RankCorrelation(len(score), **found)


def _defined(value: float) -> float:
    """A constant score orders nothing: 0."""
    return 0.0 if np.isnan(value) else float(value)


def rank_of(score: np.ndarray) -> np.ndarray:
    """Ranks 0..1 with ties averaged, for combining scores of different scales."""
    from scipy.stats import rankdata

    return (rankdata(score) - 1) / max(1, len(score) - 1)
