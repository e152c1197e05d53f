"""Outliers: pictures unlike the rest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zoo.errors import DataError

#: Principal directions that count: no more than these, and no more than one for so many pictures, so that each
#: deviation is known well.
DIRECTIONS, PICTURES_FOR_ONE = 128, 8
#: Iglewicz & Hoaglin 1993, "How to detect and handle outliers": a modified z-score above 3.5 is an outlier.
LIMIT = 3.5


@dataclass(frozen=True)
class Outliers:
    """How far each picture lies from the rest.

    Attributes:
        score: `(N,)` float32, Mahalanobis distance divided by the root of the number of directions: 1 on average.
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
    deviation. The modified z-score is 0.6745 * (s - median) / MAD over all scores s; MAD is the median of
    |s - median|. On planted faults this found more than distances to the nearest neighbours (cosine, Euclidean, local
    outlier factor), which take a few foreign pictures of one kind for a group of its own.

    Args:
        features: `(N, D)`.

    Raises:
        DataError: fewer than two samples, or features that are all the same.
    """
    x = np.asarray(features, dtype=np.float64)
    x = x - x.mean(axis=0)
    variance, vectors = np.linalg.eigh(x.T @ x / max(1, len(x)))
    order = np.argsort(-variance)[: max(1, min(DIRECTIONS, len(x) // PICTURES_FOR_ONE))]
    order = order[variance[order] > 1e-10 * variance.max()]
    if len(x) < 2 or not len(order) or variance.max() < 1e-20:
        raise DataError(f"outliers need at least two samples with different features, got {len(x)}")
    scaled = x @ vectors[:, order] / np.sqrt(variance[order])
    score = np.sqrt((scaled**2).mean(axis=1)).astype(np.float32)
    middle = float(np.median(score))
    spread = float(np.median(np.abs(score - middle)))
    # Without any spread (all copies of each other but a few) whatever differs stands out.
    z = 0.6745 * (score - middle) / max(spread, 1e-6)
    order = np.argsort(-score, kind="stable")
    return Outliers(score, order[z[order] > LIMIT], scaled.shape[1])
