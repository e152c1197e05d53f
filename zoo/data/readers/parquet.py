"""Parquet files of images: an image column (struct of bytes and path, or binary) and maybe a label column."""

from __future__ import annotations

import bisect
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from zoo.data.base import Dataset, file_state
from zoo.data.labels import encode_labels
from zoo.data.reader import PathReader
from zoo.data.readers.folder import first_file
from zoo.data.tree import splits_of_files, visible_files
from zoo.device import workers
from zoo.errors import DataError
from zoo.preprocessing.picture import decode

IMAGE_NAMES = ("image", "img", "images", "png", "jpg", "jpeg", "webp", "picture", "photo")
LABEL_NAMES = ("label", "labels", "fine_label", "class", "category", "target", "y")


@dataclass(frozen=True)
class Columns:
    """Which columns hold the image and the label; `class_names` where the schema lists them."""

    image: str
    nested: bool
    label: str | None
    class_names: tuple[str, ...]


class BytesImages(Dataset):
    """Encoded images that a function hands out: `fetch(row) -> bytes`. Keys are row numbers."""

    def __init__(
        self,
        name: str,
        split: str,
        rows: int,
        labels: np.ndarray | None,
        class_names: Sequence[str],
        fetch: Callable[[int], bytes | None],
        files: Sequence[str],
        licence: str = "unknown",
    ) -> None:
        super().__init__(name, split, [str(row) for row in range(rows)], labels, class_names, licence)
        self._fetch, self._files = fetch, files

    def content(self, index: int) -> bytes:
        content = self._fetch(index)
        if content is None:
            raise DataError(f"{self._where(index)} holds no image bytes (only a path, or null); embed the images")
        return content

    def sample(self, index: int) -> Image.Image:
        return decode(self.content(index), self._where(index))

    def _where(self, index: int) -> str:
        return f"{self.name}, split {self.split!r}, row {index}"

    def _state(self) -> str | None:
        labels = "-" if self.labels is None else self.labels.tobytes().hex()
        facts = [f"{self.split}\0{labels}"] + ["-"] * (len(self._files) - 1)
        return file_state(self._files, facts) if self._files else None


def parquet_splits(address: Path) -> dict[str, list[str]]:
    """Splits of a Parquet file or folder -> their files, told by names such as `train-00000-of-00002.parquet`.

    Raises:
        DataError: no Parquet file, or only some of the file names tell a split.
    """
    address = Path(os.path.abspath(address))
    files = [str(address)] if address.is_file() else sorted(_parquet_files(address))
    if not files:
        raise DataError(f"{address} holds no .parquet file")
    base = address.parent if address.is_file() else address
    found = splits_of_files(
        [os.path.relpath(file, base) for file in files], str(address), "train-00000-of-00001.parquet"
    )
    return {split: [files[i] for i in places] for split, places in found.items()}


def open_parquet(address: Path, split: str) -> BytesImages:
    """Open one split of a Parquet file or folder; class names are those of all splits together.

    Raises:
        DataError: a file that is not Parquet, no image column, or labels that are null or not classes.
    """
    splits = parquet_splits(address)
    files = splits[split]
    columns = find_columns(_open(files[0]).schema_arrow, str(address))
    groups = _row_groups(files, columns)
    labels, names = encode_labels(_label_columns(address, splits), split, columns.class_names, str(address))
    starts = [start for start, _, _ in groups]
    rows = sum(_open(file).metadata.num_rows for file in files)

    def fetch(row: int) -> bytes | None:
        start, file, group = groups[bisect.bisect_right(starts, row) - 1]
        return _read_group(file, os.stat(file).st_mtime_ns, group, columns.image, columns.nested)[row - start].as_py()

    return BytesImages(Path(address).stem, split, rows, labels, names, fetch, files)


def has_labels(address: Path) -> bool:
    """Whether any split has a label for its samples."""
    columns = _label_columns(address, parquet_splits(address))
    return any(column is not None and any(v not in (None, -1) for v in column) for column in columns.values())


def _label_columns(address: Path, splits: dict[str, list[str]]) -> dict[str, list[Any] | None]:
    """split -> its label column, None where its files have none."""
    found = {}
    for name, files in splits.items():
        label = find_columns(_open(files[0]).schema_arrow, str(address)).label
        found[name] = None if label is None else _column(files, label)
    return found


def find_columns(schema: Any, where: str) -> Columns:
    """Find image and label columns in an Arrow schema, by Hugging Face's metadata, then type, then name.

    Raises:
        DataError: no column can hold images.
    """
    import pyarrow as pa

    features = _features(schema)

    def typed(kind: str) -> list[str]:
        return [name for name in schema.names if features.get(name, {}).get("_type") == kind]

    def struct(name: str) -> bool:
        kind = schema.field(name).type
        return pa.types.is_struct(kind) and any(kind.field(i).name == "bytes" for i in range(kind.num_fields))

    def binary(name: str) -> bool:
        kind = schema.field(name).type
        return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)

    images = [n for n in typed("Image") if struct(n)] or [n for n in schema.names if struct(n) or binary(n)]
    if not images:
        shown = ", ".join(f"{field.name}: {field.type}" for field in schema)
        raise DataError(f"{where} has no image column (binary, or a struct with bytes); its columns: {shown}")
    image = min(images, key=lambda name: _rank(name, IMAGE_NAMES))
    labels = typed("ClassLabel") or [n for n in schema.names if n.lower() in LABEL_NAMES and n != image]
    label = min(labels, key=lambda name: _rank(name, LABEL_NAMES)) if labels else None
    names = tuple(features.get(label, {}).get("names") or ()) if label else ()
    return Columns(image, struct(image), label, names)


def _rank(name: str, known: Sequence[str]) -> int:
    return known.index(name.lower()) if name.lower() in known else len(known)


def _features(schema: Any) -> dict[str, dict[str, Any]]:
    """Hugging Face's description of the columns; empty if there is none that can be read."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {name: value for name, value in features.items() if isinstance(value, dict)}
    except (KeyError, ValueError, TypeError, AttributeError):
        return {}


def _row_groups(files: Sequence[str], columns: Columns) -> list[tuple[int, str, int]]:
    """(first row, file, number of the group in its file) of every row group that has rows."""
    groups, start = [], 0
    for file in files:
        parquet = _open(file)
        if find_columns(parquet.schema_arrow, file) != columns:
            raise DataError(f"{file} has other columns than {files[0]}; keep files of one schema in the folder")
        for group in range(parquet.metadata.num_row_groups):
            rows = parquet.metadata.row_group(group).num_rows
            if rows:
                groups.append((start, file, group))
            start += rows
    return groups


def _parquet_files(folder: Path) -> list[str]:
    return [os.path.join(parent, name) for parent, name in visible_files(folder) if name.lower().endswith(".parquet")]


def _open(file: str) -> Any:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise DataError('Parquet files need pyarrow: pip install "encoder-zoo[parquet]"') from None
    try:
        return pq.ParquetFile(file)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{file} cannot be read as Parquet ({str(error).splitlines()[0]})") from None


def _column(files: Sequence[str], name: str) -> list[Any]:
    return [value for file in files for value in _open(file).read(columns=[name]).column(name).to_pylist()]


# Neighbouring rows share a row group: the groups in use by all decoding threads stay in memory.
@lru_cache(maxsize=workers() + 1)
def _read_group(file: str, modified: int, group: int, column: str, nested: bool) -> Any:
    table = _open(file).read_row_group(group, columns=[f"{column}.bytes" if nested else column])
    array = table.column(column).combine_chunks()
    return array.field("bytes") if nested else array


class Parquet(PathReader):
    """A Parquet file, or a folder whose first data file is one."""

    example = "a .parquet file or a folder of them"
    takes = ("test_share", "seed")

    @classmethod
    def fits(cls, path: Path) -> bool:
        name = path.name if path.is_file() else first_file(path)
        return name.lower().endswith(".parquet")

    def splits(self) -> list[str]:
        return list(parquet_splits(self.path))

    def divisible(self) -> bool:
        return has_labels(self.path)

    def open(self, split: str) -> BytesImages:
        return open_parquet(self.path, split)
