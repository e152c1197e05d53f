"""Which classes are taken for which: the most confused pairs with pictures, and a table of all classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.report.drawing import FAINT, Figure, canvas, class_name, png, style
from evaluation.report.neighbours import draw_tile, tile
from zoo.data.base import Dataset

#: Inches: side of a tile, between tiles, between the two halves, heading of a row, of the sheet.
SIDE, SPACE, GAP, TITLE, HEAD = 0.85, 0.07, 0.4, 0.3, 0.35


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
    counts = confusions(true, predicted)
    rows = []
    for label in np.unique(true):
        wrong = counts[label].copy()
        wrong[label] = 0
        other, samples = int(wrong.argmax()), int(counts[label].sum())
        rows.append(
            ClassRow(
                name=class_name(class_names, int(label), 60),
                samples=samples,
                right=counts[label, label] / samples,
                taken_for=class_name(class_names, other, 60) if wrong[other] else "",
                times=int(wrong[other]),
            )
        )
    return sorted(rows, key=lambda row: (row.right, row.name))


def confusions(true: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """`(K, K)` counts, rows true, columns predicted."""
    classes = int(max(true.max(), predicted.max())) + 1
    counts = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(counts, (true, predicted), 1)
    return counts


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
    counts = confusions(true, predicted)
    totals = counts.sum(axis=1)
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts, axis=None, kind="stable")[:pairs]
    chosen = [(int(a), int(b)) for a, b in zip(*np.unravel_index(order, counts.shape), strict=True) if counts[a, b]]
    if not chosen:
        return None
    with style():
        picture = _sheet(true, predicted, dataset, chosen, counts, totals, shown)
    first, second = chosen[0]
    names = dataset.class_names
    caption = (
        f"The {len(chosen)} pairs of classes that are confused most often. Left: {dataset.split} images of one class "
        f"that were taken for the other. Right: {dataset.split} images of that other class. Most often: "
        f"{class_name(names, first, 40)}, taken for {class_name(names, second, 40)} {counts[first, second]} of "
        f"{totals[first]} times."
    )
    return Figure(name, picture, caption, f"Images of {len(chosen)} pairs of classes that are confused most often.")


def _sheet(true, predicted, dataset, chosen, counts, totals, shown) -> bytes:
    width = 2 * shown * (SIDE + SPACE) + GAP + SPACE
    height = len(chosen) * (SIDE + TITLE + SPACE) + HEAD
    sheet = canvas(width, height)
    right = SPACE + shown * (SIDE + SPACE) + GAP
    for left, text in ((SPACE, "these"), (right, "were taken for these")):
        sheet.text(left / width, 1 - HEAD / 2 / height, text, va="center", weight="bold")
    for row, (a, b) in enumerate(chosen):
        top = height - HEAD - row * (SIDE + TITLE + SPACE)
        wrong = np.flatnonzero((true == a) & (predicted == b))[:shown]
        others = np.flatnonzero(true == b)[:shown]
        words = f"{class_name(dataset.class_names, a, 24)} ({counts[a, b]} of {totals[a]})"
        for left, text, indices in ((SPACE, words, wrong), (right, class_name(dataset.class_names, b, 30), others)):
            sheet.text(left / width, (top - TITLE / 2) / height, text, va="center", fontsize=9)
            for column, index in enumerate(indices):
                place = left + column * (SIDE + SPACE)
                axes = sheet.add_axes((place / width, (top - TITLE - SIDE) / height, SIDE / width, SIDE / height))
                draw_tile(axes, tile(dataset.sample(int(index))), "", None)
    rule = sheet.add_axes(((right - GAP / 2 - SPACE / 2) / width, SPACE / height, 0.01 / width, 1 - 2 * SPACE / height))
    rule.set(xticks=[], yticks=[], facecolor=FAINT)
    rule.spines[:].set_visible(False)
    return png(sheet)
