"""Two parts of a dataset side by side: do they fit together, and what was understood, before anything is computed."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence

import numpy as np

from zoo.data.base import NOUNS, Dataset, FileDataset, Remaining, Subset, classes_text
from zoo.data.joined import Joined
from zoo.data.labels import check_look_alikes
from zoo.errors import DataError, DataWarning


def check_pair(train: Dataset, test: Dataset) -> None:
    """Refuse a training and a test part that cannot be measured against each other.

    Raises:
        DataError: no labels; samples that both parts hold (the very same ones, not copies); other classes, or classes
            of the test part that no training sample has; all by name.
    """
    for part in (train, test):
        if part.labels is None:
            raise DataError(
                f"{part.name}/{part.split} has no labels; a probe needs them (class folders give labels). `zoo look` "
                "tells what can be told without"
            )
    shared = sorted(set(_origins(train)) & set(_origins(test)))
    if shared:
        raise DataError(
            f"{train.split} and {test.split} of {test.name} share {len(shared):,} of {len(test):,} samples, such as "
            f"{shared[0][1]}; a test says nothing about samples that were trained on, so choose parts that share none"
        )
    if train.class_names != test.class_names:
        check_look_alikes({train.split: train.class_names, test.split: test.class_names}, test.name)
        ours, theirs = set(train.class_names), set(test.class_names)
        if ours == theirs:
            raise DataError(f"{test.name}: {train.split} and {test.split} list the same classes in another order")
        raise DataError(
            f"{test.name}: the parts have different classes: only in {train.split} {_some(ours - theirs)}, "
            f"only in {test.split} {_some(theirs - ours)}"
        )
    unseen = np.setdiff1d(test.labels, train.labels)
    if len(unseen):
        names = [test.class_names[i] for i in unseen]
        raise DataError(
            f"{test.name}: {len(names)} classes of {test.split} have no sample in {train.split}: {_some(names)}; add "
            "samples or leave these classes out"
        )


def describe(*parts: Dataset) -> str:
    """One line that says what was understood of a dataset.

    Such as `2,640 images, 81 classes (Apple, ...), train 2,112 / test 528, 3 files left out: 2 .heic, 1 .txt`.
    """
    total = sum(map(len, parts))
    pieces = [f"{total:,} {NOUNS[parts[0].modality][total != 1]}"]
    names = list(dict.fromkeys(name for part in parts for name in part.class_names))
    pieces.append(classes_text(names) if names else "no labels")
    if [part.split for part in parts] != ["all"]:
        pieces.append(" / ".join(f"{part.split} {len(part):,}" for part in parts))
    left: dict[str, set[str]] = {}
    notes: list[str] = []
    for part in parts:
        # Parts that were drawn by chance share what their whole left out.
        home = part.parent.split if isinstance(part, Subset) else part.split
        for reason, found in part.report.left.items():
            left.setdefault(reason, set()).update(f"{home}/{name}" for name in found)
        notes += [note for note in part.report.notes if note not in notes]
    if left:
        count = sum(map(len, left.values()))
        reasons = ", ".join(f"{len(found):,} {reason}" for reason, found in left.items())
        pieces.append(f"{count:,} {'file' if count == 1 else 'files'} left out: {reasons}")
    return "; ".join((", ".join(pieces), *notes))


def opened(parts: Callable[[], Sequence[Dataset]], say: Callable[[str], None] | None) -> list[Dataset]:
    """Open parts of a dataset, and say what was understood in one line instead of a warning for each part.

    Args:
        parts: opens them.
        say: takes the line of `describe`; None leaves it at the warnings.
    """
    with warnings.catch_warnings():
        if say is not None:
            warnings.simplefilter("ignore", DataWarning)
        found = list(parts())
    if say is not None:
        say(describe(*found))
    return found


def _origins(data: Dataset) -> Sequence[tuple[str, str]]:
    """Where each sample comes from, as a place and a key; the same sample has the same pair in every part."""
    if isinstance(data, (Subset, Remaining)):
        whole = _origins(data.parent)
        return [whole[i] for i in data.indices.tolist()]
    if isinstance(data, Joined):
        return [origin for part in data.parts for origin in _origins(part)]
    if isinstance(data, FileDataset):
        return [("file", os.path.realpath(path)) for path in data.paths]
    return [(data.home or f"{data.name}/{data.split}", key) for key in data.keys]


def _some(names: Sequence[str] | set[str]) -> str:
    shown = sorted(names)
    return (", ".join(map(repr, shown[:5])) + (", ..." if len(shown) > 5 else "")) or "none"
