"""Figures for a report: PNG bytes with a caption. Dark text on white, readable by the colour-blind."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluation.frozen import unit
from evaluation.report.confusion import confusion
from evaluation.report.drawing import (
    DPI,
    FAINT,
    TEXT,
    Figure,
    canvas,
    class_name,
    lay_out,
    missing_letters,
    png,
    style,
    wrapped,
)
from evaluation.report.neighbours import nearest_neighbours
from evaluation.report.verdict import group_title
from zoo.checkpoint.judging import groups, subject_title
from zoo.checkpoint.results import Result
from zoo.errors import DataError

__all__ = ["Figure", "confusion", "embedding_map", "nearest_neighbours", "score_chart"]
#: Petroff 2021 (arXiv 2107.02270), ten colours chosen to be told apart with colour-vision deficiencies.
COLOURS = (
    "#3f90da", "#e76300", "#832db6", "#bd1f01", "#717581", "#ffa90e", "#a96b59", "#92dadd", "#b9ac70", "#94a4a2",
)  # fmt: skip
#: With `_look`, 120 classes have 120 looks. Stars and the like are drawn larger: their surface is small.
MARKERS, LARGER = "o^vD*sPX<>hd", {"*": 1.9, "D": 0.8, "P": 1.2, "X": 1.2}
#: Up to this many classes are named on the map itself, unless a name has more characters than this and would cover
#: the samples; others are numbered there and get a legend.
LABELLED, LONG = 12, 44
#: Characters of a line of the legend, and its columns at most.
LEGEND, COLUMNS = 32, 5
LEGEND_STYLE = {
    "fontsize": 7.5, "frameon": False, "handletextpad": 0.2, "columnspacing": 1, "labelspacing": 0.35,
    "borderaxespad": 0.3,
}  # fmt: skip
#: Inches: side of the map, and of one with a legend, which needs room; a narrow one fits a phone.
SIDE, NUMBERED = 5.2, 6.4


@dataclass(frozen=True)
class Places:
    """Where samples lie on a map.

    Attributes:
        rows: `(n,)` the samples that were drawn. places: `(n, 2)` float32.
        dimensions: of the PCA before t-SNE. perplexity: of t-SNE.
    """

    rows: np.ndarray
    places: np.ndarray
    dimensions: int
    perplexity: float


def map_places(features: np.ndarray, *, points: int = 1000, seed: int = 0) -> Places | None:
    """Places of at most `points` samples by t-SNE; arguments, None and errors as for `embedding_map`."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    drawn = np.sort(np.random.default_rng(seed).permutation(len(features))[:points])
    x = unit(features[drawn])
    if not np.isfinite(x).all():
        raise DataError("features hold NaN or infinite values")
    if len(x) < 5 or np.ptp(x, axis=0).max() < 1e-6:
        return None
    x = PCA(min(50, *x.shape), random_state=seed).fit_transform(x)
    perplexity = min(30.0, (len(x) - 1) / 3)
    init = "pca" if x.shape[1] >= 2 else "random"
    flat = TSNE(perplexity=perplexity, init=init, max_iter=500, random_state=seed).fit_transform(x)
    return Places(drawn, flat, x.shape[1], perplexity)


def embedding_map(
    features: np.ndarray,
    labels: np.ndarray | None,
    class_names: Sequence[str] = (),
    *,
    points: int = 1000,
    seed: int = 0,
    name: str = "embedding_map",
) -> Figure | None:
    """A t-SNE map of features: L2-normalised, PCA to 50 dimensions, then t-SNE (van der Maaten & Hinton 2008).

    Args:
        features: `(N, D)`. labels: `(N,)` class indices, or None.
        points: at most this many samples, drawn at random.
        seed: of the draw and of t-SNE.

    Returns:
        None where there is nothing to map: fewer than 5 samples, or features that are all the same.

    Raises:
        DataError: NaN or infinite features.
    """
    found = map_places(features, points=points, seed=seed)
    if found is None:
        return None
    drawn, flat = found.rows, found.places
    shown = None if labels is None else np.asarray(labels)[drawn]
    title = f"t-SNE (after PCA to {found.dimensions} dimensions) of {len(drawn):,} samples"
    with style():
        picture = _scatter(flat, shown, class_names, title)
    caption = (
        f"t-SNE map of {len(drawn):,} samples drawn at random (seed {seed}): features scaled to length 1, PCA to "
        f"{found.dimensions} dimensions, t-SNE with perplexity {found.perplexity:g}. Who lies next to whom means "
        "something; distances between clusters and their sizes do not. t-SNE has not seen the labels: they only give "
        "the colours, and a class is named or numbered at the median of its samples."
    )
    if labels is None:
        caption = caption.partition(" t-SNE has not")[0]
    return Figure(name, picture, caption, f"Scatter plot: {title}{'' if labels is None else ', coloured by class'}.")


def _scatter(flat: np.ndarray, labels: np.ndarray | None, class_names: Sequence[str], title: str) -> bytes:
    classes = [] if labels is None else np.unique(labels).tolist()
    texts = {label: class_name(class_names, label) for label in classes}
    numbered = len(classes) > LABELLED or max(map(len, texts.values()), default=0) > LONG
    numbers = _numbers(list(texts.values()))
    if numbered:
        texts = {
            label: wrapped(text if _own_number(text) == number else f"{number}  {text}", LEGEND)
            for (label, text), number in zip(texts.items(), numbers, strict=True)
        }
    side = NUMBERED if numbered else SIDE
    columns, legend = _legend_size(list(texts.values()), side) if numbered else (1, 0.0)
    width, height = side + 0.2, side + legend + 0.5
    drawing = canvas(width, height)
    axes = drawing.add_axes((0.1 / width, (0.1 + legend) / height, side / width, side / height))
    axes.set(xticks=[], yticks=[])
    axes.margins(0.04)
    axes.set_title(title, fontsize=10, loc="left")
    axes.spines[:].set(edgecolor=FAINT)
    if labels is None:
        axes.scatter(*flat.T, s=14, color=COLOURS[0], alpha=0.8, linewidths=0)
    for index, label in enumerate(classes):
        colour, marker = _look(index)
        axes.scatter(
            *flat[labels == label].T, s=20 * LARGER.get(marker, 1), color=colour, marker=marker, alpha=0.85,
            linewidths=0.3, edgecolors="white", label=texts[label],
        )  # fmt: skip
    clusters = [flat[labels == label] for label in classes]
    if numbered:
        axes.legend(loc="upper left", bbox_to_anchor=(0, 0), ncols=columns, **LEGEND_STYLE)
        _name_clusters(drawing, axes, clusters, list(map(str, numbers)), 6.5)
    elif classes:
        _name_clusters(drawing, axes, clusters, [wrapped(text, 22) for text in texts.values()], 9)
    return png(drawing)


def _own_number(name: str) -> int | None:
    """The number that a name begins with, as in "036_cape_flower"."""
    found = re.match(r"\d{1,6}(?=\D)", name)
    return int(found[0]) if found else None


def _numbers(names: Sequence[str]) -> list[int]:
    """Numbers of classes on a map: those that all names begin with, if they differ; else 1, 2, 3 and so on."""
    own = [_own_number(name) for name in names]
    if None not in own and len(set(own)) == len(own):
        return own
    return list(range(1, len(names) + 1))


def _legend_size(texts: Sequence[str], width: float) -> tuple[int, float]:
    """As many columns of a legend as fit into `width` inches, and its height, from what its texts take."""
    sheet, em = canvas(width, 1), LEGEND_STYLE["fontsize"] / 72
    with missing_letters():
        drawn = [sheet.text(0, 0, text, fontsize=LEGEND_STYLE["fontsize"]) for text in ("lp", *texts)]
        boxes = np.array([each.get_window_extent().size for each in drawn]) / DPI
    sizes = np.maximum(boxes[1:], boxes[0])
    # What matplotlib leaves: a mark and its distance, between columns, between lines, around all.
    mark, apart, around = (2 + LEGEND_STYLE["handletextpad"]) * em, LEGEND_STYLE["columnspacing"] * em, 1.4 * em
    for columns in range(min(COLUMNS, len(texts)), 0, -1):
        parts = np.array_split(sizes, columns)
        across = sum(part[:, 0].max() + mark for part in parts) + (columns - 1) * apart + around
        if across <= width or columns == 1:
            break
    lines = [part[:, 1].sum() + LEGEND_STYLE["labelspacing"] * em * (len(part) - 1) for part in parts]
    return columns, max(lines) + around


def _look(index: int) -> tuple[str, str]:
    """Colour and marker of a class: neighbours in the list differ in colour, two like colours also in marker."""
    tens, ones = divmod(index, len(COLOURS))
    return COLOURS[ones], MARKERS[(tens + 5 * (ones >= 5)) % len(MARKERS)]


def _name_clusters(drawing: Any, axes: Any, clusters: list, texts: Sequence[str], points: float) -> None:
    """A name at the median of each class, moved apart where names would cover each other."""
    lay_out(drawing)
    medians = axes.transData.transform([np.median(cluster, axis=0) for cluster in clusters])
    anchors = axes.transAxes.inverted().transform(medians)
    scale = points / 9
    sizes = np.array(
        [
            [
                0.016 * max(map(len, text.split("\n"))) * scale + 0.035 * scale,
                (0.02 + 0.035 * (text.count("\n") + 1)) * scale,
            ]
            for text in texts
        ]
    )
    for index, place in enumerate(_spread(anchors, sizes)):
        box = {"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": _look(index)[0], "linewidth": 2 * scale}
        axes.annotate(
            texts[index], anchors[index], place, xycoords="axes fraction", textcoords="axes fraction", ha="center",
            va="center", fontsize=points, weight="bold", bbox=box | {"alpha": 0.92},
            arrowprops={"arrowstyle": "-", "color": TEXT, "linewidth": 0.8 * scale},
        )  # fmt: skip


def _spread(centres: np.ndarray, sizes: np.ndarray, rounds: int = 300) -> np.ndarray:
    """Move boxes apart, each overlap along its shorter side, and keep them inside the unit square."""
    places = centres.copy()
    for _ in range(rounds):
        overlaps = (sizes[:, None] + sizes) / 2 - np.abs(places[:, None] - places)
        pairs = np.argwhere(np.tril((overlaps > 0).all(axis=2), -1))
        for i, j in pairs.tolist():
            apart = places[i] - places[j]
            overlap = (sizes[i] + sizes[j]) / 2 - np.abs(apart)
            if (overlap <= 0).any():
                continue
            axis = int(overlap[1] < overlap[0])
            step = overlap[axis] / 2 * (1 if apart[axis] >= 0 else -1)
            places[i, axis] += step
            places[j, axis] -= step
        places = np.clip(places, sizes / 2, 1 - sizes / 2)
        if not len(pairs):
            break
    return places


def score_chart(rows: Sequence[Result], encoder_name: str = "", *, name: str = "scores") -> Figure | None:
    """Top-1 of the encoder and its baselines under each protocol, with intervals.

    Returns:
        None where no row has a top-1.
    """
    rows = [row for row in rows if "top1" in row.metrics]
    if not rows:
        return None
    grouped = groups(rows)
    classes = {row.classes for row in rows}
    chance = 1 / classes.pop() if len(classes) == 1 else None
    with style():
        picture = _bars(grouped, rows, chance)
    caption = (
        "Top-1 accuracy; whiskers are 95 % intervals over test samples."
        + (" Dotted line: guessing among equally frequent classes." if chance else "")
        + (f" Encoder: {encoder_name}." if encoder_name else "")
    )
    told = [
        f"{row.protocol}, {subject_title(row)}: {row.metrics['top1'].value * 100:.1f} %"
        for group in grouped
        for row in group
    ]
    return Figure(name, picture, caption, f"Bar chart of top-1 accuracy. {'; '.join(told)}.")


def _bars(grouped: list[list[Result]], rows: Sequence[Result], chance: float | None) -> bytes:
    looks = {
        "encoder": {"color": "#0b62a4"},
        "untrained": {"color": "#9aa5b1"},
        "raw": {"facecolor": "#dfe4e8", "edgecolor": "#7c8894", "hatch": "///"},
    }
    width, height, left = 5.4, 0.3 * len(rows) + 0.4 * len(grouped) + 0.6, 1.25
    drawing = canvas(width, height)
    axes = drawing.add_axes((left / width, 0.5 / height, 1 - (left + 0.1) / width, 1 - 0.55 / height))
    place, ticks, labels = 0.0, [], []
    for group in grouped:
        axes.annotate(
            group_title(group, rows), (0, place), (6 - 72 * left, 0), textcoords="offset points", weight="bold",
            va="center",
        )  # fmt: skip
        for row in group:
            place += 1
            metric = row.metrics["top1"]
            value, low, high = 100 * metric.value, 100 * metric.low, 100 * metric.high
            axes.barh(place, value, height=0.72, linewidth=0.6, **looks[row.subject])
            reach = [[max(0, value - low)], [max(0, high - value)]]
            axes.errorbar(value, place, xerr=reach, color=TEXT, capsize=3, linewidth=1.2)
            axes.text(max(value, high) + 1.5, place, f"{value:.1f}", va="center")
            ticks.append(place)
            labels.append(subject_title(row))
        place += 1.25
    if chance is not None:
        axes.axvline(100 * chance, color=TEXT, linewidth=1, linestyle=":", zorder=0)
    axes.set_yticks(ticks, labels)
    axes.tick_params(axis="y", length=0)
    axes.set(xlim=(0, 112), ylim=(place - 0.5, -0.7), xticks=range(0, 101, 20), xlabel="top-1 accuracy, %")
    axes.spines[["top", "right", "left"]].set_visible(False)
    return png(drawing)
