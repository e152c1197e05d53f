"""Few labels: the linear probe when only some training samples carry one, over several draws."""

from __future__ import annotations

import warnings as python_warnings
from collections.abc import Iterator
from typing import Annotated

import numpy as np
from pydantic import Field

from evaluation.frozen import Features, Outcome, check, standardise, standardiser
from evaluation.protocols.base import Protocol
from zoo.errors import DataError
from zoo.strict import Strict


class FewLabelV1(Strict):
    """Logistic regression on frozen features when few training samples carry a label.

    An amount below 1 is a share of each class (rounded, at least one sample), from 1 on it counts labels per class.
    Labels are drawn at random, balanced over classes, `draws` times; the numbers are means over draws, their
    intervals cover draws and test samples. Features are standardised over the whole training split, of which labels
    are not needed. `c` is fixed, as few labels leave nothing to choose on.
    """

    amounts: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        default=(0.01, 0.05, 0.1, 0.2), min_length=1, description="shares of each class, or labels per class from 1 on"
    )
    draws: int = Field(default=5, ge=2, description="of labels, for each amount")
    c: float = Field(default=0.1, gt=0, description="scikit-learn's C: it multiplies the sum of losses")
    max_iter: int = Field(default=500, ge=1, description="of the optimiser, for each fit")


class FewLabelProbe(Protocol[FewLabelV1]):
    """Protocol `few-label-v1`; `FewLabelV1` says what it fixes. One outcome per amount of labels."""

    name = "few-label-v1"
    title = "few labels"
    settings_type = FewLabelV1

    def recorded(self) -> dict[str, object]:
        """All but the amounts: each row carries its own."""
        return self.settings.model_dump(mode="json", exclude={"amounts"})

    def outcomes(self, train: Features, test: Features, held: np.ndarray | None = None) -> Iterator[Outcome]:
        """One outcome per amount, in the order of the settings. All training features, but only the drawn labels are
        looked at; nothing is chosen, so `held` takes no part.

        Raises:
            DataError: see `evaluation.frozen.check`.
        """
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
            warnings = (*common, *sorted(notes))
            settings = {"labels": amount_title(amount)}
            yield Outcome(np.stack(predicted), {"samples": counts.pop()}, warnings, settings=settings)


def amount_title(amount: float) -> str:
    """`"5 %"` or `"5 per class"`."""
    return f"{100 * amount:g} %" if amount < 1 else f"{amount:g} per class"


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
