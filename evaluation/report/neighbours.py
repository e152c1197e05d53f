"""Nearest-neighbour sheets: what an encoder finds similar, seen with one's own eyes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from evaluation.frozen import unit
from evaluation.report.drawing import FAINT, Figure, canvas, class_name, png, style, wrapped
from zoo.data.base import Dataset
from zoo.errors import DataError
from zoo.preprocessing.image import to_rgb

RIGHT, WRONG, NEUTRAL = "#007a5a", "#c44601", "#8a949e"
#: Images up to this many pixels are enlarged in blocks, larger ones are shrunk smoothly.
SMALL = 96
TILE = 256
#: Inches: side of a tile, between tiles, between query and neighbours, for the heading, for the hits of a query.
SIDE, SPACE, GAP, HEAD, HITS = 1.0, 0.1, 0.45, 0.35, 0.6
#: Inches below a tile: without a name, and for each line of one. Characters of a line.
BELOW, LINE, WIDTH = 0.12, 0.125, 15


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
    similarity = unit(test_features[drawn]) @ unit(train_features).T
    if test_dataset is train_dataset:
        # A sample is no neighbour of itself.
        similarity[np.arange(len(drawn)), drawn] = -np.inf
        neighbours = min(neighbours, len(train_features) - 1)
    nearest = np.argsort(-similarity, axis=1, kind="stable")[:, :neighbours]
    labelled = train_labels is not None and test_labels is not None
    agree = (train_labels[nearest] == test_labels[drawn][:, None]) if labelled else None
    with style():
        picture = _sheet(drawn, nearest, agree, (train_dataset, train_labels), (test_dataset, test_labels), class_names)
    caption = (
        f"Nearest neighbours. Left: {len(drawn)} {test_dataset.split} images drawn at random (seed {seed}), not "
        f"picked by hand. Right: the {nearest.shape[1]} most similar {train_dataset.split} images by cosine "
        "similarity of features, the nearest first."
    )
    if labelled:
        caption += (
            f" Green with a tick: same class as the query; orange with a cross: another class. "
            f"At the end of a row: how many of its neighbours share the class of the query; "
            f"{int(agree.sum())} of {agree.size} on this sheet."
        )
    return Figure(name, picture, caption, f"{len(drawn)} query images, each beside its nearest training images.")


def _sheet(
    drawn: np.ndarray,
    nearest: np.ndarray,
    agree: np.ndarray | None,
    train: tuple[Dataset, np.ndarray | None],
    test: tuple[Dataset, np.ndarray | None],
    class_names: Sequence[str],
) -> bytes:
    rows, columns = nearest.shape

    def name(source: tuple[Dataset, np.ndarray | None], index: int) -> str:
        labels = source[1]
        return "" if labels is None else wrapped(class_name(class_names, int(labels[index])), WIDTH)

    names = [[name(test, drawn[row]), *(name(train, index) for index in nearest[row])] for row in range(rows)]
    below = [BELOW + LINE * max(text.count("\n") + 1 if text else 0 for text in texts) for texts in names]
    width = 2 * SPACE + (SIDE + SPACE) * (columns + 1) - SPACE + GAP + (HITS if agree is not None else 0)
    height = rows * SIDE + sum(below) + HEAD
    sheet = canvas(width, height)

    def place(row: int, column: int, dataset: Dataset, index: int, match: bool | None) -> None:
        left = SPACE + column * (SIDE + SPACE) + (GAP if column else 0)
        bottom = height - HEAD - (row + 1) * SIDE - sum(below[:row])
        axes = sheet.add_axes((left / width, bottom / height, SIDE / width, SIDE / height))
        draw_tile(axes, tile(dataset.sample(index)), names[row][column], match)
        if match is not None and column == columns:
            hits = f"{int(agree[row].sum())} of {columns}"
            sheet.text((left + SIDE + SPACE) / width, (bottom + SIDE / 2) / height, hits, va="center")

    for row in range(rows):
        place(row, 0, test[0], int(drawn[row]), None)
        for column in range(columns):
            match = None if agree is None else bool(agree[row, column])
            place(row, column + 1, train[0], int(nearest[row, column]), match)
    middle, heading = SPACE + SIDE + (SPACE + GAP) / 2, 1 - HEAD / 2 / height
    rule = sheet.add_axes((middle / width, SPACE / height, 0.01 / width, 1 - 2 * SPACE / height), facecolor=FAINT)
    rule.set(xticks=[], yticks=[], frame_on=True)
    rule.spines[:].set_visible(False)
    sheet.text((SPACE + SIDE / 2) / width, heading, "query", ha="center", va="center", weight="bold")
    words = "nearest training samples, most similar first" if columns > 2 else "nearest"
    sheet.text((2 * SPACE + SIDE + GAP) / width, heading, words, va="center", weight="bold")
    if agree is not None and columns > 3:
        sheet.text((width - HITS) / width, heading, "hits", va="center", weight="bold")
    return png(sheet)


def draw_tile(axes: Any, tile: Image.Image, text: str, match: bool | None) -> None:
    axes.imshow(tile, interpolation="nearest" if tile.width <= SMALL else "antialiased")
    axes.set(xticks=[], yticks=[])
    axes.set_xlabel(text, fontsize=7.5, labelpad=3)
    colour = NEUTRAL if match is None else RIGHT if match else WRONG
    axes.spines[:].set(edgecolor=colour, linewidth=1 if match is None else 3)
    if match is not None:
        box = {"boxstyle": "round,pad=0.15", "facecolor": colour, "edgecolor": "white"}
        # A mark as well as a colour: not everyone can tell the two colours apart.
        axes.text(
            0.98, 0.97, "✓" if match else "✗", transform=axes.transAxes, ha="right", va="top", fontsize=9,
            color="white", weight="bold", bbox=box,
        )  # fmt: skip


def tile(sample: Any) -> Image.Image:
    """A square RGB image: small ones pixel for pixel, larger ones shrunk to `TILE`, margins grey."""
    image = to_rgb(sample)
    if max(image.size) > SMALL:
        image = ImageOps.contain(image, (TILE, TILE), Image.Resampling.LANCZOS)
    side = max(image.size)
    square = Image.new("RGB", (side, side), (236, 238, 240))
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square
