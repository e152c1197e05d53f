"""What every evaluator checks before it starts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zoo.errors import DataError


@dataclass(frozen=True)
class Features:
    """Frozen features `(N, D)` float32 and class indices `(N,)` int64 of one split."""

    features: np.ndarray
    labels: np.ndarray

    def take(self, indices: np.ndarray) -> Features:
        """Some of the samples."""
        return Features(self.features[indices], self.labels[indices])

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Outcome:
    """Predictions `(N,)` for the test split, what was chosen on training data, and what to warn of."""

    predicted: np.ndarray
    chosen: dict[str, float | int | bool]
    warnings: tuple[str, ...]


def check(train: Features, test: Features) -> tuple[str, ...]:
    """Refuse what no evaluator can use; return warnings for what it can.

    Raises:
        DataError: no labels, lengths that differ, NaN, one class only, test classes never trained on.
    """
    for part, name in ((train, "training"), (test, "test")):
        if part.labels is None:
            raise DataError(f"the {name} split has no labels; a probe needs them (class folders give labels)")
        if len(part.features) != len(part.labels) or part.features.ndim != 2 or not len(part.labels):
            raise DataError(
                f"the {name} split has features {part.features.shape} for {len(part.labels)} labels; "
                "expected (N, D) features and N labels, N > 0"
            )
        bad = int((~np.isfinite(part.features).all(axis=1)).sum())
        if bad:
            raise DataError(f"{bad} of {len(part.labels)} {name} features hold NaN or infinite values")
    if train.features.shape[1] != test.features.shape[1]:
        raise DataError(
            f"training features have {train.features.shape[1]} columns, test features {test.features.shape[1]}; "
            "extract both with the same encoder"
        )
    classes = np.unique(train.labels)
    if len(classes) < 2:
        raise DataError(f"the training split holds one class only ({classes[0]}); a probe needs at least two")
    unseen = np.setdiff1d(test.labels, classes)
    if len(unseen):
        raise DataError(
            f"test classes {unseen.tolist()[:10]} do not occur in the training split; are the splits right?"
        )
    return _warnings(train)


def _warnings(train: Features) -> tuple[str, ...]:
    found = []
    counts = np.bincount(train.labels)
    single = int((counts == 1).sum())
    if single:
        found.append(f"{single} classes have one training sample: they take no part in choosing settings")
    # Not the deviation: in float32 that of a constant 0.1 over many samples is rounding noise, not zero.
    constant = int((train.features.max(axis=0) == train.features.min(axis=0)).sum())
    if constant == train.features.shape[1]:
        found.append("all features are constant: the encoder has collapsed")
    elif constant:
        found.append(f"{constant} of {train.features.shape[1]} features are constant over the training split")
    return tuple(found)
