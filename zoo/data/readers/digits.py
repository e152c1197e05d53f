"""scikit-learn's handwritten digits: real images that need no download."""

from __future__ import annotations

import numpy as np
from PIL import Image

from zoo.data.images import ArrayImages
from zoo.data.reader import NameReader
from zoo.data.splits import held_out

SPLITS = ("train", "test", "all")
#: Share and seed of the test part: fixed, so that every number on `digits` means the same images.
TEST_FRACTION, TEST_SEED = 0.3, 0
#: Of `digits:placed`: side of the canvas and range of the digits' sides in pixels.
CANVAS, SIDES, PLACE_SEED = 32, (12, 24), 0


def open_digits(split: str) -> ArrayImages:
    """1,797 grey 8x8 digits; `train` and `test` are a fixed stratified 70/30 split of `all`.

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998 (its test part).
    """
    images, labels, names = _load()
    return _dataset("digits", split, images, labels, names)


def open_placed_digits(split: str) -> ArrayImages:
    """The same digits, each scaled to 12..24 px and laid at a random place on a black 32 px canvas.

    Place and scale are fixed per digit by a seed. As with objects in photographs, the same class is
    nowhere near the same pixels twice, so that comparing pixels helps little.
    """
    images, labels, names = _load()
    draws = np.random.PCG64(PLACE_SEED).random_raw((len(images), 3)) % np.uint64(1 << 32)
    placed = np.zeros((len(images), CANVAS, CANVAS), dtype=np.uint8)
    for canvas, image, (scale, top, left) in zip(placed, images, draws.tolist(), strict=True):
        side = SIDES[0] + scale % (SIDES[1] - SIDES[0] + 1)
        top, left = (value % (CANVAS - side + 1) for value in (top, left))
        resized = Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC)
        canvas[top : top + side, left : left + side] = resized
    return _dataset("digits:placed", split, placed, labels, names)


def _load() -> tuple[np.ndarray, np.ndarray, list[str]]:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    # Counts of 0..16 dark pixels per 4x4 block.
    images = np.round(bunch.images * (255 / 16)).astype(np.uint8)
    return images, bunch.target.astype(np.int64), [str(name) for name in bunch.target_names]


def _dataset(name: str, split: str, images: np.ndarray, labels: np.ndarray, names: list[str]) -> ArrayImages:
    rows = np.arange(len(labels))
    if split != "all":
        train, test = held_out(labels, TEST_FRACTION, TEST_SEED)
        rows = train if split == "train" else test
    keys = [str(row) for row in rows]
    data = ArrayImages(name, split, images[rows], labels[rows], names, "CC BY 4.0", keys)
    data.home = name
    return data


class Digits(NameReader):
    """`digits` and `digits:placed`."""

    example = "'digits'"
    names = ("digits", "digits:placed")

    def splits(self) -> list[str]:
        return list(SPLITS)

    def open(self, split: str) -> ArrayImages:
        return open_digits(split) if self.address.text == "digits" else open_placed_digits(split)
