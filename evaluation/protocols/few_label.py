"""Few labels: the linear probe when only some training samples carry one, over several draws."""

from __future__ import annotations

import warnings as python_warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field

from evaluation.frozen import Features, check
from evaluation.protocols.logistic_v1 import standardise, standardiser
from zoo.checkpoint.results import Metric
from zoo.errors import DataError
from zoo.strict import Strict


class FewLabelV1(Strict):
    """Logistic regression on frozen features when few training samples carry a label.

    An amount below 1 is a share of each class (rounded, at least one sample), from 1 on it counts labels per class.
    Labels are drawn at random, balanced over classes, `draws` times; the numbers are means over draws, their
    intervals cover draws and test samples. Features are standardised over the whole training split, of which labels
    are not needed. `c` is fixed, as few labels leave nothing to choose on.
    """

    name: str = "few-label-v1"
    amounts: tuple[Annotated[float, Field(gt=0)], ...] = Field(default=(0.01, 0.05, 0.1, 0.2), min_length=1)
    draws: int = Field(default=5, ge=2)
    c: float = Field(default=0.1, gt=0)
    max_iter: int = Field(default=500, ge=1)


RESAMPLES = 1000


@dataclass(frozen=True)
class FewLabelOutcome:
    """What one amount of labels gave.

    Attributes:
        amount: as the settings name it: a fraction below 1, or labels per class.
        labels: how many training samples carry a label in each draw.
        predicted: `(draws, N)` class indices of the test split.
        warnings: what a reader must see next to the number.
    """

    amount: float
    labels: int
    predicted: np.ndarray
    warnings: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """`"5 %"` or `"5 per class"`."""
        return f"{100 * self.amount:g} %" if self.amount < 1 else f"{self.amount:g} per class"


class FewLabelProbe:
    """Protocol `few-label-v1`; see `evaluation.protocols.few_label.FewLabelV1` for what it fixes.

    Args:
        settings: amounts, draws, C.
        seed: of the draws.
    """

    def __init__(self, settings: FewLabelV1 | None = None, seed: int = 0) -> None:
        self.settings, self.seed = settings or FewLabelV1(), seed

    def run(self, train: Features, test: Features) -> list[FewLabelOutcome]:
        """One outcome per amount. All training features, but only the drawn labels are looked at.

        Raises:
            DataError: see `evaluation.frozen.check`.
        """
        return list(self.outcomes(train, test))

    def outcomes(self, train: Features, test: Features) -> Iterator[FewLabelOutcome]:
        """`run`, one amount at a time."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression

        common = check(train, test)
        # Unlabelled features are there for the taking, so all of them set the scale.
        mean, scale = standardiser(train.features)
        x, queries = standardise(train.features, mean, scale), standardise(test.features, mean, scale)
        for amount in self.settings.amounts:
            predicted, notes, counts = [], set(), set()
            for draw in range(self.settings.draws):
                rows, short = draw_labels(train.labels, amount, self.seed, draw)
                counts.add(len(rows))
                if short:
                    notes.add(f"{short} classes have fewer than {amount:g} training samples: all of theirs are used")
                model = LogisticRegression(C=self.settings.c, max_iter=self.settings.max_iter)
                with python_warnings.catch_warnings(record=True) as caught:
                    python_warnings.simplefilter("always", ConvergenceWarning)
                    model.fit(x[rows], train.labels[rows])
                if any(issubclass(warning.category, ConvergenceWarning) for warning in caught):
                    notes.add(f"a fit stopped at {self.settings.max_iter} iterations, before it converged")
                predicted.append(model.predict(queries).astype(np.int64))
            yield FewLabelOutcome(amount, counts.pop(), np.stack(predicted), (*common, *sorted(notes)))


def draw_labels(labels: np.ndarray, amount: float, seed: int, draw: int) -> tuple[np.ndarray, int]:
    """Which training samples keep their label, balanced over classes.

    Args:
        labels: `(N,)` class indices.
        amount: below 1: that share of each class, rounded, at least one sample. From 1 on: that many of each class.
        seed, draw: the same pair gives the same order of samples, so that a larger amount holds a smaller one.

    Returns:
        Sorted rows, and how many classes had fewer samples than asked for.

    Raises:
        DataError: `amount` is not positive, or above 1 and no whole number.
    """
    if amount <= 0 or (amount >= 1 and amount != int(amount)):
        raise DataError(f"the amount of labels must be a share below 1 or a whole number per class, got {amount:g}")
    # Raw PCG64 output is guaranteed stable across numpy versions; Generator.permutation is not.
    order = np.argsort(np.random.PCG64([seed, draw]).random_raw(len(labels)), kind="stable")
    rows, short = [], 0
    for label in np.unique(labels):
        members = order[labels[order] == label]
        wanted = max(1, round(amount * len(members))) if amount < 1 else int(amount)
        short += len(members) < wanted
        rows.append(members[:wanted])
    return np.sort(np.concatenate(rows)), short


def metrics_over_draws(true: np.ndarray, predicted: np.ndarray, seed: int = 0) -> dict[str, Metric]:
    """`{"top1", "mean_per_class"}`: mean over draws, with 95 % bootstrap intervals over draws and test samples.

    Args:
        true: `(N,)` class indices. predicted: `(draws, N)`.
        seed: of the resampling.
    """
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
        "top1": _metric(whole.mean(), top1),
        "mean_per_class": _metric(((whole @ member) / member.sum(axis=0)).mean(), per_class),
    }


def _metric(value: float, resampled: np.ndarray) -> Metric:
    low, high = np.percentile(resampled, [2.5, 97.5])
    return Metric(value=float(value), low=float(low), high=float(high))
