"""Labels that look wrong: a probe that has not seen a sample disagrees with its label."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from evaluation.protocols.logistic_path import LogisticPath
from zoo.data.splits import folds
from zoo.errors import DataError

#: Values of C that are tried, in scikit-learn's sense; the one with the least loss on unseen samples is taken.
C_GRID = (1e-4, 1e-3, 1e-2, 1e-1)
FOLDS = 5
#: A probe over more classes takes hours and has next to nothing to learn each from.
MOST_CLASSES = 2000
#: Bytes of probabilities for one value of C; all values are held at once.
MOST_BYTES = 1 << 29


@dataclass(frozen=True)
class LabelCheck:
    """What a probe says about labels that it has not seen.

    Attributes:
        given: `(N,)` class indices as they came.
        predicted: `(N,)` class indices that the probe finds most probable.
        probability: `(N,)` float32, of the predicted class.
        margin: `(N,)` float32 in -1..1, probability of the given class minus that of the best other.
        suspected: rows whose label is probably wrong, the surest first.
        instead: class that each of `suspected` probably is.
        c: the C that was chosen.
        checked: `(N,)` bool, False for classes with a single sample, which no fold can learn.
    """

    given: np.ndarray
    predicted: np.ndarray
    probability: np.ndarray
    margin: np.ndarray
    suspected: np.ndarray
    instead: np.ndarray
    c: float
    checked: np.ndarray

    @property
    def confidently_wrong(self) -> np.ndarray:
        """Rows where the probe disagrees with the label, the surest of itself first."""
        rows = np.flatnonzero(self.checked & (self.predicted != self.given))
        return rows[np.argsort(-self.probability[rows], kind="stable")]


@dataclass(frozen=True)
class Overlap:
    """Two classes that the probe takes for each other.

    Attributes:
        first, second: class indices.
        share: of the samples of both classes, those taken for the other one.
        times: their number.
    """

    first: int
    second: int
    share: float
    times: int


def check_labels(features: np.ndarray, labels: np.ndarray, seed: int = 0) -> LabelCheck:
    """Find labels that are probably wrong, by confident learning (Northcutt et al. 2021, arXiv 1911.00068).

    Five stratified folds: a logistic regression on four of them gives the probabilities p of the fifth. The threshold
    of a class is the mean p of that class over the samples that carry it. A sample that carries i is confidently j
    where p_j reaches the threshold of j; if several do, the most probable one counts. These counts, each row scaled to
    the number of samples that carry i, say how many of i are j (section 3.1 of the paper); that many are suspected,
    those with the largest p_j - p_i ("prune by noise rate", section 3.2), as long as p_j is the larger one.

    Args:
        features: `(N, D)`. labels: `(N,)` class indices.
        seed: of the folds.

    Raises:
        DataError: fewer than two classes with two samples each, or more classes than a probe can learn; says so.
    """
    names, compact, counts = np.unique(labels, return_inverse=True, return_counts=True)
    learnt = int((counts > 1).sum())
    if learnt < 2:
        raise DataError(
            f"labels cannot be checked: {len(names):,} classes for {len(labels):,} samples, and {learnt} of them have "
            "two samples; a probe needs at least two classes with two"
        )
    if learnt > MOST_CLASSES or 4 * len(labels) * len(names) > MOST_BYTES:
        raise DataError(
            f"labels cannot be checked: {len(names):,} classes for {len(labels):,} samples; a probe takes at most "
            f"{MOST_CLASSES:,} classes. Give a part of the classes, or coarser ones"
        )
    p, c = _unseen_probabilities(features, compact, len(names), seed)
    checked = counts[compact] > 1
    own = p[np.arange(len(labels)), compact]
    others = p.copy()
    others[np.arange(len(labels)), compact] = -1
    suspected, instead = _suspected(p, compact, counts, own)
    margin = own - others.max(axis=1)
    order = np.argsort(margin[suspected], kind="stable")
    return LabelCheck(
        given=np.asarray(labels, dtype=np.int64),
        predicted=names[p.argmax(axis=1)],
        probability=p.max(axis=1),
        margin=margin,
        suspected=suspected[order],
        instead=names[instead[order]],
        c=c,
        checked=checked,
    )


def _suspected(p: np.ndarray, labels: np.ndarray, counts: np.ndarray, own: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows whose label is probably wrong, and the class each probably is; `own` is p of the given class."""
    # A class with a single sample is in no fold: nobody can be it, and it is not checked.
    mean = np.bincount(labels, weights=own) / counts
    threshold = np.where(counts > 1, mean, np.inf)
    reached = np.where(p >= threshold, p, -1.0)
    confident = np.where(reached.max(axis=1) >= 0, reached.argmax(axis=1), -1)
    rows, instead = [], []
    for given in np.flatnonzero(counts > 1):
        members = np.flatnonzero(labels == given)
        seen, times = np.unique(confident[members], return_counts=True)
        seen, times = seen[seen >= 0], times[seen >= 0]
        taken: dict[int, tuple[float, int]] = {}
        for other, number in zip(seen.tolist(), times.tolist(), strict=True):
            if other == given:
                continue
            lead = p[members, other] - p[members, given]
            most = round(number / times.sum() * len(members))
            for place in np.argsort(-lead, kind="stable")[:most].tolist():
                # One that could be two other classes is the more probable one.
                if lead[place] > taken.get(place, (0.0, 0))[0]:
                    taken[place] = float(lead[place]), other
        rows += [int(members[place]) for place in taken]
        instead += [other for _, other in taken.values()]
    return np.array(rows, dtype=np.int64), np.array(instead, dtype=np.int64)


def _unseen_probabilities(
    features: np.ndarray, labels: np.ndarray, classes: int, seed: int
) -> tuple[np.ndarray, float]:
    """`(N, K)` float32 probabilities from fits that have not seen the sample, at the C of least loss; and that C."""
    x = np.asarray(features, dtype=np.float32)
    found = {c: np.full((len(labels), classes), 1 / classes, dtype=np.float32) for c in C_GRID}
    loss = dict.fromkeys(C_GRID, 0.0)
    for rest, held in folds(labels, FOLDS, seed):
        fits = LogisticPath(x, labels, classes=classes, rows=rest, tol=1e-3, max_iter=200)
        for solution in fits.path(C_GRID):
            scores = x[held] @ solution.coef.T + solution.intercept
            scores -= scores.max(axis=1, keepdims=True)
            p = np.exp(scores)
            p /= p.sum(axis=1, keepdims=True)
            found[solution.c][held] = p
            loss[solution.c] -= float(np.log(np.maximum(p[np.arange(len(held)), labels[held]], 1e-12)).sum())
    best = min(C_GRID, key=lambda c: loss[c])
    return found[best], best


def overlaps(check: LabelCheck, most: int = 10) -> list[Overlap]:
    """The pairs of classes that the probe takes for each other most often, by share of their samples."""
    rows = np.flatnonzero(check.checked & (check.predicted != check.given))
    pairs = np.sort(np.stack([check.given[rows], check.predicted[rows]], axis=1), axis=1)
    pairs, times = np.unique(pairs, axis=0, return_counts=True)
    names, counts = np.unique(check.given, return_counts=True)
    size = dict(zip(names.tolist(), counts.tolist(), strict=True))
    found = [
        Overlap(a, b, n / (size.get(a, 0) + size.get(b, 0)), n)
        for (a, b), n in zip(pairs.tolist(), times.tolist(), strict=True)
    ]
    return sorted(found, key=lambda each: (-each.share, -each.times, each.first, each.second))[:most]
