"""The linear probe by SGD, as papers train it; for comparison with `logreg`, which finds the optimum."""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from evaluation.frozen import Features, Outcome, check, selection
from evaluation.protocols.base import Protocol
from zoo.data.splits import group_folds
from zoo.strict import Strict


class LinearSgdV1(Strict):
    """A linear classifier on frozen features, trained by SGD as SimCLR's linear evaluation (arXiv 2002.05709, B.6).

    Nesterov momentum 0.9, no weight decay, `epochs` passes, the learning rate given per 256 samples of a batch. Ours:
    the classifier starts at zero, the learning rate falls as a cosine to 0 and is chosen from `lr_grid` on a `held_out`
    part of the training split (the official validation split where there is one; whole persons or other groups where
    the data names them), after which the classifier is trained once more on all of it. Features are those of the
    unaugmented samples, where papers crop and flip at random: expect a little less than theirs.
    """

    epochs: int = Field(default=90, ge=1, description="passes over the training split")
    batch_size: int = Field(default=256, ge=2, description="samples a step")
    lr_grid: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        default=(0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0),
        min_length=1,
        description="learning rates per 256 samples to choose from",
    )
    momentum: float = Field(default=0.9, ge=0, lt=1, description="of Nesterov")
    held_out: float = Field(default=0.1, gt=0, lt=1, description="share of the training split that judges the rate")


class LinearSGD(Protocol[LinearSgdV1]):
    """Protocol `linear-sgd-v1`; `LinearSgdV1` says what it fixes."""

    name = "linear-sgd-v1"
    title = "linear probe by SGD"
    settings_type = LinearSgdV1

    def run(self, train: Features, test: Features, held: np.ndarray | None = None) -> Outcome:
        """Choose the learning rate on part of `train`, train on all of it, predict `test`.

        Raises:
            DataError: see `evaluation.frozen.check`.
        """
        warnings = list(check(train, test))
        grid = sorted(self.settings.lr_grid)
        parts = self._parts(train, held) if len(grid) > 1 else None
        rate, chosen = grid[len(grid) // 2], {}
        if parts is not None:
            fit, judges = parts
            answers = self._train(train.take(fit), grid).answers(train.features[judges])
            scores = (answers == train.labels[judges]).mean(axis=1)
            rate, chosen = grid[int(scores.argmax())], {"held_out_top1": float(scores.max()), "held_out": len(judges)}
            if rate in (grid[0], grid[-1]):
                warnings.append(f"the chosen learning rate {rate:g} lies at the edge of the grid")
        trained = self._train(train, [rate])
        if not trained.finite:
            warnings.append(f"training diverged at the learning rate {rate:g}: no sample is classified by it")
        return Outcome(trained.answers(test.features)[0], {"lr": rate, **chosen}, tuple(warnings))

    def _parts(self, train: Features, held: np.ndarray | None) -> tuple[np.ndarray, np.ndarray] | None:
        if held is None and train.groups is not None:
            found = group_folds(train.labels, train.groups, max(2, round(1 / self.settings.held_out)), self.seed)
            if found:
                return found[0]
        return selection(train.labels, held, self.settings.held_out, self.seed)

    def _train(self, part: Features, rates: list[float]) -> _Heads:
        """Classifiers that see the same batches, one for each learning rate."""
        s, classes = self.settings, int(part.labels.max()) + 1
        batch = min(s.batch_size, len(part))
        steps = s.epochs * max(1, len(part) // batch)
        lr = torch.tensor(rates)[:, None, None] * batch / 256
        weight = torch.zeros(len(rates), part.features.shape[1] + 1, classes)
        velocity, rng = torch.zeros_like(weight), np.random.default_rng(self.seed)
        order = np.empty(0, dtype=np.int64)
        for step in range(steps):
            if len(order) < batch:  # an epoch ends: what is left of it comes first in the next
                order = np.concatenate([order, rng.permutation(len(part))])
            drawn, order = np.sort(order[:batch]), order[batch:]
            x, targets = _with_one(part.features[drawn]), torch.from_numpy(part.labels[drawn])
            error = torch.softmax(x @ weight, dim=2)
            error[:, torch.arange(len(drawn)), targets] -= 1
            gradient = x.T @ error / len(drawn)
            velocity = s.momentum * velocity + gradient
            scale = lr * (1 + math.cos(math.pi * step / steps)) / 2
            weight = weight - scale * (gradient + s.momentum * velocity)
        return _Heads(weight)


class _Heads:
    """Linear classifiers `(R, D + 1, K)`; those that diverged answer with the first class."""

    def __init__(self, weight: Tensor) -> None:
        self.finite = bool(torch.isfinite(weight).all())
        self.weight = torch.nan_to_num(weight, nan=0.0, posinf=0.0, neginf=0.0)

    def answers(self, features: np.ndarray) -> np.ndarray:
        """Class indices `(R, N)` for features `(N, D)`."""
        return (_with_one(features) @ self.weight).argmax(dim=2).numpy()


def _with_one(features: np.ndarray) -> Tensor:
    """`(N, D + 1)`: a column of ones carries the bias."""
    x = torch.from_numpy(np.array(features, dtype=np.float32))
    return torch.cat([x, torch.ones(len(x), 1)], dim=1)
