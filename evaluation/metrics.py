"""Accuracy, mean per-class accuracy, and their bootstrap intervals over test samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from zoo.checkpoint.results import Difference, Metric
from zoo.strict import Strict


class Interval(Strict):
    """A mean of `n` values with its 95 % interval, None for one value."""

    n: int
    mean: float
    low: float | None = None
    high: float | None = None

    def text(self, digits: int = 2) -> str:
        """`"93.10 [92.40, 93.80]"`, in the unit of the values."""
        if self.low is None or self.high is None:
            return f"{self.mean:.{digits}f}"
        return f"{self.mean:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"


def interval(values: Sequence[float]) -> Interval:
    """Mean of independent values and Student's t interval."""
    import numpy as np
    from scipy import stats

    x = np.asarray(values, float)
    if len(x) < 2:
        return Interval(n=len(x), mean=float(x.mean()))
    half = float(stats.t.ppf(0.975, len(x) - 1) * x.std(ddof=1) / np.sqrt(len(x)))
    return Interval(n=len(x), mean=float(x.mean()), low=float(x.mean()) - half, high=float(x.mean()) + half)


def unpaired(values: Sequence[float], others: Sequence[float]) -> Interval:
    """Difference of the means of two independent groups, with Welch's t interval; `n` of the smaller group."""
    import numpy as np
    from scipy import stats

    n, mean = min(len(values), len(others)), float(np.mean(values) - np.mean(others))
    if n < 2 or np.ptp(values) + np.ptp(others) == 0:
        return Interval(n=n, mean=mean)
    low, high = stats.ttest_ind(values, others, equal_var=False).confidence_interval(0.95)
    return Interval(n=n, mean=mean, low=float(low), high=float(high))


def compare(arms: Mapping[str, Sequence[float]]) -> tuple[Difference, ...]:
    """Paired differences of all pairs, the later arm minus the earlier; intervals of Student's t over seeds."""
    import numpy as np

    found = []
    for (other, before), (arm, after) in combinations(arms.items(), 2):
        d = interval(np.subtract(after, before))
        found.append(Difference(arm=arm, other=other, mean=d.mean, low=d.low, high=d.high))
    return tuple(found)


RESAMPLES = 1000


def accuracy(true: np.ndarray, predicted: np.ndarray) -> float:
    """Fraction of `(N,)` predictions that are right."""
    return float((true == predicted).mean())


def mean_per_class(true: np.ndarray, predicted: np.ndarray) -> float:
    """Recall averaged over the classes that occur in `true`."""
    right, count = np.bincount(true, weights=true == predicted), np.bincount(true)
    return float((right[count > 0] / count[count > 0]).mean())


def with_intervals(true: np.ndarray, predicted: np.ndarray, seed: int = 0) -> dict[str, Metric]:
    """`{"top1", "mean_per_class"}` with 95 % percentile bootstrap intervals over test samples, and over draws if any.

    A resample draws N test samples with replacement. Because both metrics depend only on how often
    each class occurs and how often it is right, a resample is one multinomial draw over the
    (class, right or wrong) cells: the same distribution at a fraction of the work.

    Args:
        true: `(N,)` class indices. predicted: `(N,)`, or `(draws, N)`, of which the means are given.
        seed: of the resampling.
    """
    if predicted.ndim == 2:
        return _over_draws(true, predicted, seed)
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


def _over_draws(true: np.ndarray, predicted: np.ndarray, seed: int) -> dict[str, Metric]:
    """Means over draws; a resample draws both draws and test samples with replacement."""
    classes, which = np.unique(true, return_inverse=True)
    member = np.eye(len(classes))[which]
    right = (predicted == true).astype(np.float64)
    rng = np.random.default_rng(seed)
    top1, per_class = np.empty(RESAMPLES), np.empty(RESAMPLES)
    for i in range(RESAMPLES):
        chosen = rng.integers(0, len(right), len(right))
        weight = np.bincount(rng.integers(0, len(true), len(true)), minlength=len(true))
        share = right[chosen].mean(axis=0) * weight
        count = weight @ member
        top1[i] = share.sum() / len(true)
        per_class[i] = ((share @ member)[count > 0] / count[count > 0]).mean()
    whole = right.mean(axis=0)
    return {
        "top1": _metric(float(whole.mean()), top1),
        "mean_per_class": _metric(float(((whole @ member) / member.sum(axis=0)).mean()), per_class),
    }


def mean_with_interval(values: np.ndarray, seed: int = 0) -> Metric:
    """Mean of `(N,)` values with its 95 % percentile bootstrap interval over them."""
    drawn = np.random.default_rng(seed)
    means = [values[drawn.integers(len(values), size=len(values))].mean() for _ in range(RESAMPLES)]
    return _metric(float(values.mean()), np.array(means))


def _metric(value: float, resampled: np.ndarray) -> Metric:
    low, high = np.percentile(resampled, [2.5, 97.5])
    return Metric(value=value, low=float(low), high=float(high))
