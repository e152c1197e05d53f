"""Figures for a report: PNG bytes with a caption. Dark text on white, readable by the colour-blind."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from evaluation.report import group_title, groups, subject_title
from zoo.data.base import Dataset
from zoo.errors import DataError
from zoo.results import Result
from zoo.transforms import to_rgb

DPI = 128
TEXT = "#1b1f24"
RIGHT, WRONG, NEUTRAL = "#007a5a", "#c44601", "#8a949e"
#: Petroff 2021 (arXiv 2107.02270), ten colours chosen to be told apart with colour-vision deficiencies.
COLOURS = (
    "#3f90da", "#e76300", "#832db6", "#bd1f01", "#717581", "#ffa90e", "#a96b59", "#92dadd", "#b9ac70", "#94a4a2",
)  # fmt: skip
MARKERS = "os^Dv*PX<>"
#: Up to this many classes are named on the map itself; more get a legend.
LABELLED = 12
#: Images up to this many pixels are enlarged in blocks, larger ones are shrunk smoothly.
SMALL = 96
TILE = 256


@dataclass(frozen=True)
class Figure:
    """A picture for a report.

    Attributes:
        name: file name without ending.
        png: the PNG file.
        caption: what a reader has to know, plain text.
        alt: what a person who cannot see it has to know, plain text.
    """

    name: str
    png: bytes
    caption: str
    alt: str


def nearest_neighbours(
    train_features: np.ndarray,
    train_labels: np.ndarray | None,
    train_dataset: Dataset,
    test_features: np.ndarray,
    test_labels: np.ndarray | None,
    test_dataset: Dataset,
    class_names: Sequence[str] = (),
    *,
    queries: int = 8,
    neighbours: int = 6,
    seed: int = 0,
    name: str = "nearest_neighbours",
) -> Figure | None:
    """Test images drawn at random, and the training images nearest to each by cosine similarity.

    Args:
        train_features, test_features: `(N, D)` and `(M, D)`, row i belongs to sample i of its dataset.
        train_labels, test_labels: class indices; None leaves out whether the classes agree.
        queries, neighbours: rows and columns of the sheet, fewer where there are fewer samples.
        seed: of the draw.

    Returns:
        None where samples are not images.

    Raises:
        DataError: features and samples differ in number, or a sample cannot be read.
    """
    if train_dataset.modality != "image" or test_dataset.modality != "image":
        return None
    for features, dataset in ((train_features, train_dataset), (test_features, test_dataset)):
        if len(features) != len(dataset) or not len(dataset):
            raise DataError(f"{len(features)} features for {len(dataset)} samples of {dataset.name}; expected one each")
    drawn = np.sort(np.random.default_rng(seed).permutation(len(test_features))[:queries])
    similarity = _unit(test_features[drawn]) @ _unit(train_features).T
    if test_dataset is train_dataset:
        # A sample is no neighbour of itself.
        similarity[np.arange(len(drawn)), drawn] = -np.inf
        neighbours = min(neighbours, len(train_features) - 1)
    nearest = np.argsort(-similarity, axis=1, kind="stable")[:, :neighbours]
    labelled = train_labels is not None and test_labels is not None
    agree = (train_labels[nearest] == test_labels[drawn][:, None]) if labelled else None
    with _style():
        png = _sheet(drawn, nearest, agree, (train_dataset, train_labels), (test_dataset, test_labels), class_names)
    caption = (
        f"Nearest neighbours. Left: {len(drawn)} {test_dataset.split} images drawn at random (seed {seed}), not "
        f"picked by hand. Right: the {nearest.shape[1]} most similar {train_dataset.split} images by cosine "
        "similarity of features, the nearest first."
    )
    if labelled:
        caption += (
            f" Green with a tick: same class as the query; orange with a cross: another class. "
            f"{int(agree.sum())} of {agree.size} neighbours on this sheet share the class of their query."
        )
    return Figure(name, png, caption, f"{len(drawn)} query images, each beside its nearest training images.")


def _sheet(drawn, nearest, agree, train, test, class_names) -> bytes:
    rows, columns = nearest.shape
    gap, tile, below, top = 0.45, 1.0, 0.24, 0.35
    width, height = tile * (columns + 1) + gap + 0.1 * columns + 0.2, rows * (tile + below) + top
    canvas = _canvas(width, height)

    def show(row: int, column: int, source: tuple[Dataset, np.ndarray | None], index: int, match: bool | None) -> None:
        left = 0.1 + column * (tile + 0.1) + (gap if column else 0)
        bottom = height - top - row * (tile + below) - tile
        axes = canvas.add_axes((left / width, bottom / height, tile / width, tile / height))
        tile_image = _tile(source[0].sample(index))
        axes.imshow(tile_image, interpolation="nearest" if tile_image.width <= SMALL else "antialiased")
        axes.set(xticks=[], yticks=[])
        colour = NEUTRAL if match is None else RIGHT if match else WRONG
        for spine in axes.spines.values():
            spine.set(edgecolor=colour, linewidth=1 if match is None else 3)
        if source[1] is not None:
            axes.set_xlabel(_class(class_names, source[1][index], 15), fontsize=7.5, labelpad=3)
        if match is not None:
            axes.text(
                0.98, 0.97, "✓" if match else "✗", transform=axes.transAxes, ha="right", va="top", fontsize=9,
                color="white", weight="bold", bbox={"boxstyle": "round,pad=0.15", "facecolor": colour, "edgecolor": "white"},
            )  # fmt: skip

    for row in range(rows):
        show(row, 0, test, int(drawn[row]), None)
        for column in range(columns):
            match = None if agree is None else bool(agree[row, column])
            show(row, column + 1, train, int(nearest[row, column]), match)
    line = (0.1 + tile + (0.1 + gap) / 2) / width
    canvas.add_artist(_line([line, line], [0.15 / height, 1 - 0.1 / height]))
    canvas.text((0.1 + tile / 2) / width, 1 - top / 2 / height, "query", ha="center", va="center", weight="bold")
    left = (0.2 + tile + gap) / width
    canvas.text(left, 1 - top / 2 / height, "nearest training samples, most similar first", va="center", weight="bold")
    return _png(canvas)


def _tile(sample: Any) -> Image.Image:
    """A square RGB image: small ones pixel for pixel, larger ones shrunk to `TILE`, margins grey."""
    image = to_rgb(sample)
    if max(image.size) > SMALL:
        image = ImageOps.contain(image, (TILE, TILE), Image.Resampling.LANCZOS)
    side = max(image.size)
    square = Image.new("RGB", (side, side), (236, 238, 240))
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def embedding_map(
    features: np.ndarray,
    labels: np.ndarray | None,
    class_names: Sequence[str] = (),
    *,
    points: int = 1000,
    seed: int = 0,
    name: str = "embedding_map",
) -> Figure:
    """A t-SNE map of features: L2-normalised, PCA to 50 dimensions, then t-SNE (van der Maaten & Hinton 2008).

    Args:
        features: `(N, D)`. labels: `(N,)` class indices, or None.
        points: at most this many samples, drawn at random.
        seed: of the draw and of t-SNE.

    Raises:
        DataError: fewer than 5 samples, NaN, or features that are all the same.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    drawn = np.sort(np.random.default_rng(seed).permutation(len(features))[:points])
    x = _unit(features[drawn])
    if len(x) < 5:
        raise DataError(f"a map needs at least 5 samples, got {len(x)}")
    if not np.isfinite(x).all():
        raise DataError("features hold NaN or infinite values")
    if np.ptp(x, axis=0).max() < 1e-6:
        raise DataError("all features are the same: there is nothing to map (the encoder has collapsed)")
    x = PCA(min(50, *x.shape), random_state=seed).fit_transform(x)
    perplexity = min(30.0, (len(x) - 1) / 3)
    init = "pca" if x.shape[1] >= 2 else "random"
    flat = TSNE(perplexity=perplexity, init=init, max_iter=500, random_state=seed).fit_transform(x)
    shown = None if labels is None else np.asarray(labels)[drawn]
    with _style():
        png = _scatter(flat, shown, class_names)
    caption = (
        f"t-SNE map of {len(drawn):,} samples drawn at random (seed {seed}): features scaled to length 1, PCA to "
        f"{x.shape[1]} dimensions, t-SNE with perplexity {perplexity:g}. Who lies next to whom means something; "
        "distances between clusters and their sizes do not. t-SNE has not seen the labels: they only give the colours."
    )
    if labels is None:
        caption = caption.partition(" t-SNE has not")[0]
    return Figure(name, png, caption, f"Scatter plot: t-SNE map of {len(drawn)} samples, coloured by class.")


def _scatter(flat: np.ndarray, labels: np.ndarray | None, class_names: Sequence[str]) -> bytes:
    classes = [] if labels is None else np.unique(labels).tolist()
    columns = 4
    legend_rows = -(-len(classes) // columns) if len(classes) > LABELLED else 0
    legend = 0.19 * legend_rows + (0.15 if legend_rows else 0)
    width, height = 7.2, 6.4 + legend
    canvas = _canvas(width, height)
    axes = canvas.add_axes((0.02, (0.1 + legend) / height, 0.96, 5.9 / height))
    axes.set(xticks=[], yticks=[])
    axes.set_title(f"t-SNE map of {len(flat):,} samples", fontsize=11, loc="left")
    axes.spines[:].set(edgecolor="#c5ccd3")
    if labels is None:
        axes.scatter(*flat.T, s=14, color=COLOURS[0], alpha=0.8, linewidths=0)
    for index, label in enumerate(classes):
        part = flat[labels == label]
        axes.scatter(
            *part.T, s=18, color=COLOURS[index % len(COLOURS)], alpha=0.85, linewidths=0.3, edgecolors="white",
            marker=MARKERS[(index // len(COLOURS)) % len(MARKERS)], label=_class(class_names, label, 24),
        )  # fmt: skip
    if legend_rows:
        axes.legend(
            loc="upper left", bbox_to_anchor=(0, -0.005), ncols=columns, fontsize=7.5, frameon=False,
            handletextpad=0.2, columnspacing=1, labelspacing=0.35, borderaxespad=0.2,
        )  # fmt: skip
    elif classes:
        _name_clusters(canvas, axes, flat, labels, classes, class_names)
    return _png(canvas)


def _name_clusters(canvas, axes, flat, labels, classes, class_names) -> None:
    """A name at the median of each class, moved apart where names would cover each other."""
    canvas.draw_without_rendering()
    anchors = axes.transAxes.inverted().transform(
        axes.transData.transform([np.median(flat[labels == label], axis=0) for label in classes])
    )
    texts = [_class(class_names, label, 24) for label in classes]
    sizes = np.array([[0.0135 * len(text) + 0.03, 0.05] for text in texts])
    for index, place in enumerate(_spread(anchors, sizes)):
        colour = COLOURS[index % len(COLOURS)]
        axes.annotate(
            texts[index], anchors[index], place, xycoords="axes fraction", textcoords="axes fraction", ha="center",
            va="center", fontsize=9, weight="bold", arrowprops={"arrowstyle": "-", "color": TEXT, "linewidth": 0.8},
            bbox={"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": colour, "linewidth": 2, "alpha": 0.92},
        )  # fmt: skip


def _spread(centres: np.ndarray, sizes: np.ndarray, rounds: int = 300) -> np.ndarray:
    """Move boxes apart, each overlap along its shorter side, and keep them inside the unit square."""
    places = centres.copy()
    for _ in range(rounds):
        moved = False
        for i in range(len(places)):
            for j in range(i):
                apart = places[i] - places[j]
                overlap = (sizes[i] + sizes[j]) / 2 - np.abs(apart)
                if (overlap <= 0).any():
                    continue
                axis = int(overlap[1] < overlap[0])
                step = overlap[axis] / 2 * (1 if apart[axis] >= 0 else -1)
                places[i, axis] += step
                places[j, axis] -= step
                moved = True
        places = np.clip(places, sizes / 2, 1 - sizes / 2)
        if not moved:
            break
    return places


def confusion(
    true: np.ndarray,
    predicted: np.ndarray,
    class_names: Sequence[str] = (),
    *,
    name: str = "confusion",
    title: str = "",
) -> Figure | None:
    """Which class is taken for which: rows are true classes, colours fractions of a row, numbers are counts.

    Args:
        true, predicted: `(N,)` class indices.
        title: stands above it, such as the protocol.

    Returns:
        None above 30 classes, where it could not be read.
    """
    classes = max(len(class_names), int(max(true.max(), predicted.max())) + 1)
    if classes > 30:
        return None
    counts = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(counts, (true, predicted), 1)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side, margin, head = max(3.4, 0.36 * classes + 1.2), 1.6, 0.45
    width, height = side + margin + 0.2, side + margin + head
    with _style():
        canvas = _canvas(width, height)
        axes = canvas.add_axes((margin / width, margin / height, side / width, side / height))
        axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
        names = [_class(class_names, index, 18) for index in range(classes)]
        axes.set_xticks(range(classes), names, rotation=60, ha="right", rotation_mode="anchor", fontsize=8)
        axes.set_yticks(range(classes), names, fontsize=8)
        axes.set(xlabel="predicted class", ylabel="true class")
        axes.tick_params(length=0)
        canvas.text(0.1 / width, 1 - head / 2 / height, title or "Confusion of classes", fontsize=11, va="center")
        for row, column in np.argwhere(counts):
            colour = "white" if share[row, column] > 0.55 else TEXT
            size = 8 if classes <= 12 else 6
            axes.text(column, row, f"{counts[row, column]}", ha="center", va="center", fontsize=size, color=colour)
        png = _png(canvas)
    pairs = counts - np.diag(np.diag(counts))
    caption = "Numbers are counts of test samples, colours the fraction of the true class (of a row)."
    if pairs.any():
        row, column = np.unravel_index(pairs.argmax(), pairs.shape)
        caption += (
            f" Most often confused: {_class(class_names, row, 40)}, taken for "
            f"{_class(class_names, column, 40)} {pairs[row, column]} times."
        )
    return Figure(name, png, f"{title}. {caption}" if title else caption, f"Confusion matrix of {classes} classes.")


def score_chart(rows: Sequence[Result], encoder_name: str = "", *, name: str = "scores") -> Figure | None:
    """Top-1 of the encoder and its floors under each protocol, with intervals.

    Returns:
        None where no row has a top-1.
    """
    rows = [row for row in rows if "top1" in row.metrics]
    if not rows:
        return None
    grouped = groups(rows)
    height = 0.36 * len(rows) + 0.42 * len(grouped) + 0.75
    with _style():
        canvas = _canvas(7.2, height)
        axes = canvas.add_axes((0.25, 0.55 / height, 0.7, 1 - 0.65 / height))
        _bars(axes, grouped, rows)
        chance = {row.classes for row in rows}
        if len(chance) == 1:
            axes.axvline(100 / chance.pop(), color=TEXT, linewidth=1, linestyle=":", zorder=0)
        axes.set(xlim=(0, 108), xticks=range(0, 101, 20), xlabel="top-1 accuracy, %")
        axes.spines[["top", "right", "left"]].set_visible(False)
        png = _png(canvas)
    caption = (
        "Top-1 accuracy; whiskers are 95 % bootstrap intervals over test samples."
        + (" Dotted line: guessing among equally frequent classes." if len({row.classes for row in rows}) == 1 else "")
        + (f" Encoder: {encoder_name}." if encoder_name else "")
    )
    alt = "; ".join(
        f"{row.protocol}, {subject_title(row)}: {row.metrics['top1'].value * 100:.1f} %" for row in sum(grouped, [])
    )
    return Figure(name, png, caption, f"Bar chart of top-1 accuracy. {alt}.")


def _bars(axes, grouped: list[list[Result]], rows: Sequence[Result]) -> None:
    looks = {
        "encoder": {"color": "#0b62a4"},
        "untrained": {"color": "#9aa5b1"},
        "raw": {"color": "#dfe4e8", "edgecolor": "#7c8894", "hatch": "///"},
    }
    place, ticks, labels = 0.0, [], []
    for group in grouped:
        title = group_title(group, rows)
        axes.text(-0.34, place, title, transform=axes.get_yaxis_transform(), weight="bold", va="center", fontsize=9)
        for row in group:
            place += 1
            metric = row.metrics["top1"]
            value, low, high = (100 * x for x in (metric.value, metric.low, metric.high))
            axes.barh(place, value, height=0.72, linewidth=0.6, **looks[row.subject])
            reach = [[max(0, value - low)], [max(0, high - value)]]
            axes.errorbar(value, place, xerr=reach, color=TEXT, capsize=3, linewidth=1.2)
            axes.text(max(value, high) + 1.2, place, f"{value:.1f}", va="center", fontsize=9)
            ticks.append(place)
            labels.append(subject_title(row))
        place += 1.25
    axes.set_yticks(ticks, labels)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(place - 0.5, -0.7)


def _class(class_names: Sequence[str], index: int, length: int) -> str:
    """The name of a class on one line, cut to `length` characters; its number where it has none."""
    text = class_names[index] if 0 <= index < len(class_names) else f"class {index}"
    text = "".join(c if c.isprintable() else " " for c in str(text)).strip()
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def _unit(features: np.ndarray) -> np.ndarray:
    x = np.asarray(features, dtype=np.float32)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)


def _style():
    """Our own settings of matplotlib, whatever the user has set. `$` in a class name is no formula."""
    import matplotlib.style

    wanted = {
        "font.family": "DejaVu Sans", "font.size": 9, "text.color": TEXT, "axes.labelcolor": TEXT, "axes.edgecolor": TEXT,
        "xtick.color": TEXT, "ytick.color": TEXT, "figure.facecolor": "white", "text.parse_math": False,
    }  # fmt: skip
    return matplotlib.style.context(["default", wanted])


def _canvas(width: float, height: float):
    from matplotlib.figure import Figure as Canvas

    return Canvas(figsize=(width, height), dpi=DPI)


def _line(x: list[float], y: list[float]):
    from matplotlib.lines import Line2D

    return Line2D(x, y, color="#c5ccd3", linewidth=1)


def _png(canvas) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # A class name in a script that the font lacks shows boxes; that is not worth a warning per letter.
        warnings.filterwarnings("ignore", message="Glyph")
        canvas.savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()
