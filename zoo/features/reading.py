"""How samples get from a dataset to uint8 batches, ahead of the forward pass."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from zoo.data.base import Dataset, Subset
from zoo.data.images import ArrayImages, ImageSequence
from zoo.data.unreadable import refusal, unreadable
from zoo.errors import DataError, ZooError

_AHEAD = 2  # batches read while one is computed: enough to hide a slow one, little memory
_PIECE = 32  # samples per task: small enough that all threads work on the next batch
Batch = np.ndarray | list[np.ndarray]


def read_batches(data: Dataset, transform: Any, spans: Iterable[range], workers: int) -> Iterator[Batch]:
    """Preprocessed samples of each span, read ahead by threads.

    Yields:
        Images: pixels `(len(span), H, W, 3)` uint8. Skeletons: a list of `(T_i, V, C)` float32.

    Raises:
        DataError, InputError: a sample cannot be read or is none; its key is named.
    """
    pool = ThreadPoolExecutor(workers, thread_name_prefix="zoo-read")
    ahead: deque[tuple[Batch, list[Future[None]]]] = deque()
    spans = iter(spans)

    def submit() -> None:
        span = next(spans, None)
        if span is None:
            return
        batch = _empty(data, transform, len(span))
        pieces = range(0, len(span), _PIECE)
        tasks = [pool.submit(_fill, data, transform, span[p : p + _PIECE], batch, p) for p in pieces]
        ahead.append((batch, tasks))

    try:
        for _ in range(_AHEAD):
            submit()
        while ahead:
            batch, tasks = ahead.popleft()
            for task in tasks:
                try:
                    task.result()
                except DataError as error:
                    # A person mends all bad files at once rather than one a run.
                    pool.shutdown(wait=True, cancel_futures=True)
                    bad = unreadable(data)
                    raise (refusal(data, bad) if bad else error) from None
            submit()
            yield batch
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _empty(data: Dataset, transform: Any, count: int) -> Batch:
    if data.modality == "skeleton":
        return [np.empty(0)] * count
    return np.empty((count, *transform.input.size, 3), dtype=np.uint8)


def _fill(data: Dataset, transform: Any, span: range, batch: Batch, start: int) -> None:
    """Read the samples of `span` into `batch` from row `start` on."""
    stored = None if data.modality == "skeleton" else _stored(data, transform)
    if stored is not None:
        images, indices = stored
        rows = slice(span.start, span.stop)
        batch[start : start + len(span)] = images[rows if indices is None else indices[rows]]
        return
    prepare = transform.frames if data.modality == "skeleton" else transform.pixels
    for row, index in enumerate(span, start):
        try:
            batch[row] = prepare(data.sample(index))
        except DataError:
            raise  # names the sample already
        except ZooError as error:
            raise type(error)(f"sample {data.keys[index]!r}: {error}") from error
        except (OSError, ValueError, SyntaxError) as error:  # PIL, on damaged files it decodes lazily
            raise DataError(f"sample {data.keys[index]!r} of {data.name} cannot be read: {error}") from error


def _stored(data: Dataset, transform: Any) -> tuple[np.ndarray, np.ndarray | None] | None:
    """Pixels that already are what the transform would give, and which of them: None if there are none such."""
    indices = None
    if isinstance(data, Subset):
        data, indices = data.parent, data.indices
    images = data.images if isinstance(data, (ImageSequence, ArrayImages)) else None
    wanted = (*transform.input.size, 3)
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.shape[1:] != wanted:
        return None
    return (images, indices) if transform.input.crop_fraction == 1 else None
