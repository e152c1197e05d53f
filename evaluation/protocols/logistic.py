"""The linear probe: logistic regression over a path of C, chosen on training samples that the fit has not seen."""

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
from pydantic import Field

from evaluation.frozen import Features, Outcome, check, few_groups, selection
from evaluation.protocols.base import Progress, Protocol
from evaluation.protocols.logistic_path import IN_MEMORY, LogisticPath, Solution
from zoo.data.splits import folds, group_folds
from zoo.strict import Strict


class LogRegV3(Strict):
    """Multinomial logistic regression on frozen, standardised features; C is cross-validated where samples are few.

    C (scikit-learn's: it multiplies the sum of losses) is chosen from `c_grid` by accuracy on training samples that
    the fit has not seen: the official validation split where there is one; else, where the data names groups such as
    persons, `folds` in turn that never split a group, counted together; else, below `cross_validate_below` training
    samples, stratified `folds`; else a stratified `held_out` part. Without groups the numbers are those of logreg-v2.
    Then the chosen C is fitted on all of them. The smallest best C wins. Values follow each other from small to large;
    once `patience` in a row are hopeless (their accuracy more than two standard errors of the paired difference below
    the best, at a loss below half that of guessing) the rest are skipped.
    Optimiser: preconditioned L-BFGS (evaluation.protocols.logistic_path), to within `tol` of the least loss.
    """

    c_grid: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        default=tuple(10 ** (i / 2) for i in range(-12, 7)), min_length=1, description="values of C to choose from"
    )
    standardise: bool = Field(default=True, description="divide each feature by its deviation first")
    folds: int = Field(default=5, ge=2, description="of the cross-validation")
    cross_validate_below: int = Field(default=10_000, ge=0, description="training samples; from here on, hold out once")
    held_out: float = Field(default=0.1, gt=0, lt=1, description="share of the training split, where held out once")
    patience: int | None = Field(default=3, ge=1, description="hopeless values in a row that end the search; None: all")
    max_iter: int = Field(default=500, ge=1, description="of the optimiser, for each C")
    tol: float = Field(default=1e-4, gt=0, description="distance from the least loss, as a fraction of it")


#: A choice of C on fewer samples is said to be uncertain: one of them is half a per cent.
FEW = 200


class LogisticProbe(Protocol[LogRegV3]):
    """Protocol `logreg-v3`; `LogRegV3` says what it fixes.

    Args:
        settings, seed, precision, progress: as of every `Protocol`.
        device: where to multiply; None is the CPU.
        in_memory: bytes of features up to which a rotated copy is held; above, the table is streamed.
    """

    name = "logreg-v3"
    title = "logistic regression"
    settings_type = LogRegV3
    #: Settings are chosen on whole groups where the data names them.
    respects_groups: ClassVar[bool] = True

    def __init__(
        self,
        settings: LogRegV3 | None = None,
        seed: int = 0,
        *,
        precision: str = "auto",
        progress: Progress | None = None,
        device: str | None = None,
        in_memory: int = IN_MEMORY,
    ) -> None:
        super().__init__(settings, seed, precision=precision, progress=progress)
        self.device, self.in_memory = device, in_memory

    def run(self, train: Features, test: Features, held: np.ndarray | None = None) -> Outcome:
        """Choose C on part of `train` (`held`, if given), fit on all of it, predict `test`. Test labels are not seen.

        Raises:
            DataError: see `evaluation.frozen.check`.
        """
        warnings = list(check(train, test))
        grid = sorted(self.settings.c_grid)
        parts, grouped = self._parts(train, held) if len(grid) > 1 else ([], False)
        start, scores = self._choose(train, parts) if parts else (None, {})
        # Without a held-out sample: the grid's value nearest to scikit-learn's own.
        c = start.c if start is not None else min(grid, key=lambda value: abs(np.log(value)))
        judges = sum(len(part) for _, part in parts)
        if scores and c in (grid[0], grid[-1]):
            warnings.append(f"the chosen C = {c:g} lies at the edge of the grid")
        if grouped:
            warnings += few_groups(train.groups, len(parts))
        if scores and judges < FEW:
            warnings.append(f"C was chosen by the accuracy on {judges} training samples only")
        path = self._path(train, None, self.in_memory)
        if start is not None:
            path.start_from(start)
        solution = path.fit(c, tol=self.settings.tol / 10)
        if not solution.converged:
            warnings.append(f"the final fit stopped after {solution.iterations} iterations, before it converged")
        chosen = {"C": c, "iterations": solution.iterations, "converged": solution.converged}
        if scores:
            chosen |= {"held_out_top1": scores[c], "held_out": judges, "tried": len(scores)}
        return Outcome(solution.predict(test.features), chosen, tuple(warnings))

    def _parts(self, train: Features, held: np.ndarray | None) -> tuple[list[tuple[np.ndarray, np.ndarray]], bool]:
        """Pairs of rows, to fit on and to judge by, and whether groups were kept whole. Empty: nothing to hold out."""
        labels = train.labels
        if held is None and self.respects_groups and train.groups is not None:
            found = group_folds(labels, train.groups, self.settings.folds, self.seed)
            if found:
                return found, True
        if held is None and len(labels) < self.settings.cross_validate_below:
            return folds(labels, self.settings.folds, self.seed), False
        parts = selection(labels, held, self.settings.held_out, self.seed)
        return [] if parts is None else [parts], False

    def _choose(
        self, train: Features, parts: list[tuple[np.ndarray, np.ndarray]]
    ) -> tuple[Solution, dict[float, float]]:
        """The first part's solution at the best C, and accuracy over all parts for each C that was tried."""
        labels = np.concatenate([train.labels[held] for _, held in parts])
        paths = [self._path(train, fit, self.in_memory // len(parts)) for fit, _ in parts]
        scores: dict[float, float] = {}
        best, best_right, hopeless = None, np.zeros(len(labels), dtype=bool), 0
        for c in sorted(self.settings.c_grid):
            solutions = [path.fit(c) for path in paths]
            answers = [s.predict(train.features, held) for s, (_, held) in zip(solutions, parts, strict=True)]
            right = np.concatenate(answers) == labels
            scores[c] = float(right.mean())
            if best is None or right.sum() > best_right.sum():
                best, best_right = solutions[0], right
            lost, won = int((best_right & ~right).sum()), int((right & ~best_right).sum())
            # A sign test on the samples where the two differ. While the fit is hardly better than guessing, accuracy
            # may fall and rise again (class means at tiny C, then nothing yet): only past that can it be hopeless.
            fitted = np.mean([s.loss for s in solutions]) < 0.5 * np.log(len(np.unique(train.labels)))
            hopeless = hopeless + 1 if fitted and lost - won > 2 * np.sqrt(lost + won) else 0
            if hopeless == self.settings.patience:
                break
        assert best is not None
        return best, scores

    def _path(self, train: Features, rows: np.ndarray | None, in_memory: int) -> LogisticPath:
        return LogisticPath(
            train.features,
            train.labels,
            standardise=self.settings.standardise,
            rows=rows,
            max_iter=self.settings.max_iter,
            tol=self.settings.tol,
            device=self.device,
            in_memory=in_memory,
        )
