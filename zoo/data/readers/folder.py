"""Folders of images: `root/split/class/file`, `root/class/file`, or files without classes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from zoo.data.images import SUFFIXES, FileImages
from zoo.data.reader import PathReader
from zoo.errors import DataError

#: folder name (lower case) -> the split it means.
SPLIT_FOLDERS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
LAYOUTS = "expected root/class/image.png, root/train/class/image.png or root/image.png"


def folder_splits(root: Path) -> dict[str, Path]:
    """Splits of an image folder -> where each lies; `{"all": root}` for a folder without splits."""
    folders = _subfolders(root)
    named = {name: path for name, path in folders.items() if name.lower() in SPLIT_FOLDERS}
    # `train` may be a class (of vehicles): beside other folders it is a split only if it holds classes itself.
    if named and (len(named) == len(folders) or all(_subfolders(path) for path in named.values())):
        splits: dict[str, Path] = {}
        for name, path in named.items():
            other = splits.setdefault(SPLIT_FOLDERS[name.lower()], path)
            if other != path:
                raise DataError(f"{root} holds {other.name!r} and {name!r}, which name the same split; keep one")
        order = ("train", "val", "test")
        return {split: splits[split] for split in order if split in splits}
    return {"all": root}


def open_folder(root: Path, split: str) -> FileImages:
    """Open one split of an image folder; class names are those of all its splits together.

    Raises:
        DataError: no image anywhere, or images beside class folders.
    """
    root = Path(os.path.abspath(root))
    splits = folder_splits(root)
    class_names = sorted(set().union(*(_class_folders(path) for path in splits.values())))
    return _read_split(root.name, split, splits[split], class_names)


def first_file(folder: Path) -> str:
    """Path of the first image or Parquet file below `folder`, which tells what the folder holds; DataError if none."""
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(filter(visible, folders))
        for name in filter(visible, files):
            if os.path.splitext(name)[1].lower() in SUFFIXES | {".parquet"}:
                return os.path.join(parent, name)
    raise DataError(f"{folder} holds no image ({', '.join(sorted(SUFFIXES))}) and no .parquet file; {LAYOUTS}")


def _read_split(name: str, split: str, folder: Path, class_names: list[str]) -> FileImages:
    loose = sorted(_images(folder, recursive=False))
    folders = _class_folders(folder)
    if loose and folders:
        raise DataError(
            f"{folder} holds {len(loose)} images (such as {os.path.basename(loose[0])}) beside {len(folders)} "
            f"folders of images; move them into a class folder or away: {LAYOUTS}"
        )
    if not loose and not folders:
        raise DataError(f"{folder} holds no image ({', '.join(sorted(SUFFIXES))}); {LAYOUTS}")
    if loose:
        return FileImages(name, split, loose, [os.path.basename(path) for path in loose], None)
    index = {class_name: i for i, class_name in enumerate(class_names)}
    paths: list[str] = []
    labels: list[int] = []
    for class_name in sorted(folders):
        found = sorted(_images(folder / class_name, recursive=True))
        paths += found
        labels += [index[class_name]] * len(found)
    start = len(str(folder)) + len(os.sep) * (not str(folder).endswith(os.sep))
    keys = [path[start:].replace(os.sep, "/") for path in paths]
    return FileImages(name, split, paths, keys, np.array(labels, dtype=np.int64), class_names)


def _subfolders(folder: Path) -> dict[str, Path]:
    try:
        with os.scandir(folder) as entries:
            return {e.name: Path(e.path) for e in entries if visible(e.name) and e.is_dir()}
    except OSError as error:
        raise DataError(f"{folder} cannot be read ({error.strerror})") from None


def _class_folders(folder: Path) -> set[str]:
    """Names of the subfolders that hold at least one image."""
    return {name for name, path in _subfolders(folder).items() if next(_images(path, recursive=True), None)}


def _images(folder: Path, recursive: bool) -> Iterator[str]:
    """Paths of the images in `folder`; links are followed, hidden files skipped."""
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders[:] = sorted(name for name in folders if visible(name)) if recursive else []
        for name in files:
            if visible(name) and os.path.splitext(name)[1].lower() in SUFFIXES:
                yield os.path.join(parent, name)


def visible(name: str) -> bool:
    """False for hidden files and for what macOS leaves in archives."""
    return not name.startswith(".") and name != "__MACOSX"


class Folder(PathReader):
    """A folder of image files; asked last, as it takes any folder."""

    example = "a folder of images"

    @classmethod
    def fits(cls, path: Path) -> bool:
        return path.is_dir()

    def splits(self) -> list[str]:
        return list(folder_splits(self.path))

    def open(self, split: str) -> FileImages:
        return open_folder(self.path, split)
