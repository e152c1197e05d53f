"""The first linear probe, kept so that the numbers measured with it can be repeated; `evaluation.probe` replaces it."""

from __future__ import annotations

import warnings as python_warnings

import numpy as np

from evaluation.inputs import Features, Outcome, check, selection
from evaluation.protocol import LogRegV1
from evaluation.scaling import standardise, standardiser
from zoo.data.splits import held_out


class LogisticProbeV1:
    """Protocol `logreg-v1`; see `evaluation.protocol.LogRegV1` for what it fixes.

    Args:
        settings: grid, held-out fraction, iterations, tolerance.
        seed: of the held-out split.
    """

    def __init__(self, settings: LogRegV1 | None = None, seed: int = 0) -> None:
        self.settings, self.seed = settings or LogRegV1(), seed

    def run(self, train: Features, test: Features, held: np.ndarray | None = None) -> Outcome:
        """Choose C on part of `train` (`held`, if given), fit on all of it, predict `test`. Test labels are not seen.

        Raises:
            DataError: see `evaluation.inputs.check`.
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
