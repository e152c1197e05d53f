"""Which skeleton format an address means: by a prefix such as `nucla:PATH`, or by what lies there."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from zoo.data.base import Dataset
from zoo.errors import DataError

#: What `open_dataset` can say about itself.
PREFIXES = ("nucla", "ntu60", "ntu120", "pku", "pyskl", "skeletons")
SUFFIXES = (".npz", ".npy", ".pkl", ".pickle")

Reader = tuple[list[str], Callable[[str], Dataset]]


def split_prefix(address: str) -> tuple[str | None, Path]:
    """`nucla:PATH` -> ("nucla", PATH); an address without one of `PREFIXES` -> (None, path)."""
    prefix, separator, rest = address.partition(":")
    return (prefix, Path(rest).expanduser()) if separator and prefix in PREFIXES else (None, Path(address).expanduser())


def skeleton_reader(address: str | Path) -> Reader | None:
    """Splits and opener of the skeleton data at an address; None if it is no skeleton data.

    Raises:
        DataError: the prefix names a format, but nothing of it lies there.
    """
    prefix, path = split_prefix(str(address))
    if prefix is None and not path.exists():
        return None
    if prefix is not None and not path.exists():
        raise DataError(f"{path} does not exist; {prefix}: takes the path of the data")
    kind = prefix or _kind(path)
    if kind is None:
        return None
    return _READERS[kind](path)


def _kind(path: Path) -> str | None:
    from zoo.data.skeleton_ntu import is_ntu
    from zoo.data.skeleton_nucla import is_nucla
    from zoo.data.skeleton_pku import is_pku

    if path.is_file():
        return {".npz": "skeletons", ".npy": "skeletons", ".pkl": "pyskl", ".pickle": "pyskl"}.get(path.suffix.lower())
    if is_nucla(path):
        return "nucla"
    if is_ntu(path):
        return "ntu"
    return "pku" if is_pku(path) else None


def _nucla(path: Path) -> Reader:
    from zoo.data.skeleton_nucla import SPLITS, open_nucla

    return list(SPLITS), partial(open_nucla, _folder(path))


def _ntu(classes: int | None, path: Path) -> Reader:
    from zoo.data.skeleton_ntu import classes_in, ntu_splits, open_ntu

    count = classes or classes_in(_folder(path))
    return list(ntu_splits(count)), lambda split: open_ntu(_folder(path), split, count)


def _pku(path: Path) -> Reader:
    from zoo.data.skeleton_pku import SPLITS, open_pku

    return list(SPLITS), partial(open_pku, _folder(path))


def _pyskl(path: Path) -> Reader:
    from zoo.data.skeleton_pyskl import open_pyskl, pyskl_splits, read_pyskl

    content = read_pyskl(path)
    return pyskl_splits(content), partial(open_pyskl, path, content)


def _arrays(path: Path) -> Reader:
    from zoo.data.skeleton_arrays import npz_splits, open_npy, open_npz

    if path.suffix.lower() == ".npy":
        return ["all"], lambda split: open_npy(path)
    return npz_splits(path), partial(open_npz, path)


def _folder(path: Path) -> Path:
    if not path.is_dir():
        raise DataError(f"{path} is no folder")
    return path


_READERS: dict[str, Callable[[Path], Reader]] = {
    "nucla": _nucla,
    "ntu": partial(_ntu, None),
    "ntu60": partial(_ntu, 60),
    "ntu120": partial(_ntu, 120),
    "pku": _pku,
    "pyskl": _pyskl,
    "skeletons": _arrays,
}
