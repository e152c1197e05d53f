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
#: The probability of another class that all but this share of a class exceed counts as noise of the labels.
NOISE = 0.1
#: Share of the suspected labels that may be right, by the probe's own probabilities.
CHANCE = 0.5
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
        given_probability: `(N,)` float32, of the given class.
        suspected: rows whose label is probably wrong, the surest first.
        instead: class that each of `suspected` probably is.
        c: the C that was chosen.
        checked: `(N,)` bool, False for classes with a single sample, which no fold can learn.
    """

    given: np.ndarray
    predicted: np.ndarray
    probability: np.ndarray
    given_probability: np.ndarray
    suspected: np.ndarray
    instead: np.ndarray
    c: float
    checked: np.ndarray

    @property
    def accuracy(self) -> float:
        """Share of the checked samples where the probe agrees with the label."""
        return float((self.predicted == self.given)[self.checked].mean())

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
    """Find labels that are probably wrong: those that a probe, which has not seen the sample, finds improbable.

    Five stratified folds: a logistic regression on four of them gives the probabilities p of the fifth, and one
    temperature over all samples makes them as probable as they are true (Guo et al. 2017, arXiv 1706.04599). A probe
    learns wrong labels as well, as a small probability for all samples of a class: what nearly every sample that it
    takes for one class has of another is taken away. Labels
    are ordered by their own probability, as in confident learning (Northcutt et al. 2021, arXiv 1911.00068, section
    3.2: self-confidence). How many are suspected: if all labels were right, those with a probability of at most t
    would number E(t) = sum of all p_ij <= t over samples i and classes j. The largest t is taken at which E(t) is at
    most half of the number that is found, so that about half of the suspected labels or more should be wrong. Without
    wrong labels there is no such t, and nothing is suspected.

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
    p = _without_noise(p)
    own = p[np.arange(len(labels)), compact]
    others = p.copy()
    others[np.arange(len(labels)), compact] = -1
    suspected = _suspected(p, own, checked & (others.max(axis=1) > own))
    return LabelCheck(
        given=np.asarray(labels, dtype=np.int64),
        predicted=names[p.argmax(axis=1)],
        probability=p.max(axis=1),
        given_probability=own,
        suspected=suspected,
        instead=names[others[suspected].argmax(axis=1)],
        c=c,
        checked=checked,
    )


def _without_noise(p: np.ndarray) -> np.ndarray:
    """`p` without the part that all samples of a predicted class share, scaled to sum to 1."""
    predicted, cleaned = p.argmax(axis=1), p.copy()
    for label in np.unique(predicted):
        rows = np.flatnonzero(predicted == label)
        floor = np.quantile(p[rows], NOISE, axis=0)
        floor[label] = 0
        cleaned[rows] = np.maximum(p[rows] - floor, 0)
    return cleaned / cleaned.sum(axis=1, keepdims=True)


def _suspected(p: np.ndarray, own: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """Rows among `candidates` whose label is too improbable for so many of them to be right, the least probable first.

    Args:
        p: `(N, K)` calibrated probabilities. own: `(N,)` of the given classes. candidates: `(N,)` bool.
    """
    order = np.argsort(own, kind="stable")
    every = np.sort(p, axis=None)
    total = np.concatenate([[0.0], np.cumsum(every, dtype=np.float64)])
    expected = total[np.searchsorted(every, own[order], side="right")]
    enough = np.flatnonzero(expected <= CHANCE * np.arange(1, len(own) + 1))
    found = order[: enough[-1] + 1] if len(enough) else order[:0]
    return found[candidates[found]]


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
    return _calibrated(found[best], labels), best


def _calibrated(p: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """`p ** (1 / T)`, scaled to sum to 1, at the temperature T of least log-loss."""
    from scipy.optimize import minimize_scalar

    log_p = np.log(np.maximum(p, 1e-30))

    def at(power: float) -> np.ndarray:
        scores = log_p * np.float32(np.exp(power))
        q = np.exp(scores - scores.max(axis=1, keepdims=True))
        return q / q.sum(axis=1, keepdims=True)

    def loss(power: float) -> float:
        return -float(np.log(np.maximum(at(power)[np.arange(len(labels)), labels], 1e-30)).mean())

    return at(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x)


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
