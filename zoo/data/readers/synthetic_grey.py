"""`synthetic:rectangle-triangle`, `synthetic:circle-square`: the two drawn sets of ConRec, after their description.

ConRec (arXiv 2104.04323) shows on them that shape as a whole and small details both matter. White on black, turned
by up to 90 degrees either way; drawn anew here, so no image is one of the authors'.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from zoo.data.images import ArrayImages
from zoo.data.readers.synthetic_shapes import SPLITS, SyntheticReader, parse_parameters, set_name

#: Smallest gap between the two objects of circle-square, relative to the side: 10 of 128 pixels.
GAP = 10 / 128
_TRIES = 64
Uniform = Callable[..., np.ndarray]


def _parameters(n: int) -> dict[str, tuple[int, int, int]]:
    """parameter -> (default, lowest, highest); n and size as published."""
    return {"n": (n, 8, 1_000_000), "size": (128, 16, 256), "seed": (0, 0, 2**31 - 1)}


#: set -> its parameters, its classes, and how many test images there are per n training images.
SETS = {
    "rectangle-triangle": (
        _parameters(1000),
        ("rounded_equilateral", "rounded_right", "sharp_equilateral", "sharp_right"),
        lambda n: n // 2,
    ),
    "circle-square": (
        _parameters(600),
        ("two_circles", "one_circle", "no_circle"),
        lambda n: 2 * n // 3 - 2 * n // 3 % 3,
    ),
}


def open_grey(address: str, split: str) -> ArrayImages:
    """Open one split of `synthetic:SET[?n=&size=&seed=]`; the same address gives the same images.

    Raises:
        UnknownNameError: another parameter. DataError: a value that is not a whole number in range.
    """
    name = set_name(address)
    known, classes, test_count = SETS[name]
    values = parse_parameters(address, known)
    count = values["n"] if split == "train" else max(len(classes), test_count(values["n"]))
    generator = np.random.Generator(np.random.PCG64([values["seed"], SPLITS.index(split)]))
    labels = np.arange(count, dtype=np.int64) % len(classes)
    size = values["size"]
    images = np.empty((count, size, size, 3), dtype=np.uint8)
    draw = {"rectangle-triangle": _rectangle_triangle, "circle-square": _circle_square}[name]
    for start in range(0, count, 256):  # bounded memory
        part = slice(start, start + 256)
        # Half a pixel on either side of the edge is blended.
        level = np.clip(draw(labels[part], size, generator) * size + 0.5, 0, 1)
        images[part] = np.round(level * 255).astype(np.uint8)[..., None]
    short = f"synthetic_{name.replace('-', '_')}"
    return ArrayImages(short, split, images, labels, classes, licence="MIT (generated)")


def _drawing(labels: np.ndarray, size: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray, Uniform]:
    """x to the right, y down, of every pixel's centre, `(1, size, size)` in 0..1, and one draw per image."""
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size
    y, x = np.broadcast_to(axis[:, None], (1, size, size)), np.broadcast_to(axis, (1, size, size))

    def uniform(low: float, high: float, *shape: int) -> np.ndarray:
        return generator.uniform(low, high, (len(labels), *shape)).astype(np.float32)

    return x, y, uniform


def _turned(x: np.ndarray, y: np.ndarray, angle: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    cos, sin = np.cos(angle), np.sin(angle)
    return cos * x + sin * y, cos * y - sin * x


def _rectangle_triangle(labels: np.ndarray, size: int, generator: np.random.Generator) -> np.ndarray:
    """Distance to the edge, positive inside: a rectangle, corners rounded or sharp, with a triangular hole."""
    x, y, uniform = _drawing(labels, size, generator)
    a, b = (uniform(0.22, 0.32, 1, 1) for _ in range(2))
    shorter, room = np.minimum(a, b), 0.48 - np.hypot(a, b)
    shift_x, shift_y = (uniform(-1, 1, 1, 1) * room for _ in range(2))
    u, v = _turned(x - 0.5 - shift_x, y - 0.5 - shift_y, uniform(-np.pi / 2, np.pi / 2, 1, 1))
    rounding = uniform(0.4, 0.6, 1, 1) * shorter * (labels < 2)[:, None, None]
    over_u, over_v = np.abs(u) - (a - rounding), np.abs(v) - (b - rounding)
    beyond = np.hypot(np.maximum(over_u, 0), np.maximum(over_v, 0))
    rectangle = rounding - beyond - np.minimum(np.maximum(over_u, over_v), 0)
    radius = uniform(0.45, 0.6, 1, 1) * shorter
    equilateral = radius / 2 - np.max(
        [np.cos(t) * u + np.sin(t) * v for t in np.pi * np.array([0.5, 7 / 6, 11 / 6])], axis=0
    )
    # A right triangle of the same area, its centroid in the same place.
    ratio = np.sqrt(uniform(0.75, 4 / 3, 1, 1))
    leg = np.sqrt(1.5 * np.sqrt(3)) * radius
    p, q = leg * ratio, leg / ratio
    long_side = (1 / 3 - u / p - v / q) / np.hypot(1 / p, 1 / q)
    right = np.minimum(np.minimum(u + p / 3, v + q / 3), long_side)
    hole = np.where((labels % 2 == 0)[:, None, None], equilateral, right)
    return np.minimum(rectangle, -hole)


def _circle_square(labels: np.ndarray, size: int, generator: np.random.Generator) -> np.ndarray:
    """Distance to the edge, positive inside: two objects apart from each other, each a circle or a square."""
    x, y, uniform = _drawing(labels, size, generator)
    half = uniform(1 / 16, 1 / 6, 2)
    first_is_circle = (labels == 0) | ((labels == 1) & (uniform(0, 1) < 0.5))
    circle = np.stack([first_is_circle, np.where(labels == 1, ~first_is_circle, labels == 0)], axis=1)
    reach = np.where(circle, half, half * np.float32(np.sqrt(2)))
    border = (reach + 1 / 64)[:, None, :, None]
    places = border + uniform(0, 1, _TRIES, 2, 2) * (1 - 2 * border)
    # The last try always fits: opposite corners.
    places[:, -1, 0], places[:, -1, 1] = border[:, 0, 0], 1 - border[:, 0, 1]
    apart = np.linalg.norm(places[:, :, 0] - places[:, :, 1], axis=2) >= reach.sum(axis=1)[:, None] + GAP
    place = places[np.arange(len(labels)), apart.argmax(axis=1)]
    angle = uniform(-np.pi / 2, np.pi / 2, 1, 1)
    levels = []
    for k in range(2):
        u, v = _turned(x - place[:, k, 0, None, None], y - place[:, k, 1, None, None], angle)
        distance = np.where(circle[:, k, None, None], np.hypot(u, v), np.maximum(np.abs(u), np.abs(v)))
        levels.append(half[:, k, None, None] - distance)
    return np.maximum(*levels)


class GreySets(SyntheticReader):
    """`synthetic:rectangle-triangle` and `synthetic:circle-square`."""

    example = "'synthetic:rectangle-triangle'"
    names = tuple(f"synthetic:{name}" for name in SETS)

    def open(self, split: str) -> ArrayImages:
        return open_grey(self.address.text, split)
