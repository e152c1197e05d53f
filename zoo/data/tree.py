"""One walk of a folder: which pictures lie where, what was left out and why; and what folders' names mean."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from zoo.data.images import SUFFIXES
from zoo.errors import DataError
from zoo.preprocessing.picture import HEIF_EXTRA, can_decode

#: Words for the three parts of a data set, in any case and with endings such as `_set`.
SPLIT_WORDS = (
    {"train": "train", "training": "train", "test": "test", "testing": "test"}
    | {"val": "val", "valid": "val", "validation": "val", "eval": "val", "evaluation": "val"}
    | {"dev": "val", "development": "val"}
)
_SPLIT = re.compile(rf"({'|'.join(sorted(SPLIT_WORDS, key=len, reverse=True))})[ _-]?(set|data|split|images|imgs)?")
SPLIT_ORDER = ("train", "val", "test")
#: Folders that operating systems and tools make, lower case. Folders that begin with a dot belong to them as well.
SYSTEM = {"__macosx", "__pycache__", "@eadir", "@tmp", "@recycle", "#recycle", "#snapshot", "$recycle.bin"} | {
    "system volume information",
    "lost+found",
}
#: Decoded only where another package is installed.
PLUGIN = {".heic": HEIF_EXTRA, ".heif": HEIF_EXTRA, ".avif": 'pip install "pillow>=11.3"'}


def split_of(name: str) -> str | None:
    """The split that a folder or file name means (`Training_set` -> `"train"`), or None."""
    match = _SPLIT.fullmatch(name.strip().lower())
    return SPLIT_WORDS[match[1]] if match else None


def splits_of_files(names: Sequence[str], where: str, example: str) -> dict[str, list[int]]:
    """split -> positions of its files, told by the words in their names; all of them `"all"` where none tells one.

    Args:
        names: paths relative to the folder that holds them all.
        where: names that folder in errors. example: of a file whose name tells its split.

    Raises:
        DataError: only some of the names tell a split.
    """
    splits: dict[str, list[int]] = {}
    for position, name in enumerate(names):
        words = re.split(r"[-_./\\]", name.lower())
        named = [SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS]
        splits.setdefault(named[-1] if named else "all", []).append(position)
    if len(splits) > 1 and "all" in splits:
        raise DataError(
            f"{names[splits['all'][0]]} names no split, while other files of {where} do; rename it as in {example}"
        )
    return splits


def visible(name: str) -> bool:
    """False for hidden files and folders, and for those of operating systems and tools."""
    return not name.startswith(".") and name.lower() not in SYSTEM


def visible_files(folder: str | os.PathLike[str]) -> Iterator[tuple[str, str]]:
    """(folder, name) of the visible files below a folder as they are met; a folder that is met again is passed over."""
    seen: set[tuple[int, int]] = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        stat = os.stat(parent)
        if (stat.st_dev, stat.st_ino) in seen:
            folders.clear()
            continue
        seen.add((stat.st_dev, stat.st_ino))
        folders[:] = sorted(filter(visible, folders))
        for name in filter(visible, files):
            yield parent, name


@dataclass
class Tree:
    """What one walk found.

    Attributes:
        images: pictures that can be decoded here, relative to the root with `/`, sorted.
        left: reason -> everything else that was seen, relative to the root.
    """

    images: list[str] = field(default_factory=list)
    left: dict[str, list[str]] = field(default_factory=dict)

    def leave(self, reason: str, name: str) -> None:
        """Note something that was seen and not taken."""
        self.left.setdefault(reason, []).append(name)


def walk(root: str | os.PathLike[str]) -> Tree:
    """All that lies below a folder. Links are followed; one that leads back to a folder it lies in is left out.

    Raises:
        DataError: the folder itself cannot be read.
    """
    tree = Tree()
    decodable: dict[str, bool] = {}
    for path in _files(os.fspath(root), "", (), tree):
        name = path.rpartition("/")[2]
        suffix = os.path.splitext(name)[1].lower()
        if name.startswith("."):
            if suffix in SUFFIXES:
                tree.leave("hidden", path)
        elif suffix not in SUFFIXES:
            tree.leave(suffix or "without an ending", path)
        elif decodable.setdefault(suffix, suffix not in PLUGIN or can_decode(suffix)):
            tree.images.append(path)
        else:
            tree.leave(f"{suffix} ({PLUGIN[suffix]})", path)
    tree.images.sort()
    return tree


def _files(root: str, inside: str, above: tuple[tuple[int, int], ...], tree: Tree) -> Iterator[str]:
    """Paths of the files below `root/inside`, relative to `root`."""
    place = os.path.join(root, inside)
    try:
        stat = os.stat(place)
        with os.scandir(place) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        if not inside:
            raise DataError(f"{root} cannot be read ({error.strerror})") from None
        tree.leave("folders that cannot be read", inside)
        return
    here = (stat.st_dev, stat.st_ino)
    if here in above:
        tree.leave("links to a folder that they lie in", inside)
        return
    for entry in found:
        path = f"{inside}/{entry.name}" if inside else entry.name
        if not entry.is_dir():
            yield path
        elif visible(entry.name):
            yield from _files(root, path, (*above, here), tree)
        elif not entry.name.startswith("."):
            tree.leave("system folders", path)


def subfolders(folder: str | os.PathLike[str]) -> list[str]:
    """Names of the visible folders in a folder, sorted. Raises DataError if it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if visible(entry.name) and entry.is_dir())
    except OSError as error:
        raise DataError(f"{os.fspath(folder)} cannot be read ({error.strerror})") from None


def split_folders(root: str | os.PathLike[str]) -> dict[str, str]:
    """split -> name of the folder in `root` that holds it, in the order of `SPLIT_ORDER`; empty without splits.

    Raises:
        DataError: two folders mean the same split, or `root` cannot be read.
    """
    folders = subfolders(root)
    named = {name: split for name in folders if (split := split_of(name))}
    # `train` may be a class (of vehicles): alone beside other folders it is a split only if it holds classes itself.
    clear = len(named) == len(folders) or len(set(named.values())) > 1
    if not clear and not all(subfolders(os.path.join(root, name)) for name in named):
        return {}
    found: dict[str, str] = {}
    for name, split in named.items():
        other = found.setdefault(split, name)
        if other != name:
            raise DataError(f"{os.fspath(root)} holds {other!r} and {name!r}, which name the same split; keep one")
    return {split: found[split] for split in SPLIT_ORDER if split in found}
