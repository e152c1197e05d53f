"""Numbers about features that need no labels: effective rank, RankMe, density and coverage of a second set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from evaluation.frozen import unit
from zoo.errors import DataError
from zoo.features.nearest import nearest

#: Rows read at once: a table larger than memory is never copied.
ROWS = 16_384
#: RankMe adds this to each share (arXiv 2210.02885).
EPSILON = 1e-7


@dataclass(frozen=True)
class Spectrum:
    """How many directions features use.

    Attributes:
        samples, width: N and D.
        effective_rank: Roy & Vetterli 2007 of the centred features; 0 where they are all the same.
        rankme: Garrido et al. 2023 of the features as they are.
        constant: number of columns that never change.
    """

    samples: int
    width: int
    effective_rank: float
    rankme: float
    constant: int


def spectrum(features: np.ndarray) -> Spectrum:
    """Effective rank and RankMe.

    Both are exp(-sum p_i log p_i) with p_i = s_i / sum_j s_j, s_i being singular values. Effective rank (Roy &
    Vetterli 2007, "The effective rank: a measure of effective dimensionality") is taken here of centred
    features, so that a large mean does not hide the rest. RankMe (Garrido et al. 2023, arXiv 2210.02885)
    is taken of the features as they are, and adds 1e-7 to each p_i.

    Args:
        features: `(N, D)`, an array or a memory map. Neither number can exceed min(N, D).

    Raises:
        DataError: fewer than 2 samples, NaN or infinite features.
    """
    if features.ndim != 2 or len(features) < 2:
        raise DataError(f"a spectrum needs features (N, D) of at least 2 samples, got shape {features.shape}")
    samples, width = features.shape
    blocks = [slice(start, start + ROWS) for start in range(0, samples, ROWS)]
    low = np.min([features[rows].min(axis=0) for rows in blocks], axis=0)
    high = np.max([features[rows].max(axis=0) for rows in blocks], axis=0)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise DataError("features hold NaN or infinite values")
    total = sum(np.asarray(features[rows], dtype=np.float64).sum(axis=0) for rows in blocks)
    mean = np.where(high == low, low.astype(np.float64), total / samples)
    raw, centred = np.zeros((width, width)), np.zeros((width, width))
    for rows in blocks:
        x = np.asarray(features[rows], dtype=np.float64)
        raw += x.T @ x
        x -= mean
        centred += x.T @ x
    rank = min(samples, width)
    shares, own = _shares(centred, min(samples - 1, width)), _shares(raw, rank)
    return Spectrum(
        samples=samples,
        width=width,
        effective_rank=float(np.exp(_entropy(shares))) if shares is not None else 0.0,
        rankme=float(np.exp(_entropy(own + EPSILON))) if own is not None else 0.0,
        constant=int((high == low).sum()),
    )


def _shares(gram: np.ndarray, rank: int) -> np.ndarray | None:
    """Singular values over their sum, from the Gram matrix; None where all are zero."""
    values = np.sqrt(np.linalg.eigvalsh(gram)[::-1][:rank].clip(min=0))
    return values / values.sum() if values.sum() > 0 else None


def _entropy(p: np.ndarray) -> float:
    p = p[p > 0]
    return float(-(p * np.log(p)).sum())


@dataclass(frozen=True)
class Covering:
    """How well a second set covers the first (Naeem et al. 2020, arXiv 2002.09797).

    Attributes:
        density: mean number of balls of the first set that a sample of the second lies in, divided by k. Above 1
            where the second set lies in crowded places.
        coverage: share of the first set whose ball holds a sample of the second.
        expected: the coverage that two draws from one distribution would have on average.
        k: the ball of a sample reaches to its k-th nearest neighbour in its own set.
        uncovered: rows of the first set whose ball is empty, the loneliest first.
    """

    density: float
    coverage: float
    expected: float
    k: int
    uncovered: np.ndarray


def covering(first: np.ndarray, second: np.ndarray, k: int = 5) -> Covering:
    """Density and coverage of `second` with respect to `first`, by Euclidean distance of features of length 1.

    density = 1 / (k M) * number of pairs (i, j) with |y_j - x_i| <= r_i; coverage = 1 / N * number of i with at least
    one such j; r_i is the distance from x_i to its k-th nearest other x (sections 3.1 and 3.2 of the paper). If both
    sets come from one distribution, the k nearest of x_i are all of its own set with probability
    prod_{m=1..k} (N - m) / (N + M - m), which gives the expected coverage.

    Args:
        first: `(N, D)`. second: `(M, D)`.

    Raises:
        DataError: no more than k samples in the first set, or an empty second.
    """
    if len(first) <= k or not len(second):
        raise DataError(f"density and coverage need more than k = {k} samples and a second set, got {len(first)}")
    own, _ = nearest(first, first, k, itself=True)
    # Features of length 1: a distance is at most r exactly where the similarity is at least that of r. The margin is
    # float32's: a copy of the neighbour that sets the radius lies inside.
    radius = own[:, -1] - 1e-6
    inside, covered, closest = 0, np.zeros(len(first), dtype=bool), np.full(len(first), -np.inf, dtype=np.float32)
    x, step = unit(first), max(1, (1 << 24) // len(first))
    for start in range(0, len(second), step):
        similarity = x @ unit(second[start : start + step]).T
        within = similarity >= radius[:, None]
        inside += int(within.sum())
        covered |= within.any(axis=1)
        closest = np.maximum(closest, similarity.max(axis=1))
    n, m = len(first), len(second)
    missed = float(np.prod([(n - i) / (n + m - i) for i in range(1, k + 1)]))
    alone = np.flatnonzero(~covered)
    return Covering(
        density=inside / (k * m),
        coverage=float(covered.mean()),
        expected=1 - missed,
        k=k,
        uncovered=alone[np.argsort(closest[alone], kind="stable")],
    )
