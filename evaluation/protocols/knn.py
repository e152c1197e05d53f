"""The kNN probe: weighted votes of the nearest training features."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from pydantic import Field

from evaluation.frozen import Features, Outcome, check, few_groups, selection
from evaluation.protocols.base import Protocol
from zoo.data.splits import group_folds, held_out
from zoo.errors import DataError
from zoo.strict import Strict


class KnnV2(Strict):
    """Weighted k-nearest neighbours on L2-normalised features.

    Cosine similarity s, votes weighted by exp(s / `temperature`), as Wu et al. 2018 (arXiv 1805.01978,
    section 3.4). k is chosen on the official validation split where there is one; else, where the data names groups
    such as persons, over `folds` that never split a group, counted together; else on a stratified `held_out` part of
    the training split. At most `select_samples` samples of each part are classified; then all training samples vote.
    Without groups the numbers are those of knn-v1.
    """

    k_grid: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(1, 5, 10, 20, 50, 200), min_length=1, description="numbers of neighbours to choose from"
    )
    temperature: float = Field(default=0.1, gt=0, description="of the weights of the votes")
    held_out: float = Field(default=0.1, gt=0, lt=1, description="share of the training split that k is chosen on")
    select_samples: int = Field(default=5_000, ge=10, description="at most this many samples of a part choose k")
    folds: int = Field(default=5, ge=2, description="where the data names groups")


#: Similarities held at once: bounds memory at 64 MiB.
BLOCK = 1 << 24


class KNNProbe(Protocol[KnnV2]):
    """Protocol `knn-v2`; `KnnV2` says what it fixes."""

    name = "knn-v2"
    title = "weighted kNN"
    settings_type = KnnV2

    def run(self, train: Features, test: Features, held: np.ndarray | None = None) -> Outcome:
        """Choose k on part of `train` (`held`, if given), then let all of it vote on `test`. Test labels are not seen.

        Raises:
            DataError: see `evaluation.frozen.check`; or a single k above the number of training samples.
        """
        warnings = list(check(train, test))
        grid = [k for k in sorted(self.settings.k_grid) if k <= len(train)]
        if not grid:
            raise DataError(
                f"k = {min(self.settings.k_grid)} exceeds the {len(train)} training samples; give a smaller k"
            )
        if len(grid) < len(self.settings.k_grid):
            warnings.append(f"k above {grid[-1]} left out: there are {len(train)} training samples")
        parts = self._parts(train, held) if len(grid) > 1 else []
        k, score = self._choose(train, grid, parts)
        if len(parts) > 1:
            warnings += few_groups(train.groups, len(parts))
        if len(grid) > 1 and k == grid[-1]:
            warnings.append(f"the chosen k = {k} lies at the upper edge of the grid")
        predicted = classify(train, test.features, [k], self.settings.temperature)[k]
        return Outcome(predicted, {"k": k} | ({} if score is None else {"held_out_top1": score}), tuple(warnings))

    def _parts(self, train: Features, held: np.ndarray | None) -> list[tuple[np.ndarray, np.ndarray]]:
        """Pairs of rows: voters and those who are classified. Empty where nothing can be held out."""
        if held is None and train.groups is not None:
            found = group_folds(train.labels, train.groups, self.settings.folds, self.seed)
            if found:
                return found
        parts = selection(train.labels, held, self.settings.held_out, self.seed)
        return [] if parts is None else [parts]

    def _choose(
        self, train: Features, grid: list[int], parts: list[tuple[np.ndarray, np.ndarray]]
    ) -> tuple[int, float | None]:
        smallest, grid = grid[0], [k for k in grid if all(k <= len(rest) for rest, _ in parts)]
        if len(grid) < 2 or not parts:  # nothing to choose between; a k that a person fixed stays as it is
            return smallest, None
        right, judges = dict.fromkeys(grid, 0), 0
        for rest, held in parts:
            if len(held) > self.settings.select_samples:
                _, part = held_out(train.labels[held], self.settings.select_samples / len(held), self.seed)
                held = held[part]
            votes = classify(train.take(rest), train.features[held], grid, self.settings.temperature)
            judges += len(held)
            for k in grid:
                right[k] += int((votes[k] == train.labels[held]).sum())
        best = max(grid, key=lambda k: (right[k], -k))
        return best, right[best] / judges


def classify(train: Features, queries: np.ndarray, ks: list[int], temperature: float) -> dict[int, np.ndarray]:
    """Predictions `(len(queries),)` for each k in `ks`.

    Args:
        train: the voters. queries: `(M, D)` float32. temperature: of the vote weights exp(s / temperature).
    """
    bank = torch.nn.functional.normalize(torch.from_numpy(np.array(train.features, dtype=np.float32)), dim=1)
    labels = torch.from_numpy(train.labels)
    classes = int(labels.max()) + 1
    step = max(1, BLOCK // len(bank))
    found: dict[int, list[torch.Tensor]] = {k: [] for k in ks}
    for start in range(0, len(queries), step):
        part = torch.from_numpy(np.array(queries[start : start + step], dtype=np.float32))
        similarity, index = (torch.nn.functional.normalize(part, dim=1) @ bank.T).topk(max(ks), dim=1)
        # Relative to the nearest neighbour, so that small temperatures do not overflow.
        weights = ((similarity - similarity[:, :1]) / temperature).exp()
        for k in ks:
            votes = torch.zeros(len(part), classes).scatter_add_(1, labels[index[:, :k]], weights[:, :k])
            found[k].append(votes.argmax(dim=1))
    return {k: torch.cat(parts).numpy() for k, parts in found.items()}
