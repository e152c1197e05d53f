"""The fast linear probe: a whole path of C for about the price of a few fits."""

from __future__ import annotations

import numpy as np

from evaluation.inputs import Features, Outcome, check, selection
from evaluation.logistic_path import IN_MEMORY, LogisticPath, Solution
from evaluation.protocol import LogRegPathV1


class PathProbe:
    """Protocols `logreg-path-v1` and `transfer-v1`; see `evaluation.protocol` for what they fix.

    Args:
        settings: grid, standardisation, patience, tolerance.
        seed: of the held-out split.
        device: where to multiply; None is the CPU.
        in_memory: bytes of features up to which a rotated copy is held; above, the table is streamed.
    """

    def __init__(
        self,
        settings: LogRegPathV1 | None = None,
        seed: int = 0,
        *,
        device: str | None = None,
        in_memory: int = IN_MEMORY,
    ) -> None:
        self.settings, self.seed = settings or LogRegPathV1(), seed
        self.device, self.in_memory = device, in_memory

    def run(self, train: Features, test: Features, held: np.ndarray | None = None) -> Outcome:
        """Choose C on part of `train` (`held`, if given), fit on all of it, predict `test`. Test labels are not seen.

        Raises:
            DataError: see `evaluation.inputs.check`.
        """
        warnings = list(check(train, test))
        grid = sorted(self.settings.c_grid)
        parts = selection(train.labels, held, self.settings.held_out, self.seed) if len(grid) > 1 else None
        start, scores = self._choose(train, *parts) if parts is not None else (None, {})
        # Without a held-out sample: the grid's value nearest to scikit-learn's own.
        c = start.c if start is not None else min(grid, key=lambda value: abs(np.log(value)))
        if scores and c in (grid[0], grid[-1]):
            warnings.append(f"the chosen C = {c:g} lies at the edge of the grid")
        path = self._path(train, None)
        if start is not None:
            path.start_from(start)
        solution = path.fit(c, tol=self.settings.tol / 10)
        if not solution.converged:
            warnings.append(f"the final fit stopped after {solution.iterations} iterations, before it converged")
        chosen = {"C": c, "iterations": solution.iterations, "converged": solution.converged}
        if scores:
            chosen |= {"held_out_top1": scores[c], "tried": len(scores)}
        return Outcome(solution.predict(test.features), chosen, tuple(warnings))

    def _choose(self, train: Features, fit: np.ndarray, held: np.ndarray) -> tuple[Solution, dict[float, float]]:
        """The solution at the best C, and held-out accuracy for each C that was tried."""
        labels = train.labels[held]
        scores: dict[float, float] = {}
        best, best_right, hopeless = None, np.zeros(len(held), dtype=bool), 0
        for solution in self._path(train, fit).path(self.settings.c_grid):
            right = solution.predict(train.features, held) == labels
            scores[solution.c] = float(right.mean())
            if best is None or right.sum() > best_right.sum():
                best, best_right = solution, right
            lost, won = int((best_right & ~right).sum()), int((right & ~best_right).sum())
            # A sign test on the samples where the two differ. While the fit is hardly better than guessing, accuracy
            # may fall and rise again (class means at tiny C, then nothing yet): only past that can it be hopeless.
            fitted = solution.loss < 0.5 * np.log(len(np.unique(train.labels)))
            hopeless = hopeless + 1 if fitted and lost - won > 2 * np.sqrt(lost + won) else 0
            if hopeless == self.settings.patience:
                break
        assert best is not None
        return best, scores

    def _path(self, train: Features, rows: np.ndarray | None) -> LogisticPath:
        return LogisticPath(
            train.features,
            train.labels,
            standardise=self.settings.standardise,
            rows=rows,
            max_iter=self.settings.max_iter,
            tol=self.settings.tol,
            device=self.device,
            in_memory=self.in_memory,
        )
