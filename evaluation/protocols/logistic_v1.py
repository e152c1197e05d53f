"""The first linear probe, kept so that numbers measured with it can be repeated; `logistic.py` replaces it."""

from __future__ import annotations

import warnings as python_warnings
from typing import Annotated

import numpy as np
from pydantic import Field

from evaluation.frozen import Features, Outcome, check, selection, standardise, standardiser
from evaluation.protocols.base import Protocol
from zoo.data.splits import held_out
from zoo.strict import Strict


class LogRegV1(Strict):
    """Multinomial logistic regression on frozen, standardised features; superseded by logreg-v3.

    Features are standardised with mean and deviation of the training part. C is chosen on a
    stratified `held_out` part of the training split, from small to large with warm starts, until accuracy has
    fallen twice; at most `select_samples` training samples take part in the choice. The chosen C is fitted once on
    the whole training split. Optimiser: L-BFGS of scikit-learn. Where the held-out part is small (below a few
    hundred samples) two chance falls end the search at a C that is far too small.
    """

    c_grid: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        default=(1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0), min_length=1, description="values of C to choose from"
    )
    held_out: float = Field(default=0.1, gt=0, lt=1, description="share of the training split that judges C")
    select_samples: int = Field(default=10_000, ge=10, description="at most this many samples are fitted to choose C")
    max_iter: int = Field(default=500, ge=1, description="of the optimiser, for each C")
    tol: float = Field(default=1e-4, gt=0, description="scikit-learn's tolerance")


class LogisticProbeV1(Protocol[LogRegV1]):
    """Protocol `logreg-v1`; `LogRegV1` says what it fixes."""

    name = "logreg-v1"
    title = "logistic regression"
    settings_type = LogRegV1

    def run(self, train: Features, test: Features, held: np.ndarray | None = None) -> Outcome:
        """Choose C on part of `train` (`held`, if given), fit on all of it, predict `test`. Test labels are not seen.

        Raises:
            DataError: see `evaluation.frozen.check`.
        """
        warnings = list(check(train, test))
        mean, scale = standardiser(train.features)
        x = standardise(train.features, mean, scale)
        c, scores = self._choose(x, train.labels, held)
        if len(scores) > 1 and c in (self.settings.c_grid[0], self.settings.c_grid[-1]):
            warnings.append(f"the chosen C = {c:g} lies at the edge of the grid")
        model, converged = self._fit(x, train.labels, c, None)
        if not converged:
            warnings.append(f"the final fit stopped at {self.settings.max_iter} iterations, before it converged")
        predicted = model.predict(standardise(test.features, mean, scale))
        chosen = {"C": c, "iterations": int(model.n_iter_.max()), "converged": converged}
        if c in scores:
            chosen["held_out_top1"] = scores[c]
        return Outcome(predicted.astype(np.int64), chosen, tuple(warnings))

    def _choose(
        self, x: np.ndarray, labels: np.ndarray, held: np.ndarray | None = None
    ) -> tuple[float, dict[float, float]]:
        parts = selection(labels, held, self.settings.held_out, self.seed)
        if parts is None:  # nothing can be held out: the grid's value nearest to scikit-learn's own
            return min(self.settings.c_grid, key=lambda c: abs(np.log(c))), {}
        fit, held = parts
        fit = _at_most(fit, labels, self.settings.select_samples, self.seed)
        scores: dict[float, float] = {}
        previous, falls = None, 0
        for c in sorted(self.settings.c_grid):
            previous, _ = self._fit(x[fit], labels[fit], c, previous)
            scores[c] = float((previous.predict(x[held]) == labels[held]).mean())
            # Past the peak accuracy only falls, while fits take ever longer: two falls in a row end the search.
            falls = falls + 1 if scores[c] < max(scores.values()) else 0
            if falls == 2:
                break
        best = max(scores.values())
        return min(c for c, score in scores.items() if score == best), scores

    def _fit(self, x: np.ndarray, labels: np.ndarray, c: float, start):
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression

        model = LogisticRegression(C=c, max_iter=self.settings.max_iter, tol=self.settings.tol, warm_start=True)
        if start is not None:
            model.coef_, model.intercept_, model.classes_ = start.coef_, start.intercept_, start.classes_
        with python_warnings.catch_warnings(record=True) as caught:
            python_warnings.simplefilter("always", ConvergenceWarning)
            model.fit(x, labels)
        return model, not any(issubclass(w.category, ConvergenceWarning) for w in caught)


def _at_most(indices: np.ndarray, labels: np.ndarray, samples: int, seed: int) -> np.ndarray:
    if len(indices) <= samples:
        return indices
    _, kept = held_out(labels[indices], samples / len(indices), seed)
    return indices[kept]
