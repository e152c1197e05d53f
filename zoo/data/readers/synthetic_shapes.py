"""`synthetic:shapes`: images drawn on the spot, for tests and the smoke recipe."""

from __future__ import annotations

from urllib.parse import parse_qsl

import numpy as np

from zoo.data.images import ArrayImages
from zoo.data.reader import Address, Reader
from zoo.errors import DataError, UnknownNameError, nearest

SPLITS = ("train", "test")
CLASSES = ("disc", "ring", "square", "triangle", "cross", "star", "half_disc", "bars")
#: parameter -> (default, lowest, highest)
PARAMETERS = {"n": (2048, len(CLASSES), 1_000_000), "size": (32, 8, 256), "seed": (0, 0, 2**31 - 1)}


def set_name(address: str) -> str:
    """`synthetic:NAME[?...]` -> NAME."""
    return address.removeprefix("synthetic:").partition("?")[0]


def parse_parameters(address: str, known: dict[str, tuple[int, int, int]]) -> dict[str, int]:
    """The values after the `?` of an address; `known`: parameter -> (default, lowest, highest).

    Raises:
        UnknownNameError: another parameter.
        DataError: a value that is not a whole number in range.
    """
    values = {key: default for key, (default, _, _) in known.items()}
    for key, text in parse_qsl(address.partition("?")[2], keep_blank_values=True):
        if key not in known:
            raise UnknownNameError(f"{address}: no parameter {key!r}; {nearest(key, list(known))}")
        _, low, high = known[key]
        if not text.isdecimal() or not low <= int(text) <= high:
            raise DataError(f"{address}: {key} must be a whole number in {low}..{high}, got {text!r}")
        values[key] = int(text)
    return values


def open_synthetic(address: str, split: str) -> ArrayImages:
    """Coloured shapes on textured backgrounds; `train` has n images, `test` max(8, n // 4) other ones.

    Position, scale, rotation and all colours are random, so that pixels alone tell little of the class.
    The same address gives the same images.
    """
    parameters = parse_parameters(address, PARAMETERS)
    count = parameters["n"] if split == "train" else max(len(CLASSES), parameters["n"] // 4)
    generator = np.random.Generator(np.random.PCG64([parameters["seed"], SPLITS.index(split)]))
    labels = np.arange(count, dtype=np.int64) % len(CLASSES)
    images = np.empty((count, parameters["size"], parameters["size"], 3), dtype=np.uint8)
    for start in range(0, count, 256):  # bounded memory
        part = slice(start, start + 256)
        images[part] = draw(labels[part], parameters["size"], generator)
    return ArrayImages("synthetic_shapes", split, images, labels, CLASSES, licence="MIT (generated)")


def draw(labels: np.ndarray, size: int, generator: np.random.Generator) -> np.ndarray:
    """One image per label: uint8 `(N, size, size, 3)`."""
    count = len(labels)
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size
    y, x = np.broadcast_to(axis[:, None], (size, size)), np.broadcast_to(axis[None], (size, size))

    def uniform(low: float, high: float, *shape: int) -> np.ndarray:
        return generator.uniform(low, high, (count, *shape)).astype(np.float32)

    radius = uniform(0.18, 0.34, 1, 1)
    centre_x, centre_y = (uniform(0, 1, 1, 1) * (1 - 2 * radius) + radius for _ in range(2))
    angle = uniform(-0.4, 0.4, 1, 1)
    u, v = (x - centre_x) / radius, (y - centre_y) / radius
    cos, sin = np.cos(angle), np.sin(angle)
    level = _inside(cos * u + sin * v, cos * v - sin * u, labels)
    # `level` grows by 1 per radius: half a pixel on either side of the edge is blended.
    mask = np.clip(level * radius * size + 0.5, 0, 1)[..., None]

    background = uniform(0, 1, 1, 1, 3)
    # The shape's colour keeps a distance from the background's in at least one channel, never in a fixed direction.
    shift = uniform(0.35, 0.65, 1, 1, 3)
    foreground = np.mod(background + shift, 1)
    texture = _gratings(x, y, uniform)
    noise = generator.normal(0, 0.04, (count, size, size, 3)).astype(np.float32)
    image = background + texture + (foreground - background - 0.5 * texture) * mask + noise
    return np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)


def _gratings(x: np.ndarray, y: np.ndarray, uniform) -> np.ndarray:
    """Two random waves per image, `(N, size, size, 3)`."""
    total = 0
    for _ in range(2):
        direction, frequency, phase = uniform(0, 2 * np.pi, 1, 1), uniform(1, 6, 1, 1), uniform(0, 2 * np.pi, 1, 1)
        wave = np.sin(2 * np.pi * frequency * (x * np.cos(direction) + y * np.sin(direction)) + phase)
        total = total + wave[..., None] * uniform(-0.12, 0.12, 1, 1, 3)
    return total


def _inside(u: np.ndarray, v: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """> 0 inside the shape of each label, 0 at its edge; u to the right and v down in units of its radius."""
    r, theta = np.hypot(u, v), np.arctan2(u, -v)
    level = np.empty_like(u)
    formulas = {
        "disc": lambda u, v, r, t: 0.9 - r,
        "ring": lambda u, v, r, t: 0.22 - np.abs(r - 0.72),
        "square": lambda u, v, r, t: 0.75 - np.maximum(np.abs(u), np.abs(v)),
        "triangle": lambda u, v, r, t: 0.5 - r * np.cos(np.mod(t + np.pi / 3, 2 * np.pi / 3) - np.pi / 3),
        "cross": lambda u, v, r, t: np.minimum(
            0.95 - np.maximum(np.abs(u), np.abs(v)), 0.28 - np.minimum(np.abs(u), np.abs(v))
        ),
        "star": lambda u, v, r, t: 0.4 + 0.6 * np.abs(np.mod(t * 5 / (2 * np.pi), 1) * 2 - 1) - r,
        "half_disc": lambda u, v, r, t: np.minimum(0.95 - r, v + 0.2),
        "bars": lambda u, v, r, t: np.minimum(0.9 - np.abs(u), 0.22 - np.abs(np.abs(v) - 0.55)),
    }
    for label, name in enumerate(CLASSES):
        rows = labels == label
        level[rows] = formulas[name](u[rows], v[rows], r[rows], theta[rows])
    return level


class SyntheticReader(Reader):
    """A drawn set: one of `names`, maybe with parameters behind a question mark."""

    @classmethod
    def recognises(cls, address: Address) -> bool:
        return not address.is_path and address.text.partition("?")[0] in cls.names

    def splits(self) -> list[str]:
        return list(SPLITS)


class Shapes(SyntheticReader):
    """`synthetic:shapes`."""

    example = "'synthetic:shapes'"
    names = ("synthetic:shapes",)

    def open(self, split: str) -> ArrayImages:
        return open_synthetic(self.address.text, split)
