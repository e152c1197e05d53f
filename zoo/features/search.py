"""Search: pictures -> the most similar pictures of an index, as values, JSON, CSV or Parquet."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zoo.data.base import Dataset
from zoo.encoder import Encoder
from zoo.errors import DataError, InputError
from zoo.features.extract import embed
from zoo.features.index import Index, _names
from zoo.features.run import as_dataset
from zoo.features.table import FeatureTable, pyarrow_modules
from zoo.files import disk_errors, replacing, write_whole

#: What `Hits.save` writes.
SUFFIXES = (".json", ".csv", ".parquet")


@dataclass(frozen=True)
class Hits:
    """The entries of an index nearest to each query.

    Attributes:
        queries: path or name of each query.
        names: for each query the names of its hits, the nearest first: a path, or dataset/split/key.
        paths: the files of the hits; None where a hit is no file.
        similarity: `(M, k)` float32, cosine similarity in -1..1.
        pictures: the dataset of the queries, for a sheet; None where vectors were asked for.
    """

    queries: list[str]
    names: list[list[str]]
    paths: list[list[str | None]]
    similarity: np.ndarray
    pictures: Dataset | None = None

    def rows(self) -> list[dict[str, Any]]:
        """One row per query and hit: query, rank (from 1), name, path, similarity."""
        return [
            {"query": query, "rank": rank + 1, "name": name, "path": self.paths[number][rank],
             "similarity": round(float(self.similarity[number, rank]), 6)}
            for number, query in enumerate(self.queries)
            for rank, name in enumerate(self.names[number])
        ]  # fmt: skip

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the rows as `.json`, `.csv` or `.parquet`, whole or not at all.

        Raises:
            DataError: another suffix, or the disk is full. ImportError: Parquet without pyarrow.
        """
        file = Path(path)
        if file.suffix not in SUFFIXES:
            raise DataError(f"{file}: hits are written as {', '.join(SUFFIXES)}, not {file.suffix!r}")
        with disk_errors(file):
            file.parent.mkdir(parents=True, exist_ok=True)
        rows = [{k: _text(v) if isinstance(v, str) else v for k, v in row.items()} for row in self.rows()]
        if file.suffix == ".json":
            write_whole(file, json.dumps(rows, indent=1, ensure_ascii=False).encode())
        elif file.suffix == ".csv":
            text = io.StringIO()
            writer = csv.DictWriter(text, ["query", "rank", "name", "path", "similarity"], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
            write_whole(file, text.getvalue().encode())
        else:
            pa, parquet = pyarrow_modules()
            kinds = {"query": pa.string(), "rank": pa.int64(), "name": pa.string(), "path": pa.string()}
            schema = pa.schema([*kinds.items(), ("similarity", pa.float32())])
            with replacing(file) as temporary:
                parquet.write_table(pa.Table.from_pylist(rows, schema=schema), temporary)
        return file


def search(
    index: Index | str | os.PathLike[str],
    pictures: Dataset | FeatureTable | Sequence[Any] | np.ndarray | str | os.PathLike[str],
    k: int = 10,
    *,
    encoder: Encoder | None = None,
    approximate: bool = False,
    batch_size: int = 256,
    device: str | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Hits:
    """The `k` entries of an index that are most similar to each picture, by cosine similarity of features.

    Args:
        index: an `Index` or its folder.
        pictures: a sequence of pictures or paths, one path, a dataset, an address; or a `FeatureTable`, whose encoder
            has to be the index's own.
        k: at most as many as the index holds.
        encoder: the index's own; None loads it from the address that the index keeps.
        approximate: search with faiss' inverted lists, which are faster on many millions of entries and may miss some;
            the default is exact.
        batch_size, device, workers: of the forward pass, as in `zoo.extract`.
        progress: called with pictures done and pictures in all.

    Raises:
        InputError: vectors or an encoder that are not the index's; k below 1; no encoder can be loaded.
        DataError: no index, an empty one, or pictures that cannot be read.
        ImportError: `approximate` without the extra `faiss`.
    """
    found = index if isinstance(index, Index) else Index.open(index)
    if k < 1:
        raise InputError(f"k is the number of hits for each picture and at least 1, got {k}")
    if isinstance(pictures, FeatureTable):
        if pictures.encoder_sha256 != found.weights_sha256:
            raise InputError(
                f"the features were made by {pictures.encoder or 'an unknown encoder'}, {found.folder} by "
                f"{found.encoder_name}; vectors of two encoders cannot be compared"
            )
        data, vectors, queries = None, pictures.features, list(pictures.keys)
    else:
        network = _encoder(found, encoder)
        if isinstance(pictures, (str, os.PathLike)) and Path(pictures).is_file():
            pictures = [pictures]
        data = as_dataset(pictures, found.modality)
        vectors = embed(
            network, data, batch_size=batch_size, device=device, precision=found.precision, workers=workers,
            progress=progress,
        )  # fmt: skip
        queries = _names(data)[0]
    similarity, numbers, rows = found.nearest(vectors, k, approximate=approximate)
    pairs = [list(zip(*each, strict=True)) for each in zip(numbers.tolist(), rows.tolist(), strict=True)]
    entries = [part.entries for part in found.parts]
    return Hits(
        queries=queries,
        names=[[entries[number]["names"][row] for number, row in hits] for hits in pairs],
        paths=[[entries[number]["paths"][row] for number, row in hits] for hits in pairs],
        similarity=similarity,
        pictures=data,
    )


def _encoder(index: Index, encoder: Encoder | None) -> Encoder:
    if encoder is None:
        if not index.encoder:
            raise InputError(f"{index.folder} does not know where its encoder lies; give it with encoder=")
        from zoo.checkpoint.loading import load

        encoder = load(index.encoder)
    index.check_encoder(encoder)
    return encoder


def _text(value: str) -> str:
    return value.encode(errors="backslashreplace").decode()
