"""Differences between two things that were measured on the same test samples.

Two intervals that overlap say little: both rise and fall with the same hard samples. A paired difference takes that
out. Its error has up to three sources, which add up as variances: the test samples (by bootstrap, whole groups at a
time where a reader knows groups such as persons), the random initialisations of a baseline, and draws of labels.
Few groups, initialisations or draws widen the interval through Student's t, with the degrees of freedom of Welch and
Satterthwaite.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.frozen import Outcome
from zoo.checkpoint.results import Metric, Versus

#: Bootstrap resamples.
RESAMPLES = 1000
#: Weights of resamples held at once: bounds memory at 64 MiB.
BLOCK = 1 << 23


@dataclass(frozen=True)
class Scores:
    """One metric, sample by sample.

    Attributes:
        values: `(initialisations, draws, N)`: 1 where right, 0 where wrong, or what else is averaged over samples; NaN
            for a sample that takes no part.
        classes: `(N,)` class indices where the metric is a mean over classes, else None.
        decisions: the values say right or wrong, so that McNemar's test applies.
        of_test_samples: the groups of the test split are those of the values.
    """

    values: np.ndarray
    classes: np.ndarray | None = None
    decisions: bool = False
    of_test_samples: bool = True


def scores_of(outcomes: Sequence[Outcome], labels: np.ndarray) -> dict[str, Scores]:
    """Metric -> its scores, over the initialisations of one subject; only metrics that are means over samples.

    Args:
        outcomes: of one protocol on the same test samples, one per initialisation.
        labels: `(N,)` of the test split.
    """
    first = outcomes[0]
    found = {}
    if first.predicted is not None:
        right = np.stack([np.atleast_2d(o.predicted == labels) for o in outcomes]).astype(np.float64)
        found["top1"] = Scores(right, decisions=True)
        found["mean_per_class"] = Scores(right, classes=labels)
    for name in first.samples:
        values = np.stack([o.samples[name][None] for o in outcomes]).astype(np.float64)
        found[name] = Scores(values, of_test_samples=first.of_test_samples)
    return found


def difference(
    own: Scores, other: Scores, name: str, metric: str, groups: np.ndarray | None = None, seed: int = 0
) -> Versus:
    """`own` minus `other` with its 95 % interval and the p-value of no difference.

    McNemar's exact test gives the p-value where single predictions of independent samples are compared; everywhere
    else it belongs to the same t statistic as the interval.

    Args:
        name: of the other subject. metric: what the scores are.
        groups: `(N,)`, samples of one group are drawn together; None: each sample is its own group.
        seed: of the bootstrap.
    """
    grid = own.values - other.values  # initialisations x draws x samples; a single own value is compared with each
    exact = own.decisions and grid.shape[:2] == (1, 1) and groups is None
    value, error, freedom = _estimate(grid, own.classes, groups, seed)
    half, p = _student(value, error, freedom)
    if exact:
        p = mcnemar(own.values[0, 0], other.values[0, 0])
    return Versus(
        other=name,
        metric=metric,
        value=value,
        low=max(min(-1.0, value), value - half),
        high=min(max(1.0, value), value + half),
        p=p,
        test="mcnemar" if exact else "bootstrap",
        groups=None if groups is None else len(np.unique(groups)),
    )


def pooled(scores: Scores, groups: np.ndarray | None = None, seed: int = 0) -> Metric:
    """Mean over initialisations, with a 95 % interval that covers them, draws and test samples."""
    value, error, freedom = _estimate(scores.values, scores.classes, groups, seed)
    half, _ = _student(value, error, freedom)
    # Few persons make wide intervals, but no share lies beyond all or nothing.
    return Metric(value=value, low=max(min(0.0, value), value - half), high=min(max(1.0, value), value + half))


def mcnemar(right: np.ndarray, other: np.ndarray) -> float:
    """Two-sided exact p-value of McNemar's test (1947): are the samples that only one gets right split evenly?

    Args:
        right, other: `(N,)`, 1 where right and 0 where wrong.
    """
    from scipy.stats import binomtest

    won, lost = int(((right == 1) & (other == 0)).sum()), int(((right == 0) & (other == 1)).sum())
    return 1.0 if won + lost == 0 else float(binomtest(won, won + lost).pvalue)


def spread(scores: Scores) -> tuple[float, ...]:
    """The metric of each initialisation."""
    return tuple(_mean(each, scores.classes) for each in scores.values.mean(axis=1))


def _estimate(
    values: np.ndarray, classes: np.ndarray | None, groups: np.ndarray | None, seed: int
) -> tuple[float, float, float]:
    """Mean, standard error and degrees of freedom of `(initialisations, draws, N)` values."""
    samples = values.mean(axis=(0, 1))
    parts = [_sampling(samples, classes, groups, seed)]
    for axis in (0, 1):  # initialisations, then draws
        count = values.shape[axis]
        if count > 1:
            means = [_mean(each, classes) for each in values.mean(axis=1 - axis)]
            parts.append((float(np.var(means, ddof=1)) / count, count - 1))
    variance = sum(part for part, _ in parts)
    if variance == 0:
        return _mean(samples, classes), 0.0, math.inf
    freedom = variance**2 / sum(part**2 / max(count, 1) for part, count in parts)
    return _mean(samples, classes), math.sqrt(variance), freedom


def _sampling(
    samples: np.ndarray, classes: np.ndarray | None, groups: np.ndarray | None, seed: int
) -> tuple[float, int]:
    """Variance of the mean over test samples by bootstrap, and the number of units drawn minus one."""
    taken = np.flatnonzero(~np.isnan(samples))
    samples = samples[taken]
    classes = None if classes is None else classes[taken]
    unit = np.arange(len(taken)) if groups is None else np.unique(groups[taken], return_inverse=True)[1]
    units = int(unit.max()) + 1
    if units < 2:
        return 0.0, 0
    rng, found = np.random.default_rng(seed), []
    member = None if classes is None else np.eye(int(classes.max()) + 1)[classes]
    step = max(1, BLOCK // len(taken))
    for start in range(0, RESAMPLES, step):
        count = min(step, RESAMPLES - start)
        drawn = (np.bincount(rng.integers(0, units, units), minlength=units) for _ in range(count))
        weight = np.stack([counts[unit] for counts in drawn]).astype(np.float64)
        if member is None:
            found.append(weight @ samples / weight.sum(axis=1))
        else:
            total = weight @ member
            share = np.where(total > 0, weight @ (member * samples[:, None]) / np.maximum(total, 1), np.nan)
            found.append(np.nanmean(share, axis=1))
    # The bootstrap divides by the number of units, not by one less.
    return float(np.var(np.concatenate(found))) * units / (units - 1), units - 1


def _mean(samples: np.ndarray, classes: np.ndarray | None) -> float:
    """The metric of `(N,)` values."""
    if classes is None:
        return float(np.nanmean(samples))
    total = np.bincount(classes)
    return float((np.bincount(classes, weights=samples)[total > 0] / total[total > 0]).mean())


def _student(value: float, error: float, freedom: float) -> tuple[float, float]:
    """Half of the 95 % interval, and the two-sided p-value of zero."""
    from scipy import stats

    if error == 0:
        return 0.0, float(value == 0)
    return float(stats.t.ppf(0.975, freedom)) * error, float(2 * stats.t.sf(abs(value) / error, freedom))
