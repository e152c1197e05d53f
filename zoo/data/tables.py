"""Small tables of text as people keep labels in: CSV, TSV, JSON lines, Parquet, and lists such as `train.txt`."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.errors import DataError

SUFFIXES = (".csv", ".tsv", ".txt", ".jsonl", ".parquet")
#: Column names by meaning, lower case, best first.
FILE_NAMES = ("file_name", "filename", "file", "path", "filepath", "file_path", "image_path", "image", "img") + (
    "image_name",
    "image_id",
    "name",
    "id",
)
LABEL_NAMES = ("label", "labels", "class", "class_name", "category", "target", "species", "breed", "y", "class_id")
SPLIT_NAMES = ("split", "set", "subset", "partition", "phase")
#: Whether a name in a table is that of a picture.
Exists = Callable[[str], bool]


@dataclass(frozen=True)
class Table:
    """The rows of a label file: names of files, and labels and splits where the file has such columns."""

    files: list[str]
    labels: list[Any] | None
    splits: list[str] | None


def read_table(path: Path, exists: Exists) -> Table:
    """Read a label file; which column is which is told by its name, and for the files by what exists.

    Raises:
        DataError: it cannot be read, or no column names files that exist.
    """
    if path.suffix.lower() == ".txt":
        return _list(path, exists)
    header, rows = _rows(path)
    if not rows and header:  # a single line
        header, rows = [str(i) for i in range(len(header))], [header]
    lower = [str(name).strip().lower() for name in header]
    if rows and any(exists(str(cell)) for cell in header):  # there is no header
        rows.insert(0, list(header))
        lower = ["file", "label", "split", *map(str, range(3, len(header)))][: len(header)]
    known = [lower.index(name) for name in FILE_NAMES if name in lower]
    file = next((i for i in known if _names_files(rows, i, exists)), None)
    if file is None:  # another name: only whole names of files count, as any number may be one without its ending
        file = next((i for i in range(len(lower)) if _names_files(rows, i, lambda x: "." in x and exists(x))), None)
    if file is None:
        raise DataError(
            f"{path} holds no dataset: none of its columns ({', '.join(map(str, header))}) names pictures that lie "
            "beside it; expected a column `file`, and `label`, with paths relative to the table"
        )
    label = next((lower.index(name) for name in LABEL_NAMES if name in lower and lower.index(name) != file), None)
    split = next((lower.index(name) for name in SPLIT_NAMES if name in lower and lower.index(name) != file), None)
    if label is None and len(lower) == 2:
        label = 1 - file if split is None else None
    labels = None if label is None else [row[label] for row in rows]
    if labels is not None and path.suffix.lower() in (".csv", ".tsv"):
        labels = _numbers([None if not str(value).strip() else str(value).strip() for value in labels])
    splits = None if split is None else [str(row[split]).strip() for row in rows]
    return Table([str(row[file]).strip() for row in rows], labels, splits)


def _numbers(labels: list[str | None]) -> list[Any]:
    """Text that is whole numbers throughout becomes numbers, so that 10 comes after 9."""
    try:
        return [None if value is None else int(value) for value in labels]
    except ValueError:
        return labels


def _names_files(rows: list[list[Any]], column: int, exists: Exists) -> bool:
    return any(isinstance(row[column], str | int) and exists(str(row[column]).strip()) for row in rows[:50])


def _rows(path: Path) -> tuple[list[str], list[list[Any]]]:
    try:
        if path.suffix.lower() == ".parquet":
            return _parquet_rows(path)
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as a table ({error}); save it as UTF-8 text") from None
    if path.suffix.lower() == ".jsonl":
        return _json_rows(path, text)
    first = text.partition("\n")[0]
    separator = max("\t;,", key=first.count) if path.suffix.lower() == ".csv" else "\t"
    rows = [row for row in csv.reader(text.splitlines(), delimiter=separator) if any(cell.strip() for cell in row)]
    if not rows:
        raise DataError(f"{path} holds no dataset: it is empty")
    wrong = next((i for i, row in enumerate(rows) if len(row) != len(rows[0])), None)
    if wrong is not None:
        raise DataError(
            f"{path}, row {wrong + 1}: {len(rows[wrong])} cells, but {len(rows[0])} columns; put quotes around text "
            f"that holds {separator!r}"
        )
    return rows[0], rows[1:]


def _json_rows(path: Path, text: str) -> tuple[list[str], list[list[Any]]]:
    try:
        records = [json.loads(line) for line in text.splitlines() if line.strip()]
        header = list(dict.fromkeys(key for record in records for key in record))
        return header, [[record.get(name) for name in header] for record in records]
    except (ValueError, AttributeError) as error:
        raise DataError(f"{path} is no file of JSON lines ({error})") from None


def _parquet_rows(path: Path) -> tuple[list[str], list[list[Any]]]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise DataError('Parquet files need pyarrow: pip install "encoder-zoo[parquet]"') from None
    try:
        table = pq.read_table(path)
    except pa.ArrowException as error:
        raise DataError(f"{path} cannot be read as Parquet ({str(error).splitlines()[0]})") from None
    columns = [column.to_pylist() for column in table.columns]
    return table.column_names, [list(row) for row in zip(*columns, strict=True)]


def _list(path: Path, exists: Exists) -> Table:
    """`path`, `path label`, `path,label` or `path<TAB>label` on each line; names of files may hold spaces."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as a list ({error}); save it as UTF-8 text") from None
    for separator in (None, "\t", ",", ";", " "):
        pairs = [(line, "") if separator is None else tuple(line.rpartition(separator)[::2]) for line in lines]
        if any(exists(file.strip()) for file, _ in pairs[:50]):
            files = [file.strip() for file, _ in pairs]
            return Table(files, None if separator is None else _numbers([label.strip() for _, label in pairs]), None)
    raise DataError(f"{path} holds no dataset: its lines name no pictures that lie beside it; such as {lines[:1]}")
