"""A dataset of images that looks like an array of squares and keeps nothing: what is asked for is decoded then."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from zoo.data.base import Dataset
from zoo.errors import DataError
from zoo.preprocessing.image import resize_and_crop, to_rgb

#: Pictures that one thread reads in one go.
PIECE = 4


class WholePictures:
    """Rows of an array `(N, side, side, 3)` uint8 as a pixel cache holds it, each decoded when it is asked for.

    Args:
        dataset: of images.
        side: in pixels.
        workers: threads that decode.

    Raises:
        DataError: no images.
    """

    def __init__(self, dataset: Dataset, side: int, workers: int) -> None:
        if dataset.modality != "image":
            raise DataError(f"{dataset.name} holds {dataset.modality} samples; only images can be streamed")
        self.dataset = dataset
        self.pool = ThreadPoolExecutor(workers, thread_name_prefix="pictures")
        self.shape = (len(dataset), side, side, 3)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """Raises DataError if a picture cannot be decoded; names it."""
        side = self.shape[1]
        out = np.empty((len(rows), *self.shape[1:]), dtype=np.uint8)

        def read(piece: range) -> None:
            for place in piece:
                picture = to_rgb(self.dataset.sample(int(rows[place])))
                out[place] = resize_and_crop(picture, (side, side), 1.0, "bicubic")

        wait_for([self.pool.submit(read, piece) for piece in pieces(len(rows))])
        return out


def pieces(count: int) -> list[range]:
    """`range(count)` in parts for the threads."""
    return [range(start, min(start + PIECE, count)) for start in range(0, count, PIECE)]


def wait_for(futures: Sequence[Future]) -> None:
    """Until all have ended, so that none works on when the first error is raised here."""
    for future in futures:
        future.exception()
    for future in futures:
        future.result()
