"""Near-duplicates: pictures that show the same thing twice, found by features and confirmed by pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from zoo.data.base import Dataset
from zoo.device import chunks_in_order
from zoo.features.nearest import nearest
from zoo.preprocessing.picture import to_rgb

#: Side of the grey pictures that are compared, and how far one may be shifted against the other, in their pixels.
SIDE, SHIFT = 32, 2
#: Pictures whose likeness reaches this are called near-duplicates.
THRESHOLD = 0.75
#: Neighbours by features that are compared by pixels, for each picture.
CANDIDATES = 5
#: Grey levels: a picture that varies less has no structure to compare.
FLAT = 1.0
#: Side of the window whose mean is what is smooth.
SMOOTH = 7


@dataclass(frozen=True)
class Duplicates:
    """Near-duplicates among the pictures of one or more sets.

    Attributes:
        pairs: `(P, 2)` int64 rows, the more alike first, each pair once.
        likeness: `(P,)` float32 in 0..1, 1 for copies.
        group: `(N,)` int64: pictures joined by pairs share a number, -1 for all others. The largest group is 0.
    """

    pairs: np.ndarray
    likeness: np.ndarray
    group: np.ndarray

    def groups(self) -> list[np.ndarray]:
        """The rows of each group, the largest group first."""
        return [np.flatnonzero(self.group == number) for number in range(int(self.group.max(initial=-1)) + 1)]

    def across(self, split: np.ndarray) -> np.ndarray:
        """`(P,)` bool: pairs whose pictures lie in different splits; `split` `(N,)` says which."""
        return split[self.pairs[:, 0]] != split[self.pairs[:, 1]]


def near_duplicates(
    features: np.ndarray, thumbnails: np.ndarray, *, candidates: int = CANDIDATES, threshold: float = THRESHOLD
) -> Duplicates:
    """Pairs of pictures that are copies but for compression, size, brightness, a mirror or a small shift.

    Features alone cannot tell a copy from another picture of the same kind; pixels alone are costly to compare with
    all others and are fooled by plain backgrounds. So features name `candidates` neighbours of each picture, and the
    likeness of their `thumbnails` decides (`likeness`).

    Args:
        features: `(N, D)`. thumbnails: `(N, 32, 32)` uint8 as `thumbnails_of` gives.
    """
    count = len(features)
    _, rows = nearest(features, features, candidates, itself=True)
    pairs = np.stack([np.repeat(np.arange(count), rows.shape[1]), rows.ravel()], axis=1)
    # Among many copies of one picture the nearest are drawn at random: a chain through all of them joins the group.
    flat = thumbnails.reshape(count, -1)
    order = np.lexsort(flat.T[:: SIDE // 2])
    same = (flat[order[1:]] == flat[order[:-1]]).all(axis=1)
    chain = np.stack([order[:-1][same], order[1:][same]], axis=1)
    pairs = np.unique(np.sort(np.concatenate([pairs, chain]), axis=1), axis=0)
    values = np.concatenate(
        [
            likeness(thumbnails[part[:, 0]], thumbnails[part[:, 1]])
            for part in np.array_split(pairs, len(pairs) // 4096 + 1)
        ]
    )
    kept = np.flatnonzero(values >= threshold)
    kept = kept[np.argsort(-values[kept], kind="stable")]
    return Duplicates(pairs[kept], values[kept], _groups(pairs[kept], count))


def likeness(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """How alike grey pictures are, `(P,)` float32 in 0..1: the best correlation of their local detail.

    What is smooth is taken away first, so that two pictures of a clear sky are not alike. The best is taken over
    shifts of up to two pixels, a mirror, and one of the two zoomed in by a sixteenth of its side on each side.

    Args:
        first, second: `(P, 32, 32)` uint8.
    """
    from scipy.fft import irfft2

    best = np.zeros(len(first), dtype=np.float32)
    ones, others = (_spectra(first), _spectra(_zoomed(first))), (_spectra(second), _spectra(_zoomed(second)))
    for one, other in ((0, 0), (0, 1), (1, 0)):
        for mirrored in (False, True):
            a, b = ones[one][0], others[other][int(mirrored)]
            # The correlation at every shift at once; a shift to the left or up stands at the end.
            shifts = irfft2(a * b.conj(), s=(SIDE, SIDE))
            near = np.concatenate([shifts[:, -SHIFT:], shifts[:, : SHIFT + 1]], axis=1)
            near = np.concatenate([near[:, :, -SHIFT:], near[:, :, : SHIFT + 1]], axis=2)
            best = np.maximum(best, near.max(axis=(1, 2)))
    best[(first == second).all(axis=(1, 2))] = 1.0
    return best.clip(0, 1).astype(np.float32)


def _spectra(pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fourier transforms of the local detail, of mean 0 and length 1, of pictures and of their mirror images."""
    from scipy.fft import rfft2
    from scipy.ndimage import uniform_filter

    x = pictures.astype(np.float32)
    x -= uniform_filter(x, size=(0, SMOOTH, SMOOTH), mode="nearest")
    # Towards the edges detail fades out: what a shift moves in at one side has no weight.
    edge = np.minimum(1, (np.arange(SIDE) + 0.5) / 4)
    weight = np.minimum(edge, edge[::-1])
    x = (x - x.mean(axis=(1, 2), keepdims=True)) * (weight[:, None] * weight)
    length = np.sqrt((x**2).sum(axis=(1, 2), keepdims=True))
    # A picture without structure is like nothing.
    x = np.where(length > FLAT * SIDE, x / np.maximum(length, 1e-12), 0).astype(np.float32)
    return rfft2(x), rfft2(np.ascontiguousarray(x[:, :, ::-1]))


def _zoomed(pictures: np.ndarray) -> np.ndarray:
    """The middle seven eighths of each side, at the old size."""
    places = np.linspace(SIDE / 16, SIDE * 15 / 16, SIDE, endpoint=False) + SIDE * 7 / 8 / SIDE / 2 - 0.5
    weights = np.maximum(0, 1 - np.abs(places[:, None] - np.arange(SIDE))).astype(np.float32)
    return np.einsum("yi,pij,xj->pyx", weights, pictures.astype(np.float32), weights, optimize=True)


def thumbnails_of(dataset: Dataset) -> np.ndarray:
    """`(N, 32, 32)` uint8: each picture in grey, squeezed to a square.

    Raises:
        DataError: a picture cannot be read; names it.
    """

    def shrink(piece: range) -> np.ndarray:
        made = np.empty((len(piece), SIDE, SIDE), dtype=np.uint8)
        for row, index in enumerate(piece):
            grey = to_rgb(dataset.sample(index)).convert("L")
            made[row] = np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BOX))
        return made

    return np.concatenate(list(chunks_in_order(shrink, len(dataset))))


def _groups(pairs: np.ndarray, count: int) -> np.ndarray:
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    graph = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    _, part = connected_components(graph, directed=False)
    sizes = np.bincount(part)
    order = np.argsort(-sizes, kind="stable")
    number = np.full(len(sizes), -1, dtype=np.int64)
    order = order[sizes[order] > 1]
    number[order] = np.arange(len(order))
    return number[part]


def split_numbers(parts: Sequence[Dataset]) -> np.ndarray:
    """`(N,)` int64: which of `parts` each row of their concatenation comes from."""
    return np.repeat(np.arange(len(parts)), [len(part) for part in parts])
