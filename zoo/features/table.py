"""`FeatureTable`, and how it lies on disk: `.npz`, `.npy` with a JSON sidecar, Parquet."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from zoo.data.labels import class_indices
from zoo.errors import DataError, UnknownNameError, nearest
from zoo.files import disk_errors, replacing, replacing_vouched

SUFFIXES = (".npz", ".npy", ".parquet")
FORMAT = "encoder-zoo-features-1"
_ROWS = 8192  # rows per Parquet group and per copied block: bounds the memory of a save


@dataclass(eq=False, repr=False)
class FeatureTable:
    """Frozen features of a dataset, with all that is needed to use them or to make them again.

    Attributes:
        features: `(N, D)` float32, an array or a read-only memory map.
        labels: `(N,)` int64 class indices, or None.
        keys: one identifier per sample.
        class_names: one name per class; empty without labels.
        dataset, split, fingerprint: what was read, with the hash of its content.
        encoder: name of the encoder.
        encoder_sha256: `encoder_fingerprint` of the encoder that ran; None if unknown.
        precision: what the forward pass ran in: `"fp32"`, `"bf16"` or `"fp16"`.
        origin: hash of all that the values depend on (weights, preprocessing, data, precision, batch size):
            `extract` knows a finished file by it.
        columns: name and shape per sample of each group of columns, where the features are those of several layers.
    """

    features: np.ndarray
    labels: np.ndarray | None
    keys: Sequence[str]
    class_names: tuple[str, ...] = ()
    dataset: str = ""
    split: str = "all"
    fingerprint: str = ""
    encoder: str = ""
    encoder_sha256: str | None = None
    precision: str = "fp32"
    origin: str = ""
    columns: tuple[tuple[str, tuple[int, ...]], ...] = ()

    def column(self, name: str) -> np.ndarray:
        """The features of one layer: `(N, D)`, or `(N, C, H, W)` where every place was kept.

        Raises:
            UnknownNameError: the table has no such layer.
        """
        start = 0
        for known, shape in self.columns:
            stop = start + math.prod(shape)
            if known == name:
                return self.features[:, start:stop].reshape(len(self), *shape)
            start = stop
        known = [each for each, _ in self.columns]
        raise UnknownNameError(f"the table has no layer {name!r}; {nearest(name, known)}")

    def __len__(self) -> int:
        return len(self.features)

    def __repr__(self) -> str:
        """`<FeatureTable 10,000 x 512 of cifar10/test by simclr_airbench95_cifar10, 10 classes, bf16>`."""
        classes = f"{len(self.class_names)} classes" if self.labels is not None else "no labels"
        rows, columns = self.features.shape
        source = f" of {self.dataset}/{self.split} by {self.encoder}" if self.dataset else ""
        return f"<FeatureTable {rows:,} x {columns:,}{source}, {classes}, {self.precision}>"

    def metadata(self) -> dict[str, Any]:
        """Everything but the per-sample fields, as plain JSON values."""
        plain = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("features", "labels", "keys")}
        return plain | {"class_names": list(self.class_names), "format": FORMAT}

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the table; a file of that name is replaced only once the new one is complete.

        Args:
            path: `.npz` (features, labels, keys, class_names, metadata), `.npy` (labels, keys and metadata in a
                `.json` beside it), `.parquet` (a row per sample: key, label, class, feature), or a folder.

        Returns:
            The file written.

        Raises:
            DataError: another suffix, or the disk is full.
            ImportError: Parquet without pyarrow.
        """
        file = feature_path(path)
        save(self, file)
        return file

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> FeatureTable:
        """Read a table that `save` or `extract` wrote; a `.npy` comes as a memory map. Nothing is unpickled.

        Raises:
            DataError: missing, unfinished, damaged, or not a feature table.
        """
        return cls(**load(feature_path(path)))


def feature_path(path: str | os.PathLike[str]) -> Path:
    """The file that `path` means: itself, or `features.npy` inside it where it names a folder.

    Raises:
        DataError: a suffix other than .npz, .npy, .parquet.
    """
    path = Path(path)
    if path.is_dir() or not path.suffix:
        return path / "features.npy"
    if path.suffix not in SUFFIXES:
        raise DataError(f"{path}: features are written as .npz, .npy, .parquet or into a folder, not {path.suffix!r}")
    return path


def save(table: FeatureTable, path: Path) -> None:
    """Write `table` in the format that the suffix of `path` names; replaces the file in one step."""
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npz":
        _replace(path, lambda file: _write_npz(table, file))
    elif path.suffix == ".parquet":
        _replace(path, lambda file: _write_parquet(table, file))
    else:
        # Without its sidecar, a .npy is not a finished table.
        with replacing_vouched(path, sidecar_path(path)) as (features, sidecar):
            with open(features, "wb") as file:
                np.lib.format.write_array(file, _float32(table), allow_pickle=False)
            sidecar.write_bytes(sidecar_of(table))


def sidecar_of(table: FeatureTable) -> bytes:
    """The JSON file beside a `.npy`: labels, keys and metadata."""
    labels = None if table.labels is None else table.labels.tolist()
    return json.dumps(table.metadata() | {"rows": len(table), "labels": labels, "keys": list(table.keys)}).encode()


def _replace(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    with replacing(path) as temporary, open(temporary, "wb") as file:
        write(file)


def sidecar_path(path: Path) -> Path:
    """`features.npy` -> `features.json`."""
    return path.with_suffix(".json")


def load(path: Path) -> dict[str, Any]:
    """The fields of the table at `path`; nothing is unpickled.

    Raises:
        DataError: missing, unfinished, damaged, or not a feature table.
    """
    readers = {".npz": _read_npz, ".npy": _read_npy, ".parquet": _read_parquet}
    if not path.is_file():
        unfinished = part_path(path).exists()
        hint = "its extraction is unfinished; run it again to resume" if unfinished else "`zoo extract` makes one"
        raise DataError(f"{path} does not exist; {hint}")
    try:
        record = readers[path.suffix](path)
        if record.pop("format", None) != FORMAT:
            raise ValueError("no Encoder Zoo metadata in it")
        features, labels = record["features"], record["labels"]
        if features.ndim != 2 or len(features) != len(record["keys"]):
            raise ValueError(f"features of shape {features.shape} for {len(record['keys'])} keys")
        if labels is not None:
            labels = record["labels"] = class_indices(labels, "its split")
            if len(labels) != len(features):
                raise ValueError(f"{len(labels)} labels for {len(features)} features")
    except ImportError:
        raise
    except Exception as error:  # numpy, zipfile and pyarrow each raise their own kinds on damaged files
        raise DataError(f"{path} is not a readable feature table: {error}") from error
    record["class_names"] = tuple(record["class_names"])
    record["columns"] = tuple((name, tuple(shape)) for name, shape in record.get("columns", ()))
    return record


def _float32(table: FeatureTable) -> np.ndarray:
    return np.ascontiguousarray(table.features, dtype=np.float32)


def _write_npz(table: FeatureTable, file: BinaryIO) -> None:
    arrays: dict[str, np.ndarray] = {
        "features": _float32(table),
        "keys": np.array(list(table.keys), dtype=np.str_),
        "class_names": np.array(table.class_names, dtype=np.str_),
        "metadata": np.array(json.dumps(table.metadata())),
    }
    if table.labels is not None:
        arrays["labels"] = table.labels
    np.savez(file, **arrays)


def _read_npz(path: Path) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as file:
        record = json.loads(str(file["metadata"]))
        labels = file["labels"] if "labels" in file.files else None
        return record | {"features": file["features"], "labels": labels, "keys": file["keys"].tolist()}


def _read_npy(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(sidecar_path(path).read_bytes())
    except FileNotFoundError:
        raise ValueError(f"{sidecar_path(path).name}, which holds its keys and labels, is missing") from None
    rows, labels = record.pop("rows"), record["labels"]
    features = np.load(path, mmap_mode="r", allow_pickle=False)
    if rows != len(features):
        raise ValueError(f"{len(features)} rows, its sidecar says {rows}")
    return record | {"features": features, "labels": None if labels is None else np.array(labels)}


def pyarrow_modules() -> tuple[Any, Any]:
    """`pyarrow` and `pyarrow.parquet`; ImportError with the command that installs them."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ImportError("Parquet needs pyarrow: pip install 'encoder-zoo[parquet]'") from None
    return pyarrow, pyarrow.parquet


def _write_parquet(table: FeatureTable, file: BinaryIO) -> None:
    pa, parquet = pyarrow_modules()
    widths = _parquet_columns(table.columns, table.features.shape[1])
    metadata = {b"encoder_zoo": json.dumps(table.metadata()).encode()}
    fields = [("key", pa.string()), ("label", pa.int64()), ("class", pa.string())]
    lists = [(name, pa.list_(pa.float32(), width)) for name, width in widths.items()]
    schema = pa.schema([*fields, *lists], metadata=metadata)
    names = table.class_names
    with parquet.ParquetWriter(file, schema, use_dictionary=["class"]) as writer:
        for low in range(0, len(table), _ROWS):
            rows = slice(low, low + _ROWS)
            block = np.ascontiguousarray(table.features[rows], dtype=np.float32)
            labels = [None] * len(block) if table.labels is None else table.labels[rows].tolist()
            classes = [names[i] if i is not None and 0 <= i < len(names) else None for i in labels]
            parts = np.split(block, np.cumsum(list(widths.values()))[:-1], axis=1)
            features = [pa.FixedSizeListArray.from_arrays(pa.array(part.reshape(-1)), part.shape[1]) for part in parts]
            # Names that are not UTF-8 occur in file systems, Parquet cannot hold them.
            keys = [key.encode(errors="backslashreplace").decode() for key in table.keys[rows]]
            columns = [keys, labels, classes]
            arrays = [pa.array(c, type=t) for c, (_, t) in zip(columns, fields, strict=True)]
            writer.write_table(pa.Table.from_arrays([*arrays, *features], schema=schema))


def _parquet_columns(groups: Sequence[tuple[str, Sequence[int]]], width: int) -> dict[str, int]:
    """Name and width of the columns that hold the features: one, or one for each layer."""
    return {f"feature:{name}": math.prod(shape) for name, shape in groups} if groups else {"feature": width}


def _read_parquet(path: Path) -> dict[str, Any]:
    _, parquet = pyarrow_modules()
    with parquet.ParquetFile(path) as file:
        record = json.loads((file.schema_arrow.metadata or {}).get(b"encoder_zoo", b"{}"))
        names = [name for name in file.schema_arrow.names if name == "feature" or name.startswith("feature:")]
        width = sum(file.schema_arrow.field(name).type.list_size for name in names)
        features = np.empty((file.metadata.num_rows, width), dtype=np.float32)
        keys: list[str] = []
        labels: list[int | None] = []
        for batch in file.iter_batches(_ROWS, columns=["key", "label", *names]):
            rows, start = slice(len(keys), len(keys) + len(batch)), 0
            for name in names:
                part = batch.column(name).flatten().to_numpy().reshape(len(batch), -1)
                features[rows, start : start + part.shape[1]] = part
                start += part.shape[1]
            keys += batch.column("key").to_pylist()
            labels += batch.column("label").to_pylist()
    whole = bool(labels) and None not in labels
    return record | {"features": features, "labels": np.array(labels, np.int64) if whole else None, "keys": keys}


def part_path(path: Path) -> Path:
    """Where the unfinished features of `path` lie: a `.npy` under another name."""
    return path.with_name(path.name + ".part")
