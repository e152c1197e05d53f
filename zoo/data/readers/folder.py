"""Folders of images: `root/split/class/file`, `root/class/file`, files without classes, and deeper trees of classes."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from zoo.data.images import SUFFIXES, FileImages
from zoo.data.labels import check_look_alikes, class_name
from zoo.data.reader import PathReader
from zoo.data.tree import Tree, split_folders, split_of, subfolders, visible, visible_files, walk
from zoo.errors import DataError

LAYOUTS = "expected root/class/image.png, root/train/class/image.png or root/image.png"
LEVELS = "top, leaf or level:N (level:2 is root/first/CLASS/...)"
OUTSIDE = "pictures in folders beside the splits"


@dataclass
class Part:
    """One split: where it lies, what the walk found, and the class of each picture (None where there are none)."""

    folder: Path
    tree: Tree
    classes: list[str] | None = None


@dataclass
class Layout:
    """What the tree of a folder means: its splits, and what a person must know of the reading."""

    parts: dict[str, Part]
    notes: list[str] = field(default_factory=list)

    @property
    def class_names(self) -> list[str]:
        """All class names of all splits, sorted."""
        return sorted({name for part in self.parts.values() for name in part.classes or ()})


def read_layout(root: Path, classes: str | None = None) -> Layout:
    """Understand a folder of images.

    Args:
        root: the folder.
        classes: which folder of a path is the class: `"top"`, `"leaf"` or `"level:N"`. None decides where only one
            reading makes sense.

    Raises:
        DataError: no image, images beside class folders, or a tree of folders that can be read in several ways.
    """
    root, notes = _unwrapped(Path(os.path.abspath(root)))
    layout = Layout(_splits(root), notes)
    if not any(part.tree.images for part in layout.parts.values()):
        raise DataError(_no_image(root, [part.tree for part in layout.parts.values()]))
    level = _level(root, layout, classes)
    for part in layout.parts.values():
        if level is not None and part.tree.images and "/" in part.tree.images[0]:
            part.classes = [class_name(_component(part.folder, image, level)) for image in part.tree.images]
            order = sorted(range(len(part.classes)), key=lambda i, p=part: (p.classes[i], p.tree.images[i]))
            part.tree.images = [part.tree.images[i] for i in order]
            part.classes = [part.classes[i] for i in order]
    labelled = {split: part.classes for split, part in layout.parts.items() if part.classes is not None}
    if labelled:
        check_look_alikes(labelled, str(root))
    return layout


def _unwrapped(root: Path) -> tuple[Path, list[str]]:
    """The folder in which splits or classes begin: archives often hold one folder that holds everything."""
    notes: list[str] = []
    while True:
        folders = subfolders(root)
        if len(folders) != 1 or split_of(folders[0]) or _has_images(root):
            return root, notes
        inside = root / folders[0]
        below = subfolders(inside)
        if len(below) < 2 and not any(map(split_of, below)):
            return root, notes
        if _has_images(inside):
            return root, notes
        root, notes = inside, [f"everything lies in {folders[0]}/"]


def _has_images(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return any(os.path.splitext(e.name)[1].lower() in SUFFIXES for e in entries if visible(e.name) and e.is_file())


def _splits(root: Path) -> dict[str, Part]:
    found = split_folders(root)
    if not found:
        return {"all": Part(root, walk(root))}
    parts = {split: Part(root / name, walk(root / name)) for split, name in found.items()}
    for name in sorted(set(subfolders(root)) - set(found.values())):
        for image in walk(root / name).images:
            next(iter(parts.values())).tree.leave(f"{OUTSIDE} ({name})", f"{name}/{image}")
    return parts


def _level(root: Path, layout: Layout, classes: str | None) -> str | None:
    """Which folder of a path is the class; None where pictures lie in no folder."""
    images = [image for part in layout.parts.values() for image in part.tree.images]
    inside = [image for image in images if "/" in image]
    for part in layout.parts.values():
        loose = [image for image in part.tree.images if "/" not in image]
        if loose and len(loose) < len(part.tree.images):
            count = len({image.split("/")[0] for image in part.tree.images if "/" in image})
            raise DataError(
                f"{part.folder} holds {len(loose)} images (such as {loose[0]}) beside {count} "
                f"folders of images; move them into a class folder or away: {LAYOUTS}"
            )
    if classes is not None:
        if classes not in ("top", "leaf") and not re.fullmatch(r"level:[1-9]\d*", classes):
            raise DataError(f"classes={classes!r} names no folder of a path; expected {LEVELS}")
        if not inside:
            raise DataError(f"{root} holds pictures in no folder, so no folder can be their class; {LAYOUTS}")
        return classes
    if not inside:
        return None
    paths = [image.split("/")[:-1] for image in inside]
    level = 1
    # train/images/cat: one folder that holds all classes of all splits says nothing.
    while len({tuple(path[:level]) for path in paths}) == 1 and all(len(path) > level for path in paths):
        level += 1
    deeper = sum(len(path) > level for path in paths)
    if deeper == len(paths) and len({path[-1] for path in paths}) > 1:
        top, leaf = (sorted({class_name(path[at]) for path in paths}) for at in (level - 1, -1))
        raise DataError(
            f"{root} holds pictures in folders within folders, such as {inside[0]}, and either may be the class; set "
            f"classes='top' ({_counted(top)}), classes='leaf' ({_counted(leaf)}) or classes='level:N'"
        )
    if 0 < deeper < len(paths):
        layout.notes.append(f"{deeper:,} pictures in deeper folders belong to the class of the folder above")
    return f"level:{level}"


def _counted(names: list[str]) -> str:
    return f"{len(names):,}: {', '.join(names[:3])}{', ...' if len(names) > 3 else ''}"


def _component(folder: Path, image: str, level: str) -> str:
    path = image.split("/")[:-1]
    at = {"top": 0, "leaf": len(path) - 1}.get(level)
    at = int(level.removeprefix("level:")) - 1 if at is None else at
    if at >= len(path):
        raise DataError(f"{folder / image} lies in {len(path)} folders, so classes={level} does not fit; {LEVELS}")
    return path[at]


def open_part(name: str, layout: Layout, split: str) -> FileImages:
    """One split of a folder that was understood. Raises DataError if it holds no image."""
    part = layout.parts[split]
    images = part.tree.images
    if not images:
        raise DataError(_no_image(part.folder, [part.tree]))
    class_names = layout.class_names
    labels = None
    if part.classes is not None:
        index = {each: i for i, each in enumerate(class_names)}
        labels = np.array([index[each] for each in part.classes], dtype=np.int64)
    paths = [os.path.join(part.folder, *image.split("/")) for image in images]
    data = FileImages(name, split, paths, images, labels, class_names)
    data.reported(part.tree.left, layout.notes)
    return data


def _no_image(folder: Path, trees: list[Tree]) -> str:
    merged: dict[str, int] = {}
    for tree in trees:
        for reason, names in tree.left.items():
            merged[reason] = merged.get(reason, 0) + len(names)
    seen = ", ".join(f"{count} {reason}" for reason, count in merged.items())
    return f"{folder} holds no image ({', '.join(sorted(SUFFIXES))}){f', but {seen}' if seen else ''}; {LAYOUTS}"


def first_file(folder: Path) -> str:
    """Path of the first image or Parquet file below `folder`, which tells what it holds; empty if there is none."""
    for parent, name in visible_files(folder):
        if os.path.splitext(name)[1].lower() in SUFFIXES | {".parquet"}:
            return os.path.join(parent, name)
    return ""


class Folder(PathReader):
    """A folder of image files; asked last, as it takes any folder."""

    example = "a folder of images"
    takes = ("classes", "test_share", "seed")

    @classmethod
    def fits(cls, path: Path) -> bool:
        return path.is_dir()

    @cached_property
    def layout(self) -> Layout:
        """What the tree means, understood once."""
        return read_layout(self.path, self.options.classes)

    def splits(self) -> list[str]:
        return list(self.layout.parts)

    def divisible(self) -> bool:
        return all(part.classes is not None for part in self.layout.parts.values())

    def open(self, split: str) -> FileImages:
        return open_part(Path(os.path.abspath(self.path)).name, self.layout, split)
