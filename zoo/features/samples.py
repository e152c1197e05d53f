"""Samples as rows that FiftyOne, Renumics Spotlight and pandas open, and as torch and Hugging Face datasets."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from zoo.data.base import Dataset, FileDataset, Subset
from zoo.data.joined import Joined
from zoo.errors import DataError, InputError
from zoo.features.table import FeatureTable, pyarrow_modules
from zoo.files import disk_errors, replacing

if TYPE_CHECKING:
    import datasets
    import torch

#: Columns that every table of samples has, in this order; those of `Samples.columns` come before the feature.
COLUMNS = ("path", "key", "split", "label", "class", "x", "y", "feature")
#: Rows that are turned into text or Arrow at once.
ROWS = 4096


@dataclass(eq=False)
class Samples:
    """One row per sample: where its file lies, what it is, and its feature.

    Attributes:
        path: absolute path of each sample's file; None where it has none.
        key: its name within the dataset.
        split: of each sample.
        label: `(N,)` int64 class indices, or None.
        class_names: one name per class.
        feature: `(N, D)` float32.
        coordinates: `(N, 2)` float32 places on a map, NaN for samples that are not on it; None without a map.
        columns: further columns, name -> N values of text, numbers or None.
    """

    path: Sequence[str | None]
    key: Sequence[str]
    split: Sequence[str]
    label: np.ndarray | None
    class_names: Sequence[str]
    feature: np.ndarray
    coordinates: np.ndarray | None = None
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, values in self._lists().items():
            if len(values) != len(self.feature):
                raise InputError(f"column {name!r} has {len(values)} values for {len(self.feature)} samples")
        taken = [name for name in self.columns if name in COLUMNS]
        if taken:
            raise InputError(f"columns {taken} are those of every table; choose other names")

    def __len__(self) -> int:
        return len(self.feature)

    @classmethod
    def of(cls, parts: Sequence[tuple[FeatureTable, Dataset]], **named: Any) -> Samples:
        """The rows of tables and the datasets they were extracted from, one part after the other.

        Args:
            parts: at least one; all from the same encoder. A part without labels leaves all without.
            named: `coordinates` and `columns` over all rows.

        Raises:
            InputError: a table and its dataset, or two tables, that do not belong together.
        """
        tables = [table for table, _ in parts]
        for table, dataset in parts:
            if len(table) != len(dataset) or table.fingerprint != dataset.fingerprint:
                raise InputError(
                    f"the features are of {table.dataset}/{table.split}, not of {dataset.name}/{dataset.split} as it "
                    "is now; extract them again"
                )
            if table.encoder_sha256 != tables[0].encoder_sha256 or table.class_names != tables[0].class_names:
                raise InputError("the tables come from different encoders or have different classes; write each alone")
        labels = [table.labels for table in tables]
        whole = not any(each is None for each in labels)
        return cls(
            path=[path for _, dataset in parts for path in sample_paths(dataset)],
            key=[key for table in tables for key in table.keys],
            split=[table.split for table in tables for _ in table.keys],
            label=np.concatenate(labels) if whole else None,
            class_names=tables[0].class_names,
            feature=tables[0].features if len(tables) == 1 else np.concatenate([table.features for table in tables]),
            **named,
        )

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write a `.parquet` (features as lists of float32) or a `.csv` (features as JSON lists); whole or not at all.

        Raises:
            DataError: another suffix, or the disk is full. ImportError: Parquet without pyarrow.
        """
        file = Path(path)
        if file.suffix not in (".parquet", ".csv"):
            raise DataError(f"{file}: samples are written as .parquet or .csv, not {file.suffix!r}")
        with disk_errors(file):
            file.parent.mkdir(parents=True, exist_ok=True)
        write = self._write_parquet if file.suffix == ".parquet" else self._write_csv
        with replacing(file) as temporary, open(temporary, "wb") as opened:
            write(opened)
        return file

    def to_torch(self) -> torch.utils.data.TensorDataset:
        """(feature, label) pairs; features alone without labels."""
        import torch

        tensors = [torch.from_numpy(np.array(self.feature, dtype=np.float32))]
        if self.label is not None:
            tensors.append(torch.from_numpy(np.array(self.label, dtype=np.int64)))
        return torch.utils.data.TensorDataset(*tensors)

    def to_huggingface(self) -> datasets.Dataset:
        """A `datasets.Dataset` with the columns of the Parquet file; labels are a `ClassLabel`.

        Raises:
            ImportError: without the extra `datasets`.
        """
        try:
            import datasets
        except ImportError:
            raise ImportError("this needs Hugging Face datasets: pip install 'encoder-zoo[datasets]'") from None
        pa, _ = pyarrow_modules()
        made = datasets.Dataset(pa.Table.from_batches(self._batches(pa), schema=self._schema(pa)))
        if self.label is None or not self.class_names:
            return made
        return made.cast_column("label", datasets.ClassLabel(names=list(self.class_names)))

    def _lists(self) -> dict[str, Sequence[Any]]:
        """Every column but the feature and the map, as it stands."""
        found: dict[str, Sequence[Any]] = {"path": self.path, "key": self.key, "split": self.split}
        if self.label is not None:
            found["label"] = self.label
        if self.coordinates is not None:
            found["coordinates"] = self.coordinates
        return found | dict(self.columns)

    def _rows(self, rows: slice) -> dict[str, list[Any]]:
        """Some rows of every column but the feature, as plain Python values."""
        count, names = len(range(len(self))[rows]), self.class_names
        labels = [None] * count if self.label is None else self.label[rows].tolist()
        places = np.full((count, 2), np.nan) if self.coordinates is None else self.coordinates[rows]
        found = {
            "path": [_text(path) for path in self.path[rows]],
            "key": [_text(key) for key in self.key[rows]],
            "split": list(self.split[rows]),
            "label": labels,
            "class": [names[i] if i is not None and 0 <= i < len(names) else None for i in labels],
            "x": [None if np.isnan(x) else float(x) for x in places[:, 0]],
            "y": [None if np.isnan(y) else float(y) for y in places[:, 1]],
        }
        for name, values in self.columns.items():
            part = values[rows]
            found[name] = part.tolist() if isinstance(part, np.ndarray) else list(part)
        return found

    def _write_csv(self, file: Any) -> None:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow([*COLUMNS[:-1], *self.columns, COLUMNS[-1]])
        for low in range(0, len(self), ROWS):
            rows = slice(low, low + ROWS)
            # Nine digits give back the very float32.
            features = [json.dumps([float(f"{v:.9g}") for v in row]) for row in self.feature[rows].tolist()]
            writer.writerows(zip(*self._rows(rows).values(), features, strict=True))
        text.detach()

    def _write_parquet(self, file: Any) -> None:
        pa, parquet = pyarrow_modules()
        with parquet.ParquetWriter(file, self._schema(pa)) as writer:
            for batch in self._batches(pa):
                writer.write_batch(batch)

    def _schema(self, pa: Any) -> Any:
        kinds = {name: pa.string() for name in ("path", "key", "split", "class")}
        kinds |= {"label": pa.int64(), "x": pa.float32(), "y": pa.float32()}
        own = [(name, pa.array(_plain(values)).type) for name, values in self.columns.items()]
        fields = [(name, kinds[name]) for name in COLUMNS[:-1]]
        # A plain list, not one of fixed size: pandas and FiftyOne read it without further ado.
        return pa.schema([*fields, *own, ("feature", pa.list_(pa.float32()))])

    def _batches(self, pa: Any) -> list[Any]:
        schema = self._schema(pa)
        width = self.feature.shape[1]

        def batch(low: int) -> Any:
            rows = slice(low, low + ROWS)
            block = np.ascontiguousarray(self.feature[rows], dtype=np.float32)
            ends = pa.array(np.arange(0, block.size + 1, width, dtype=np.int32))
            feature = pa.ListArray.from_arrays(ends, pa.array(block.reshape(-1)))
            plain = self._rows(rows)
            arrays = [pa.array(plain[each.name], type=each.type) for each in schema if each.name != "feature"]
            return pa.RecordBatch.from_arrays([*arrays, feature], schema=schema)

        return [batch(low) for low in range(0, len(self), ROWS)]


def sample_paths(dataset: Dataset) -> list[str | None]:
    """Absolute path of each sample's file; None for samples that are not files of their own."""
    if isinstance(dataset, Subset):
        paths = sample_paths(dataset.parent)
        return [paths[i] for i in dataset.indices.tolist()]
    if isinstance(dataset, Joined):
        return [path for part in dataset.parts for path in sample_paths(part)]
    if isinstance(dataset, FileDataset):
        return [os.path.abspath(path) for path in dataset.paths]
    items = getattr(dataset, "images", None)
    if isinstance(items, (list, tuple)):
        return [os.path.abspath(item) if isinstance(item, (str, os.PathLike)) else None for item in items]
    return [None] * len(dataset)


def _text(value: str | None) -> str | None:
    """Names that are not UTF-8 occur in file systems; neither format can hold them."""
    return None if value is None else value.encode(errors="backslashreplace").decode()


def _plain(values: Sequence[Any]) -> list[Any]:
    return values.tolist() if isinstance(values, np.ndarray) else list(values)
