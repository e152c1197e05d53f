"""Duplicates: samples whose content occurs more than once."""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from zoo.data.base import Dataset
from zoo.device import chunks_in_order
from zoo.files import cache_root, write_cache

#: Part of the file name: raise it whenever the same content would give another digest.
DIGEST_VERSION = 2


def duplicates(a: Dataset, b: Dataset) -> list[tuple[int, int]]:
    """Samples of `b` whose decoded content is also in `a`: `(index in a, index in b)`, one pair per sample of `b`.

    Images are compared as 8-bit RGB pixels at their own size, so a copy in another lossless format counts.
    """
    first = _first_index(content_digests(a))
    found = ((first.get(digest.tobytes()), j) for j, digest in enumerate(content_digests(b)))
    return [(i, j) for i, j in found if i is not None]


def within(a: Dataset) -> list[tuple[int, int]]:
    """Repeated samples of `a`: `(index of the first copy, index of a later one)`."""
    return [(i, j) for i, j in duplicates(a, a) if i != j]


def overlap_report(train: Dataset, test: Dataset) -> str:
    """One line on how many test samples are exact copies of training samples, and how often labels disagree."""
    pairs = duplicates(train, test)
    share = 100 * len(pairs) / len(test)
    text = (
        f"{test.name}: {len(pairs):,} of {len(test):,} {test.split} samples ({share:.2f} %) "
        f"are exact copies of {train.split} samples"
    )
    if pairs and train.labels is not None and test.labels is not None:
        text += f", {sum(train.labels[i] != test.labels[j] for i, j in pairs):,} of them with another label"
    return text


def copies(data: Dataset, others: Sequence[Dataset] = ()) -> list[str]:
    """A sentence for each kind of exact copy: within `data`, and between it and each other split; none, no sentence."""
    repeated = len(within(data))
    sentences = [f"{repeated:,} samples are exact copies of earlier ones in this split"] if repeated else []
    return sentences + [overlap_report(other, data) for other in others if duplicates(other, data)]


def content_digests(dataset: Dataset) -> np.ndarray:
    """`(N, 16)` uint8: a BLAKE2b digest of the decoded content of each sample, kept in the cache folder.

    Raises:
        DataError: a sample cannot be decoded.
    """
    path = cache_root() / "digests" / f"{dataset.fingerprint}-v{DIGEST_VERSION}.npy"
    with contextlib.suppress(OSError, ValueError, EOFError):
        known = np.load(path, allow_pickle=False)
        if isinstance(known, np.ndarray) and known.shape == (len(dataset), 16) and known.dtype == np.uint8:
            return known

    def digests(piece: range) -> bytes:
        return b"".join(_digest(dataset.sample(index)) for index in piece)

    joined = b"".join(chunks_in_order(digests, len(dataset)))
    result = np.frombuffer(joined, dtype=np.uint8).reshape(len(dataset), 16)
    write_cache(path, _npy(result))
    return result


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def _digest(sample: Any) -> bytes:
    from zoo.preprocessing.image import to_rgb

    array = np.ascontiguousarray(sample if isinstance(sample, np.ndarray) else to_rgb(sample))
    head = f"{array.dtype.str} {array.shape}\n".encode()
    return hashlib.blake2b(head + array.tobytes(), digest_size=16).digest()


def _first_index(digests: np.ndarray) -> dict[bytes, int]:
    first: dict[bytes, int] = {}
    for index, digest in enumerate(digests):
        first.setdefault(digest.tobytes(), index)
    return first
