"""Exact nearest neighbours by cosine similarity, block by block: a memory map larger than memory is never copied."""

from __future__ import annotations

import warnings

import numpy as np
import torch

from zoo.errors import InputError

#: Numbers held at once, of the bank and of similarities each: 128 MiB of float32.
BLOCK = 1 << 25


def nearest(
    queries: np.ndarray,
    bank: np.ndarray,
    k: int,
    *,
    itself: bool = False,
    lengths: np.ndarray | None = None,
    skip: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The `k` rows of `bank` that are most similar to each query, the most similar first.

    Args:
        queries: `(M, D)`. bank: `(N, D)`, an array or a memory map; neither has to be of length 1.
        k: at most N are given (N - 1 with `itself`, without those of `skip`).
        itself: query i is row i of the bank, and no neighbour of itself.
        lengths: `(N,)` Euclidean lengths of the rows of the bank, where they are known already.
        skip: `(N,)` bool, rows of the bank that are no answer.

    Returns:
        Similarities `(M, k)` float32 in -1..1 and rows `(M, k)` int64. A vector of zeros has similarity 0 to all.

    Raises:
        InputError: shapes that do not fit, k below 1, an empty bank, NaN or infinite queries.
    """
    if queries.ndim != 2 or bank.ndim != 2 or queries.shape[1] != bank.shape[1]:
        raise InputError(f"expected queries (M, D) and a bank (N, D), got {queries.shape} and {bank.shape}")
    count = min(k, len(bank) - itself - (0 if skip is None else int(skip.sum())))
    if k < 1 or count < 1 or (itself and len(queries) != len(bank)):
        raise InputError(f"cannot find {k} neighbours for {len(queries)} queries in a bank of {len(bank)} rows")
    if not np.isfinite(queries).all():
        raise InputError("the queries hold NaN or infinite values; look at what made them")
    asked = torch.from_numpy(_unit(queries))
    values = torch.full((len(asked), count), -torch.inf)
    rows = torch.zeros((len(asked), count), dtype=torch.int64)
    width = max(1, BLOCK // max(1, bank.shape[1]))
    for start in range(0, len(bank), width):
        part = np.ascontiguousarray(bank[start : start + width], dtype=np.float32)
        scale = np.linalg.norm(part, axis=1) if lengths is None else lengths[start : start + width]
        scale = torch.from_numpy(1 / np.maximum(scale, 1e-12).astype(np.float32))
        block = _tensor(part)
        step = max(1, BLOCK // len(block))
        for low in range(0, len(asked), step):
            chosen = slice(low, low + step)
            found = (asked[chosen] @ block.T).mul_(scale)
            if skip is not None:
                found[:, torch.from_numpy(skip[start : start + width])] = -torch.inf
            if itself:
                _mask_itself(found, low, start)
            _merge(values[chosen], rows[chosen], found, start)
    return values.clamp(-1, 1).numpy(), rows.numpy()


def _tensor(part: np.ndarray) -> torch.Tensor:
    """The numbers as a tensor without a copy; torch warns of read-only maps, but nothing is written here."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(part)


def _mask_itself(found: torch.Tensor, query: int, row: int) -> None:
    """Take out the pairs of a sample with itself; the block starts at `query` and `row`."""
    first, last = max(query, row), min(query + found.shape[0], row + found.shape[1])
    if first < last:
        both = torch.arange(first, last)
        found[both - query, both - row] = -torch.inf


def _merge(values: torch.Tensor, rows: torch.Tensor, found: torch.Tensor, start: int) -> None:
    """Put the best of a block into the best so far, in place."""
    best, place = found.topk(min(values.shape[1], found.shape[1]), dim=1)
    all_values, all_rows = torch.cat([values, best], dim=1), torch.cat([rows, place + start], dim=1)
    order = all_values.topk(values.shape[1], dim=1)
    values.copy_(order.values)
    rows.copy_(all_rows.gather(1, order.indices))


def _unit(features: np.ndarray) -> np.ndarray:
    x = np.array(features, dtype=np.float32)
    return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
