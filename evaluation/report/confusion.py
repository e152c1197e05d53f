"""The matrix of confusions: all of it for few classes, its worst part for many."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evaluation.report.confused import wrong_pairs
from evaluation.report.drawing import TEXT, Figure, canvas, class_name, png, style, wrapped

#: More classes than this make a matrix nobody can read: its worst part is shown then.
WHOLE = 30
#: Classes of the worst part.
WORST = 20
#: Characters of a class's name on one line: the first of these at which every name fits two lines, else the last.
LINES = range(30, 64, 6)


def confusion(
    true: np.ndarray,
    predicted: np.ndarray,
    class_names: Sequence[str] = (),
    *,
    title: str = "",
    name: str = "confusion",
) -> Figure | None:
    """Which class is taken for which: rows are true classes, colours fractions of a row, numbers are counts.

    Above 30 classes, the 20 that take part in most confusions, and a last column with what was taken for any other.

    Args:
        true, predicted: `(N,)` class indices.
        title: stands above it, such as the protocol.

    Returns:
        None without samples.
    """
    if not len(true):
        return None
    classes = max(len(class_names), int(max(true.max(), predicted.max())) + 1)
    pairs, times = wrong_pairs(true, predicted)
    caption = "Numbers are counts of test samples, colours the fraction of the true class (of a row). Boxed: right."
    if len(pairs):
        row, column = pairs[0].tolist()
        caption += (
            f" Most often confused: {class_name(class_names, row)}, taken for {class_name(class_names, column)} "
            f"{times[0]} of {int((true == row).sum())} times."
        )
    kept = worst_part(pairs, times, classes) if classes > WHOLE else np.arange(classes)
    columns = [class_name(class_names, int(index)) for index in kept]
    counts = counts_of(true, predicted, kept)
    if classes > WHOLE:
        columns.append(f"any of {classes - len(kept):,} others")
        caption += f" Of {classes:,} classes, the {len(kept)} that take part in most confusions."
        alt = f"The part of a confusion matrix of {classes:,} classes with most confusions."
    else:
        counts, alt = counts[:, :-1], f"Confusion matrix of {classes} classes."
    with style():
        picture = _matrix(counts, columns, title)
    return Figure(name, picture, f"Predictions of {title}. {caption}" if title else caption, alt)


def worst_part(pairs: np.ndarray, times: np.ndarray, classes: int, size: int = WORST) -> np.ndarray:
    """`(size,)` indices of the classes that take part in most confusions, with those they are confused with, ascending.

    Args:
        pairs, times: of `wrong_pairs`. classes: how many there are; `size`, or more.
    """
    lower = np.sort(pairs, axis=1)
    both, inverse = np.unique(lower, axis=0, return_inverse=True)
    sums = np.bincount(inverse.reshape(-1), weights=times, minlength=len(both))
    kept: dict[int, None] = {}
    for pair in both[np.argsort(-sums, kind="stable")].tolist():
        new = [index for index in pair if index not in kept]
        if len(kept) + len(new) > size:
            break
        kept |= dict.fromkeys(new)
    # Where little is confused, the first classes fill the picture.
    for index in range(classes):
        if len(kept) == size:
            break
        kept.setdefault(index)
    return np.array(sorted(kept))


def counts_of(true: np.ndarray, predicted: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """`(K, K + 1)` counts: rows and columns are the classes `kept`, the last column is any other prediction."""
    rows = {label: row for row, label in enumerate(kept.tolist())}
    counts = np.zeros((len(kept), len(kept) + 1), dtype=np.int64)
    for a, b in zip(true.tolist(), predicted.tolist(), strict=True):
        if a in rows:
            counts[rows[a], rows.get(b, len(kept))] += 1
    return counts


def _matrix(counts: np.ndarray, columns: Sequence[str], title: str) -> bytes:
    from matplotlib.patches import Rectangle

    share, rows = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1), len(counts)
    drawing = canvas(0.31 * len(columns) + 1, 0.31 * len(counts) + 1)
    axes = drawing.add_axes((0, 0, 1, 1))
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    for line in LINES:
        names = [wrapped(name, line) for name in columns]
        if all(name.count("\n") < 2 for name in names):
            break
    # Two lines fit beside a row at this size.
    size = 16 / max(2, *(name.count("\n") + 1 for name in names))
    axes.set_xticks(range(len(names)), names, rotation=60, ha="right", rotation_mode="anchor", fontsize=size)
    axes.set_yticks(range(len(counts)), names[: len(counts)], fontsize=size)
    axes.set(xlabel="predicted class", ylabel="true class")
    axes.set_title(f"Confusion of classes{f', {title}' if title else ''}", fontsize=10, loc="left")
    axes.tick_params(which="both", length=0)
    # Faint lines lead from a number to its two names; boxes show the diagonal, where a class is taken for itself.
    axes.set_xticks(np.arange(1, len(columns)) - 0.5, minor=True)
    axes.set_yticks(np.arange(1, rows) - 0.5, minor=True)
    axes.grid(which="minor", color="#e4e8ec", linewidth=0.5)
    for index in range(rows):
        axes.add_patch(
            Rectangle((index - 0.5, index - 0.5), 1, 1, fill=False, edgecolor="#57606a", linewidth=1, zorder=3)
        )
    if len(columns) > rows:
        axes.axvline(rows - 0.5, color=TEXT, linewidth=1)
    for row, column in np.argwhere(counts):
        colour = "white" if share[row, column] > 0.55 else TEXT
        text = f"{counts[row, column]}"
        size = 8 if len(text) < 4 else 6
        axes.text(column, row, text, ha="center", va="center", fontsize=size, color=colour)
    return png(drawing, tight=True)
