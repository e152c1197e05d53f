"""Honest splits: held-out parts, folds and samples per class, the same on every platform."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from numbers import Integral

import numpy as np

from zoo.errors import DataError


def held_out(
    labels_or_n: np.ndarray | Sequence[int] | int, fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Split 0..N-1 in two: `(rest, held)`, sorted int64 indices, the same on every platform.

    Args:
        labels_or_n: `(N,)` labels for a stratified split, or N for a plain one.
        fraction: share of `held`, strictly between 0 and 1. Every class with at least two samples
            keeps at least one in both parts; a class with a single sample stays in `rest`.
        seed: a non-negative integer.

    Raises:
        DataError: a fraction outside (0, 1), or too few samples for two parts.
    """
    if not 0 < fraction < 1:
        raise DataError(f"the held-out fraction must lie strictly between 0 and 1, got {fraction}")
    if seed < 0:
        raise DataError(f"the seed must be a non-negative integer, got {seed}")
    if isinstance(labels_or_n, Integral):
        groups = np.zeros(int(labels_or_n), dtype=np.int64)
    else:
        groups = np.unique(np.asarray(labels_or_n), return_inverse=True)[1].reshape(-1)
    held = []
    for members in _shuffled(groups, seed):
        if len(members) >= 2:
            count = min(max(round(fraction * len(members)), 1), len(members) - 1)
            held.append(members[:count])
    if not held:
        raise DataError(
            f"cannot hold out {fraction:.0%} of {len(groups)} samples: no class has two; "
            "add samples, or pass their number instead of labels for a split without classes"
        )
    indices = np.sort(np.concatenate(held)).astype(np.int64)
    return np.setdiff1d(np.arange(len(groups), dtype=np.int64), indices, assume_unique=True), indices


def at_most(labels: np.ndarray | Sequence[int] | None, samples: int, limit: int, seed: int) -> np.ndarray:
    """`limit` of `samples` indices, sorted: stratified by `labels` where there are any, all where there are no more.

    The part of `held_out`, from which samples of the largest classes are left out until it is small enough.

    Args:
        labels: `(samples,)`, or None. seed: a non-negative integer.
    """
    if samples <= limit:
        return np.arange(samples, dtype=np.int64)
    groups = np.zeros(samples, dtype=np.int64) if labels is None else np.asarray(labels)
    _, kept = held_out(groups if labels is not None else samples, limit / samples, seed)
    members = list(_shuffled(np.unique(groups[kept], return_inverse=True)[1].reshape(-1), seed))
    sizes = [len(part) for part in members]
    for _ in range(len(kept) - limit):
        sizes[int(np.argmax(sizes))] -= 1
    return np.sort(kept[np.concatenate([part[:size] for part, size in zip(members, sizes, strict=True)])])


def folds(labels: np.ndarray | Sequence[int], count: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Stratified cross-validation: for each fold `(rest, held)`, sorted int64 indices, the same on every platform.

    Args:
        labels: `(N,)`. Each sample is held once, but a class with a single sample stays in every `rest`; every class
            keeps at least one sample in every `rest`.
        count: at least 2. Fewer folds come back where there are fewer samples to hold, none where there are none.
        seed: a non-negative integer.

    Raises:
        DataError: a count below 2 or a negative seed.
    """
    if count < 2 or seed < 0:
        raise DataError(f"folds needs a count of at least 2 and a non-negative seed, got {count} and {seed}")
    groups = np.unique(np.asarray(labels), return_inverse=True)[1].reshape(-1)
    # One deal over all classes in turn, so that classes smaller than `count` do not pile up in the first folds.
    dealt = [members for members in _shuffled(groups, seed) if len(members) >= 2]
    order = np.concatenate(dealt) if dealt else np.empty(0, dtype=np.int64)
    held = [np.sort(order[fold::count]).astype(np.int64) for fold in range(count)]
    everything = np.arange(len(groups), dtype=np.int64)
    return [(np.setdiff1d(everything, part, assume_unique=True), part) for part in held if len(part)]


def group_folds(
    labels: np.ndarray | Sequence[int], groups: np.ndarray | Sequence[int], count: int, seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Cross-validation that never splits a group: for each fold `(rest, held)`, sorted int64 indices.

    Classes are spread over folds as evenly as whole groups allow (scikit-learn's StratifiedGroupKFold).

    Args:
        labels: `(N,)` class indices. groups: `(N,)`, such as the person who moves.
        count: at least 2. With fewer groups than that, each group is a fold of its own; with one group there is none.
        seed: of the order of groups, a non-negative integer.

    Raises:
        DataError: a count below 2 or a negative seed.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    if count < 2 or seed < 0:
        raise DataError(f"folds needs a count of at least 2 and a non-negative seed, got {count} and {seed}")
    labels, groups = np.asarray(labels), np.asarray(groups)
    count = min(count, len(np.unique(groups)))
    if count < 2:
        return []
    with warnings.catch_warnings():
        # A class with fewer samples than folds is no fault here: each sample is still held once.
        warnings.filterwarnings("ignore", message="The least populated class")
        parts = list(StratifiedGroupKFold(count, shuffle=True, random_state=seed).split(labels, labels, groups))
    return [(np.sort(rest).astype(np.int64), np.sort(held).astype(np.int64)) for rest, held in parts if len(held)]


def per_class(labels: np.ndarray | Sequence[int], count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """`count` samples of each class and the rest: sorted int64 indices, the same on every platform.

    Args:
        labels: `(N,)`. count: a smaller class gives all it has. seed: a non-negative integer.
    """
    groups = np.unique(np.asarray(labels), return_inverse=True)[1].reshape(-1)
    taken = np.sort(np.concatenate([members[:count] for members in _shuffled(groups, seed)])).astype(np.int64)
    return taken, np.setdiff1d(np.arange(len(groups), dtype=np.int64), taken, assume_unique=True)


def _shuffled(groups: np.ndarray, seed: int) -> list[np.ndarray]:
    """The indices of each group, in random order."""
    # Raw PCG64 output is guaranteed stable across numpy versions; Generator.permutation is not.
    ranks = np.argsort(np.random.PCG64(seed).random_raw(len(groups)), kind="stable")
    order = np.argsort(groups[ranks], kind="stable")
    starts = np.flatnonzero(np.diff(groups[ranks][order])) + 1
    return np.split(ranks[order], starts)


_ROLE = re.compile(r"(?<![a-z])(trainval|training|train|validation|valid|val|testing|test|tr|te)(?![a-z])")


def are_counterparts(split: str, other: str) -> bool:
    """Whether two splits should share no sample: names that differ in their role alone, as `xsub-train`, `xsub-test`.

    `trainval` holds `train` and `val`, and `all` holds everything, so these are no counterparts.
    """
    found = [_ROLE.search(name) for name in (split, other)]
    if not all(found) or _ROLE.sub("*", split) != _ROLE.sub("*", other):
        return False
    roles = {match[0] for match in found if match is not None}
    return len(roles) == 2 and ("trainval" not in roles or bool(roles & {"test", "testing"}))
