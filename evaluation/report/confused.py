"""Which classes are taken for which: the most confused pairs with pictures, and a table of all classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.report.drawing import FAINT, Figure, canvas, class_name, png, style, wrapped
from evaluation.report.neighbours import draw_tile, tile
from zoo.data.base import Dataset

#: Inches: side of a tile, between tiles, between the two halves, heading of a row, of the sheet.
SIDE, SPACE, GAP, TITLE, HEAD = 0.85, 0.07, 0.4, 0.3, 0.35
#: Inches of a line of a name, and characters that fit over one tile.
LINE, WIDTH = 0.16, 10


@dataclass(frozen=True)
class ClassRow:
    """One class of the test split: its samples, the share that is right, and what it is most often taken for."""

    name: str
    samples: int
    right: float
    taken_for: str
    times: int


def class_rows(true: np.ndarray, predicted: np.ndarray, class_names: Sequence[str] = ()) -> list[ClassRow]:
    """One row for each class that occurs, the hardest first.

    Args:
        true, predicted: `(N,)` class indices.
    """
    pairs, times = wrong_pairs(true, predicted)
    wrong: dict[int, int] = {}
    most: dict[int, tuple[int, int]] = {}
    for (label, other), count in zip(pairs.tolist(), times.tolist(), strict=True):
        wrong[label] = wrong.get(label, 0) + count
        most.setdefault(label, (other, count))
    labels, samples = np.unique(true, return_counts=True)
    rows = []
    for label, count in zip(labels.tolist(), samples.tolist(), strict=True):
        other, confused = most.get(label, (None, 0))
        rows.append(
            ClassRow(
                name=class_name(class_names, label),
                samples=count,
                right=1 - wrong.get(label, 0) / count,
                taken_for="" if other is None else class_name(class_names, other),
                times=confused,
            )
        )
    return sorted(rows, key=lambda row: (row.right, row.name))


def wrong_pairs(true: np.ndarray, predicted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`(P, 2)` true class and the class it was taken for, and `(P,)` how often; the most frequent first.

    Its cost is that of the samples, not of all pairs of classes: there may be a million classes.
    """
    wrong = true != predicted
    pairs, times = np.unique(np.stack([true[wrong], predicted[wrong]], axis=1), axis=0, return_counts=True)
    order = np.argsort(-times, kind="stable")
    return pairs[order], times[order]


def confused_pairs(
    true: np.ndarray,
    predicted: np.ndarray,
    dataset: Dataset,
    *,
    pairs: int = 6,
    shown: int = 3,
    name: str = "confused_pairs",
) -> Figure | None:
    """The pairs of classes that are confused most often, with test images of both.

    Args:
        true, predicted: `(N,)` class indices, row i belongs to sample i of `dataset`.
        pairs: rows of the sheet. shown: images on each side, the first ones of the split.

    Returns:
        None where samples are not images or nothing is confused.
    """
    if dataset.modality != "image" or not len(true):
        return None
    found, times = wrong_pairs(true, predicted)
    if not len(found):
        return None
    chosen = [(int(a), int(b), int(n)) for (a, b), n in zip(found[:pairs], times[:pairs], strict=True)]
    with style():
        picture = _sheet(true, predicted, dataset, chosen, shown)
    first, second, most = chosen[0]
    names = dataset.class_names
    caption = (
        f"The {len(chosen)} pairs of classes that are confused most often. Left: {dataset.split} images of one class "
        f"that were taken for the other. Right: {dataset.split} images of that other class. Most often: "
        f"{class_name(names, first)}, taken for {class_name(names, second)} {most} of {int((true == first).sum())} "
        "times."
    )
    return Figure(name, picture, caption, f"Images of {len(chosen)} pairs of classes that are confused most often.")


def _sheet(
    true: np.ndarray, predicted: np.ndarray, dataset: Dataset, chosen: Sequence[tuple[int, int, int]], shown: int
) -> bytes:
    names = dataset.class_names
    texts = [
        (f"{class_name(names, a)} ({times} of {int((true == a).sum())})", class_name(names, b))
        for a, b, times in chosen
    ]
    # A half is as wide as its pictures, and a name as many lines as it needs there.
    texts = [tuple(wrapped(text, WIDTH * shown) for text in pair) for pair in texts]
    titles = [LINE * (1 + max(text.count("\n") for text in pair)) + TITLE - LINE for pair in texts]
    width = 2 * shown * (SIDE + SPACE) + GAP + SPACE
    height = len(chosen) * (SIDE + SPACE) + sum(titles) + HEAD
    sheet = canvas(width, height)
    right = SPACE + shown * (SIDE + SPACE) + GAP
    for left, text in ((SPACE, "these"), (right, "were taken for these")):
        sheet.text(left / width, 1 - HEAD / 2 / height, text, va="center", weight="bold")
    for row, (a, b, _) in enumerate(chosen):
        top = height - HEAD - row * (SIDE + SPACE) - sum(titles[:row])
        wrong = np.flatnonzero((true == a) & (predicted == b))[:shown]
        others = np.flatnonzero(true == b)[:shown]
        for left, text, indices in ((SPACE, texts[row][0], wrong), (right, texts[row][1], others)):
            sheet.text(left / width, (top - titles[row] / 2) / height, text, va="center", fontsize=9)
            for column, index in enumerate(indices):
                place = left + column * (SIDE + SPACE)
                axes = sheet.add_axes((place / width, (top - titles[row] - SIDE) / height, SIDE / width, SIDE / height))
                draw_tile(axes, tile(dataset.sample(int(index))), "", None)
    rule = sheet.add_axes(((right - GAP / 2 - SPACE / 2) / width, SPACE / height, 0.01 / width, 1 - 2 * SPACE / height))
    rule.set(xticks=[], yticks=[], facecolor=FAINT)
    rule.spines[:].set_visible(False)
    return png(sheet)
