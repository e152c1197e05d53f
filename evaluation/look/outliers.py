"""Outliers: pictures with no other picture near them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zoo.features.nearest import nearest

#: Which neighbour the distance is taken to: more pictures of one foreign kind than this hide each other.
K = 10
#: Iglewicz & Hoaglin 1993, "How to detect and handle outliers": a modified z-score above 3.5 is an outlier.
LIMIT = 3.5


@dataclass(frozen=True)
class Outliers:
    """How far each picture lies from the others.

    Attributes:
        score: `(N,)` float32, cosine distance to the k-th nearest other picture.
        flagged: rows whose score stands out, the farthest first.
        k: which neighbour.
    """

    score: np.ndarray
    flagged: np.ndarray
    k: int

    @property
    def order(self) -> np.ndarray:
        """All rows, the farthest first."""
        return np.argsort(-self.score, kind="stable")


def outliers(features: np.ndarray, *, k: int = K) -> Outliers:
    """Score every picture by the distance to its k-th nearest neighbour (Ramaswamy et al. 2000; for features of
    networks Sun et al. 2022, arXiv 2204.06507), and flag scores with a modified z-score above 3.5.

    The modified z-score is 0.6745 (s - median) / MAD over all scores s; MAD is the median of |s - median|.

    Args:
        features: `(N, D)`, centred by the caller if the encoder has a large common direction. k: N - 1 at most.
    """
    k = min(k, len(features) - 1)
    similarity, _ = nearest(features, features, k, itself=True)
    score = (1 - similarity[:, -1]).astype(np.float32)
    middle = float(np.median(score))
    spread = float(np.median(np.abs(score - middle)))
    # Without any spread (all copies of each other but a few) whatever differs stands out.
    z = 0.6745 * (score - middle) / max(spread, 1e-6)
    order = np.argsort(-score, kind="stable")
    return Outliers(score, order[z[order] > LIMIT], k)
