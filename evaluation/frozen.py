"""Frozen features, what a protocol finds on them, and what every protocol checks before it starts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from zoo.checkpoint.results import Metric
from zoo.data.base import Dataset
from zoo.data.labels import class_indices
from zoo.data.splits import held_out
from zoo.encoder import Encoder
from zoo.errors import DataError
from zoo.features.extract import extract_cached


def cached_features(
    encoder: Encoder,
    dataset: Dataset,
    *,
    precision: str = "auto",
    device: str | None = None,
    batch_size: int = 256,
    workers: int | None = None,
    folder: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> np.ndarray:
    """`(N, num_features)` float32, mapped from `folder` (default $ZOO_CACHE/features), extracted where missing.

    The file's name is a hash of the weights in memory, the network, the preprocessing, the content of the split,
    the precision and the batch size: whatever changes one of them makes another file. Nothing of the table's size
    is held in memory, and a killed extraction goes on where it stopped.

    Raises:
        InputError, DataError: as `zoo.extract`.
    """
    return extract_cached(
        encoder, dataset, batch_size=batch_size, device=device, precision=precision, workers=workers, folder=folder,
        progress=progress,
    ).features  # fmt: skip


#: Kinds of groups whose members are alike, the first that is known counts. A camera or a setup is shared by strangers.
GROUPS = ("person", "video", "product", "object")
#: A choice over fewer groups than this is said to be uncertain.
FEW_GROUPS = 5
#: Rows checked at once: a table larger than memory is never copied.
ROWS = 16_384


@dataclass(frozen=True)
class Features:
    """One split as a protocol sees it.

    Attributes:
        features: `(N, D)` float32, maybe a memory map.
        labels: `(N,)` class indices of any integer dtype; kept as int64. Raises DataError if they are none.
        dataset: the samples themselves, for protocols that train the network; None where only features are known.
        network: what made the features; None for raw input.
        groups: `(N,)` int64, samples that are alike beyond their class (see `groups_of`); None where that is unknown.
    """

    features: np.ndarray
    labels: np.ndarray
    dataset: Dataset | None = None
    network: Encoder | None = None
    groups: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.labels is not None:  # `check` says what is missing then
            object.__setattr__(self, "labels", class_indices(self.labels, "a split"))

    def take(self, indices: np.ndarray) -> Features:
        """Some of the samples, without the dataset behind them."""
        groups = None if self.groups is None else self.groups[indices]
        return Features(self.features[indices], self.labels[indices], groups=groups)

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Outcome:
    """What a protocol found.

    Attributes:
        predicted: class indices of the test split, `(N,)`, or `(draws, N)` where the protocol draws training samples
            several times; None where nothing is classified.
        chosen: what was selected on training data.
        warnings: sentences a reader must see next to the number.
        metrics: numbers that do not follow from `predicted`.
        settings: what tells several outcomes of one protocol apart, such as `{"labels": "5 %"}`.
        samples: metric -> `(M,)` values whose mean it is, one for each sample that is judged, NaN for a sample that
            takes no part. Of the same samples for every encoder, so that encoders can be compared in pairs.
        of_test_samples: `samples` are those of the test split in its order, so that its groups are theirs; False where
            a protocol judges something else, such as episodes.
    """

    predicted: np.ndarray | None
    chosen: dict[str, float | int | bool]
    warnings: tuple[str, ...]
    metrics: dict[str, Metric] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    samples: dict[str, np.ndarray] = field(default_factory=dict)
    of_test_samples: bool = True


def check(train: Features, test: Features) -> tuple[str, ...]:
    """Refuse what no protocol can use; return warnings for what it can.

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
        blocks = range(0, len(part.features), ROWS)
        bad = sum(int((~np.isfinite(part.features[start : start + ROWS]).all(axis=1)).sum()) for start in blocks)
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


def groups_of(dataset: Dataset) -> np.ndarray | None:
    """`(N,)` group of each sample where the reader knows one of `GROUPS`, such as the person who moves; else None.

    Samples of one group are alike in ways that have nothing to do with their class, so that they are no independent
    evidence: they are held out together, and drawn together when an interval is made.
    """
    return next((dataset.groups[kind] for kind in GROUPS if kind in dataset.groups), None)


def selection(labels: np.ndarray, held: np.ndarray | None, fraction: float, seed: int) -> tuple | None:
    """The part to fit on and the part to choose settings on, sorted indices; None where nothing can be held out.

    Args:
        held: the official validation part, if there is one. fraction, seed: of a stratified draw otherwise.
    """
    if held is not None:
        return np.setdiff1d(np.arange(len(labels), dtype=np.int64), held), np.sort(held)
    if np.bincount(labels).max() < 2:
        return None
    return held_out(labels, fraction, seed)


def few_groups(groups: np.ndarray | None, folds: int) -> list[str]:
    """What a reader must know of settings that were chosen on whole groups: that there were few."""
    count = 0 if groups is None else len(np.unique(groups))
    return [f"settings were chosen on {folds} folds of {count} groups only"] if count < FEW_GROUPS else []


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


def standardiser(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of each column of `(N, D)`, float64; the deviation of a constant column is infinite."""
    mean = features.mean(axis=0, dtype=np.float64)
    scale = features.std(axis=0, dtype=np.float64)
    return mean, divisor(mean, scale)


def divisor(mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """`deviation`, infinite for a constant column: that stays zero, where dividing by its rounding noise would not."""
    return np.where(deviation > 1e-7 * np.maximum(1, np.abs(mean)), deviation, np.inf)


def standardise(features: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """`(N, D)` float32 with the mean and deviation that `standardiser` gave."""
    return ((features - mean.astype(np.float32)) / scale.astype(np.float32)).astype(np.float32)


def unit(features: np.ndarray) -> np.ndarray:
    """`(N, D)` rows scaled to length 1, float32; a row of zeros stays."""
    x = np.asarray(features, dtype=np.float32)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
