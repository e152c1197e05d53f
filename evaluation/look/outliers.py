"""Outliers: pictures unlike the rest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zoo.errors import DataError

#: Principal directions that count: no more than these, and no more than one for so many pictures, so that each
#: deviation is known well.
DIRECTIONS, PICTURES_FOR_ONE = 64, 8
#: Share of the pictures, the farthest ones, that mean and directions are taken without, and how often in turn.
TRIMMED, ROUNDS = 0.05, 10
#: Iglewicz & Hoaglin 1993, "How to detect and handle outliers": a modified z-score above 3.5 is an outlier.
LIMIT = 3.5


@dataclass(frozen=True)
class Outliers:
    """How far each picture lies from the rest.

    Attributes:
        score: `(N,)` float32, Mahalanobis distance divided by the root of the number of directions: about 1 for most.
        flagged: rows whose score stands out, the farthest first.
        directions: number of principal directions.
    """

    score: np.ndarray
    flagged: np.ndarray
    directions: int

    @property
    def order(self) -> np.ndarray:
        """All rows, the farthest first."""
        return np.argsort(-self.score, kind="stable")


def outliers(features: np.ndarray) -> Outliers:
    """Score every picture by its Mahalanobis distance to the mean, and flag scores with a modified z-score above 3.5.

    The distance is taken in the principal directions of the features with the largest deviations, each divided by its
    deviation. Mean and directions are those of the pictures without the farthest twentieth, found in ten rounds: a few
    foreign pictures of one kind would otherwise make a direction of their own and look ordinary in it. The modified
    z-score is 0.6745 * (s - median) / MAD over all scores s; MAD is the median of |s - median|.

    Args:
        features: `(N, D)`.

    Raises:
        DataError: fewer than two samples, or features that are all the same.
    """
    x = np.asarray(features, dtype=np.float64)
    if len(x) < 2 or np.ptp(x, axis=0).max() == 0:
        raise DataError(f"outliers need at least two samples with different features, got {len(x)}")
    directions = max(1, min(DIRECTIONS, len(x) // PICTURES_FOR_ONE))
    score = _distance(x, x, directions)
    for _ in range(ROUNDS):
        kept = x[score <= np.quantile(score, 1 - TRIMMED)]
        if np.ptp(kept, axis=0).max() == 0:  # copies of one picture: no direction is left to measure in
            break
        score = _distance(x, kept, directions)
    middle = float(np.median(score))
    spread = float(np.median(np.abs(score - middle)))
    # Without any spread (all copies of each other but a few) whatever differs stands out.
    z = 0.6745 * (score - middle) / max(spread, 1e-6)
    order = np.argsort(-score, kind="stable")
    return Outliers(score, order[z[order] > LIMIT], directions)


def _distance(x: np.ndarray, reference: np.ndarray, directions: int) -> np.ndarray:
    """Mahalanobis distance of each row to the rows of `reference`, over the root of the number of directions."""
    mean = reference.mean(axis=0)
    variance, vectors = np.linalg.eigh((reference - mean).T @ (reference - mean) / len(reference))
    order = np.argsort(-variance)[:directions]
    order = order[variance[order] > 1e-10 * variance.max()]
    scaled = (x - mean) @ vectors[:, order] / np.sqrt(variance[order])
    return np.sqrt((scaled**2).mean(axis=1)).astype(np.float32)
