"""A folder of images with its labels in a table or in lists.

- `file,label[,split]` in a CSV, TSV, JSON lines or Parquet file, given as the address or as `labels`;
- `metadata.csv` (`.tsv`, `.jsonl`, `.parquet`) with a column `file_name` in the folder or in each split's folder: the
  convention of Hugging Face's ImageFolder;
- `train.csv`, `test.csv`, or lists such as `train.txt` with `path` or `path label` on each line, in the folder;
- one `.csv` or `.tsv` in a folder of images without class folders.

Names of files are paths relative to the table, or to the folder, or names (with or without ending) that occur once.
"""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path

from zoo.data.images import FileImages
from zoo.data.labels import encode_labels
from zoo.data.reader import PathReader
from zoo.data.tables import SUFFIXES, Table, read_table
from zoo.data.tree import split_of, subfolders, visible, walk
from zoo.errors import DataError

METADATA = tuple(f"metadata{suffix}" for suffix in (".csv", ".tsv", ".jsonl", ".parquet"))
#: Endings of the names of lists and tables that belong to one split, such as `train_labels.csv`.
ENDINGS = ("_labels", "_list", "_files", "_annotations", "_split")
MISSING = "listed but missing"


class Pictures:
    """The pictures below a folder, found by the names that tables use for them."""

    def __init__(self, root: Path, base: Path) -> None:
        self.root, self.tree = root, walk(root)
        self.base = os.path.relpath(base, root).replace(os.sep, "/")
        self.known = set(self.tree.images)

    @cached_property
    def by_name(self) -> dict[str, list[str]]:
        """Name of a file, with and without its ending -> its paths."""
        found: dict[str, list[str]] = {}
        for image in self.tree.images:
            name = image.rpartition("/")[2]
            for key in {name, os.path.splitext(name)[0]}:
                found.setdefault(key, []).append(image)
        return found

    def find(self, name: str) -> str | None:
        """The picture of that name, relative to the root; None if there is none or more than one."""
        name = name.replace("\\", "/").removeprefix("./")
        if os.path.isabs(name):
            name = os.path.relpath(name, self.root).replace(os.sep, "/")
        for candidate in (os.path.normpath(f"{self.base}/{name}").replace(os.sep, "/"), name):
            if candidate in self.known:
                return candidate
        found = self.by_name.get(name.rpartition("/")[2] if "/" not in name else "", [])
        return found[0] if len(found) == 1 else None


def find_tables(root: Path) -> dict[str | None, Path]:
    """split -> its table or list in a folder of images; `{None: table}` for one of all; empty without any."""
    names = {entry.name for entry in os.scandir(root) if entry.is_file() and visible(entry.name)}
    for name in METADATA:
        if name in names:
            return {None: root / name}
    folders = {split_of(name): root / name for name in subfolders(root) if split_of(name)}
    inside = {
        split: next((folder / name for name in METADATA if (folder / name).is_file()), None)
        for split, folder in folders.items()
    }
    if any(inside.values()):
        return {split: path for split, path in inside.items() if path is not None}
    if any(subfolders(folder) for folder in folders.values()):  # classes in splits: the folders say it all
        return {}
    by_split: dict[str | None, Path] = {}
    tables = sorted(name for name in names if Path(name).suffix.lower() in (".csv", ".tsv", ".txt"))
    for name in tables:
        split = _split_of_table(name)
        if split is not None:
            by_split[split] = root / name
    if not by_split:
        alone = [name for name in tables if not name.lower().endswith(".txt")]
        if len(alone) != 1 or len(subfolders(root)) > 1:
            return {}
        by_split[None] = root / alone[0]
    return by_split


def _split_of_table(name: str) -> str | None:
    stem = Path(name).stem.lower()
    for ending in ENDINGS:
        stem = stem.removesuffix(ending)
    return split_of(stem)


class LabelTable(PathReader):
    """A table or lists of labels beside a folder of images."""

    example = "a .csv, .tsv or .txt of files and labels"
    takes = ("labels", "test_share", "seed")

    @classmethod
    def fits(cls, path: Path) -> bool:
        if path.is_file():
            return path.suffix.lower() in (".csv", ".tsv", ".txt", ".jsonl")
        tables = find_tables(path)
        if not tables:
            return False
        if all(table.name in METADATA for table in tables.values()):
            return True
        try:  # text files beside class folders need not be lists of them
            return all(read_table(table, Pictures(path, path).find) is not None for table in tables.values())
        except DataError:
            return False

    @cached_property
    def root(self) -> Path:
        """The folder that holds the pictures."""
        path = Path(os.path.abspath(self.path))
        return path.parent if path.is_file() else path

    @cached_property
    def tables(self) -> dict[str | None, Path]:
        """split -> table; the split None for a table of all."""
        if self.options.labels is not None:
            labels = Path(self.options.labels).expanduser()
            if not labels.is_file() and (self.root / labels).is_file():
                labels = self.root / labels
            if not labels.is_file() or labels.suffix.lower() not in SUFFIXES:
                raise DataError(f"labels='{self.options.labels}' is no file of {', '.join(SUFFIXES)}")
            return {None: labels}
        if self.path.is_file():
            return {None: Path(os.path.abspath(self.path))}
        return find_tables(self.root)

    @cached_property
    def rows(self) -> dict[str, tuple[list[str], list | None, list[str]]]:
        """split -> pictures, their labels, and names that were listed but are missing."""
        found: dict[str, tuple[list[str], list | None, list[str]]] = {}
        for split, path in self.tables.items():
            pictures = Pictures(self.root, path.parent if self._inside(path) else self.root)
            self._listed = pictures
            table = read_table(path, lambda name, p=pictures: p.find(name) is not None)
            for name, (files, labels) in _by_split(table, split).items():
                found[name] = _resolved(path, files, labels, pictures)
        missing = [name for _, _, names in found.values() for name in names]
        if missing and not self.options.skip_bad:
            total = sum(len(files) for files, _, _ in found.values()) + len(missing)
            raise DataError(
                f"{self.root}: {len(missing):,} of {total:,} listed pictures are missing or not unique, such as "
                f"{missing[0]}; restore them, or leave them out with skip_bad=True"
            )
        return found

    def _inside(self, path: Path) -> bool:
        return self.root in Path(os.path.abspath(path)).parents

    def splits(self) -> list[str]:
        return sorted(self.rows, key=lambda name: (("train", "val", "test").index(split_of(name) or "test"), name))

    def divisible(self) -> bool:
        return all(labels is not None for _, labels, _ in self.rows.values())

    def open(self, split: str) -> FileImages:
        images, labels, missing = self.rows[split]
        tables = " and ".join(path.name for path in self.tables.values())
        values = {name: column for name, (_, column, _) in self.rows.items()}
        encoded, names = encode_labels(values, split, (), tables)
        paths = [os.path.join(self.root, *image.split("/")) for image in images]
        data = FileImages(self.root.name, split, paths, images, encoded, names)
        listed = {image for files, _, _ in self.rows.values() for image in files}
        known = {os.path.relpath(path, self.root).replace(os.sep, "/") for path in self.tables.values()}
        left = {
            reason: [name for name in found if name not in known] for reason, found in self._listed.tree.left.items()
        }
        left["pictures that are not listed"] = [image for image in self._listed.tree.images if image not in listed]
        left[MISSING] = missing
        data.reported(left, [f"{'labels' if labels is not None else 'files'} from {tables}"])
        return data


def _by_split(table: Table, split: str | None) -> dict[str, tuple[list[str], list | None]]:
    if table.splits is None or split is not None:
        return {split or "all": (table.files, table.labels)}
    found: dict[str, tuple[list[str], list | None]] = {}
    for row, (file, name) in enumerate(zip(table.files, table.splits, strict=True)):
        meaning = split_of(name) or name.lower() or "unnamed"
        files, labels = found.setdefault(meaning, ([], None if table.labels is None else []))
        files.append(file)
        if labels is not None:
            labels.append(table.labels[row])
    return found


def _resolved(
    path: Path, files: list[str], labels: list | None, pictures: Pictures
) -> tuple[list[str], list | None, list[str]]:
    """The listed pictures in the order of their paths, each once, and the names without a picture."""
    chosen: dict[str, object] = {}
    missing = []
    for row, file in enumerate(files):
        image, label = pictures.find(file), None if labels is None else labels[row]
        if image is None:
            missing.append(file)
        elif image in chosen and chosen[image] != label:
            raise DataError(f"{path} lists {file} twice, with the labels {chosen[image]!r} and {label!r}; keep one")
        else:
            chosen[image] = label
    order = sorted(chosen)
    return order, None if labels is None else [chosen[image] for image in order], missing
