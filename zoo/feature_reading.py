"""How samples get from a dataset to uint8 batches, ahead of the forward pass."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from zoo.data.base import Dataset
from zoo.data.images import ArrayImages, decode
from zoo.data.subset import Subset
from zoo.errors import DataError, InputError, ZooError

_AHEAD = 2  # batches read while one is computed: enough to hide a slow one, little memory
_PIECE = 32  # samples per task: small enough that all threads work on the next batch


class ImageSequence(Dataset):
    """A sequence of images without labels: PIL images, arrays, file paths; or one array `(N, H, W[, C])`."""

    name = "images"

    def __init__(self, images: Sequence[Any] | np.ndarray) -> None:
        if not (isinstance(images, np.ndarray) or hasattr(images, "__getitem__")) or not hasattr(images, "__len__"):
            raise InputError(
                f"expected a dataset, a folder, or a sequence of images, got {type(images).__name__}; "
                "put a single image or a generator's images into a list"
            )
        if isinstance(images, np.ndarray) and images.dtype != object and images.dtype.kind != "U" and images.ndim < 3:
            raise InputError(f"expected an array of images (N, H, W) or (N, H, W, 3), got shape {images.shape}")
        self.images = images

    @cached_property
    def keys(self) -> Sequence[str]:
        """The path of a sample that is a file, else its position."""
        if isinstance(self.images, np.ndarray) and self.images.dtype.kind not in "OU":
            return [str(i) for i in range(len(self.images))]
        return [os.fspath(x) if isinstance(x, (str, os.PathLike)) else str(i) for i, x in enumerate(self.images)]

    def __len__(self) -> int:
        return len(self.images)

    def sample(self, index: int) -> Any:
        """A PIL image or an array.

        Raises:
            DataError: a file is missing or no image; names it.
        """
        image = self.images[index]
        if not isinstance(image, (str, os.PathLike)):
            return image
        return decode(_file_bytes(Path(image)), os.fspath(image))

    @cached_property
    def fingerprint(self) -> str:
        """sha256 (hex) over kind, shape and content of every image; a file counts by its bytes."""
        digest = hashlib.sha256()
        for index in range(len(self)):
            item = self.images[index]
            if isinstance(item, (str, os.PathLike)):
                content, kind = _file_bytes(Path(item)), "file"
            else:
                array = np.ascontiguousarray(item)
                content, kind = array.tobytes(), f"{array.dtype}{array.shape}{getattr(item, 'mode', '')}"
            digest.update(f"{kind} {len(content)};".encode() + content)
        return digest.hexdigest()


def _file_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from error


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
                task.result()
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
