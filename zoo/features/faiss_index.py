"""Approximate search with faiss, for indexes of so many millions that exact search takes too long."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.files import replacing

if TYPE_CHECKING:
    from zoo.features.index import Index

#: Rows that are added at once, and rows for each list that the lists are learnt from.
ROWS, TRAINING = 65_536, 64
#: Share of the lists that a query looks into: more is slower and nearer to exact.
PROBED = 1 / 8


def nearest(index: Index, vectors: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`Index.nearest` by faiss' inverted lists (`IVF,Flat`), which find most but not always all of the nearest.

    The lists are made once, kept as `faiss.index` in the folder, and made again when the index has changed.

    Raises:
        ImportError: without the extra `faiss`.
    """
    try:
        import faiss
    except ImportError:
        raise ImportError("approximate search needs faiss: pip install 'encoder-zoo[faiss]'") from None
    numbers = np.concatenate([np.full(part.rows - len(part.dropped), i) for i, part in enumerate(index.parts)])
    rows = np.concatenate([np.flatnonzero(~part.skip) for part in index.parts])
    lists = _lists(faiss, index)
    lists.nprobe = max(1, round(PROBED * lists.nlist))
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    similarity, found = lists.search(np.ascontiguousarray(unit, dtype=np.float32), min(k, len(rows)))
    # A list that is looked into may hold fewer than k; faiss then says -1.
    kept = int((found >= 0).all(axis=0).sum())
    found = found[:, :kept]
    return similarity[:, :kept].clip(-1, 1), numbers[found], rows[found]


def _lists(faiss: Any, index: Index) -> Any:
    """The faiss index of all entries, from the folder where it is up to date."""
    stamp = hashlib.sha256((index.folder / "index.json").read_bytes()).hexdigest()
    file, mark = index.folder / "faiss.index", index.folder / "faiss.sha256"
    if file.is_file() and mark.is_file() and mark.read_text() == stamp:
        return faiss.read_index(str(file))
    count = max(1, min(round(4 * len(index) ** 0.5), len(index) // 39))  # faiss wants 39 rows for each list
    made = faiss.index_factory(index.num_features, f"IVF{count},Flat", faiss.METRIC_INNER_PRODUCT)
    drawn = np.random.default_rng(0).permutation(len(index))[: TRAINING * count]
    blocks = _blocks(index)
    learnt, low = [], 0
    for part, live in blocks:
        chosen = np.sort(drawn[(drawn >= low) & (drawn < low + len(live))]) - low
        learnt.append(_unit(part, live[chosen]))
        low += len(live)
    made.train(np.concatenate(learnt))
    for part, live in blocks:
        for start in range(0, len(live), ROWS):
            made.add(_unit(part, live[start : start + ROWS]))
    mark.unlink(missing_ok=True)
    with replacing(file) as temporary:
        faiss.write_index(made, str(temporary))
    with replacing(mark) as temporary:
        temporary.write_text(stamp)
    return made


def _blocks(index: Index) -> list[tuple[Any, np.ndarray]]:
    return [(part, np.flatnonzero(~part.skip)) for part in index.parts]


def _unit(part: Any, rows: np.ndarray) -> np.ndarray:
    lengths = np.maximum(part.lengths[rows], 1e-12)
    return np.ascontiguousarray(part.features[rows] / lengths[:, None], dtype=np.float32)
