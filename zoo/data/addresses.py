"""`open_dataset`: an address -> one split of a dataset."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from zoo.data.base import Dataset
from zoo.errors import DataError, UnknownNameError, nearest

ADDRESSES = (
    "a folder of images or skeletons, a .parquet or .npz file, a torchvision name, 'digits', 'hf:org/name', "
    "'synthetic:shapes' or 'synthetic:motion'"
)


def open_dataset(
    address: str | Path, split: str | None = None, *, root: str | Path | None = None, download: bool = False
) -> Dataset:
    """Open one split of a dataset.

    Args:
        address: one of
            - a folder: `root/split/class/image`, `root/class/image`, or images alone (no labels);
              split folders are called train, val (valid, validation) and test;
            - a `.parquet` file or a folder of them;
            - a torchvision name such as `"CIFAR10"` (a folder of the same name is `"./CIFAR10"`), or
              `"CUB200"` or `"StanfordDogs"`, which torchvision lacks;
            - `"digits"`: scikit-learn's 1,797 digits; `"digits:placed"`: the same at random places and scales;
            - `"hf:org/name[@revision][:config]"`: the Hugging Face Hub, needs the extra `datasets`;
            - `"synthetic:shapes[?n=2048&size=32&seed=0]"`: drawn on the spot; so are `synthetic:rectangle-triangle`
              and `synthetic:circle-square` (`n`, `size`, `seed`), the two drawn sets of ConRec;
            - skeletons: a folder of N-UCLA JSON, NTU `.skeleton` or PKU-MMD text files, a pyskl `.pkl`, an
              `(N, C, T, V, M)` `.npy`, the zoo's `.npz` (zoo/data/readers/skeleton_arrays.py), or
              `"synthetic:motion[?n=512&seed=0]"`; `nucla:`, `ntu60:`, `ntu120:`, `pku:`, `pyskl:` and
              `skeletons:` before a path say which.
        split: name of the split, or several joined, as in `"train+val"`; may be left out if there is only one, or
            one called `"all"`.
        root: where torchvision datasets lie; default $ZOO_DATA or ~/.cache/encoder-zoo/data.
        download: let torchvision fetch what is missing.

    Raises:
        UnknownNameError: no such dataset or split; the nearest names are listed.
        DataError: empty, unreadable, or not a dataset.
        HubError: the Hugging Face Hub cannot be reached.
    """
    reader = _reader(address, root, download)
    if split is not None and "+" in split:
        from zoo.data.base import Joined

        return Joined([reader.open(choose_split(str(address), part, reader.splits())) for part in split.split("+")])
    return reader.open(choose_split(str(address), split, reader.splits()))


def available_splits(address: str | Path, *, root: str | Path | None = None) -> list[str]:
    """Names of the splits of a dataset, `["all"]` where it has none. Arguments and errors as in `open_dataset`."""
    return list(_reader(address, root, download=False).splits())


def choose_split(address: str, split: str | None, known: list[str]) -> str:
    """The split that was asked for; without one the only split, or `"all"`.

    Raises:
        UnknownNameError: it does not exist, or none was asked for and there are several.
    """
    from zoo.data.readers.folder import SPLIT_FOLDERS

    if split is None:
        if len(known) == 1:
            return known[0]
        if "all" in known:
            return "all"
        raise UnknownNameError(f"{address} has the splits {', '.join(known)}; name one, as in split={known[0]!r}")
    for candidate in (split, SPLIT_FOLDERS.get(split.lower(), split)):
        if candidate in known:
            return candidate
    # Hugging Face says `validation` where this zoo says `val`.
    for candidate in known:
        if SPLIT_FOLDERS.get(candidate) == SPLIT_FOLDERS.get(split.lower(), split):
            return candidate
    raise UnknownNameError(f"{address} has no split {split!r}; {nearest(split, known)}")


@dataclass(frozen=True)
class _Reader:
    splits: Callable[[], list[str]]
    open: Callable[[str], Dataset]


def _reader(address: str | Path, root: str | Path | None, download: bool) -> _Reader:
    if isinstance(address, str):
        if address.startswith("hf:"):
            from zoo.data.readers.huggingface import huggingface_splits, open_huggingface

            return _Reader(partial(huggingface_splits, address), partial(open_huggingface, address))
        if address.startswith("synthetic:motion"):
            from zoo.data.readers.synthetic_motion import SPLITS, open_motion

            return _Reader(lambda: list(SPLITS), partial(open_motion, address))
        if address.startswith("synthetic:"):
            from zoo.data.readers.synthetic_grey import SETS, open_grey
            from zoo.data.readers.synthetic_shapes import SPLITS, open_synthetic, set_name

            opener = open_grey if set_name(address) in SETS else open_synthetic
            return _Reader(lambda: list(SPLITS), partial(opener, address))
        if address in ("digits", "digits:placed"):
            from zoo.data.readers.digits import SPLITS, open_digits, open_placed_digits

            return _Reader(lambda: list(SPLITS), open_digits if address == "digits" else open_placed_digits)
        from zoo.data.readers.torchvision_sets import SOURCES, open_torchvision

        if address in SOURCES:
            opener = partial(open_torchvision, address, root=root, download=download)
            return _Reader(lambda: SOURCES[address].names, opener)
        from zoo.data.readers.fine_grained_sets import READERS

        if address in READERS:
            return _Reader(lambda: ["train", "test"], partial(READERS[address], root=root))

    skeletons = skeleton_reader(address)
    if skeletons is not None:
        splits, opener = skeletons
        return _Reader(lambda: splits, opener)
    return _path_reader(address)


def _path_reader(address: str | Path) -> _Reader:
    from zoo.data.readers.folder import first_file, folder_splits, open_folder
    from zoo.data.readers.parquet import open_parquet, parquet_splits

    path = Path(address).expanduser()
    if not path.exists():
        raise _missing(address)
    if path.is_file() and path.suffix.lower() != ".parquet":
        raise _not_a_folder(path)
    if path.is_file() or first_file(path).lower().endswith(".parquet"):
        return _Reader(lambda: list(parquet_splits(path)), partial(open_parquet, path))
    return _Reader(lambda: list(folder_splits(path)), partial(open_folder, path))


def _missing(address: str | Path) -> Exception:
    from zoo.data.readers.fine_grained_sets import READERS
    from zoo.data.readers.synthetic_shapes import KNOWN
    from zoo.data.readers.torchvision_sets import SOURCES

    text = str(address)
    if isinstance(address, Path) or os.sep in text or text.startswith((".", "~")) or Path(text).suffix:
        return DataError(f"{text} does not exist; expected {ADDRESSES}")
    names = (*SOURCES, *READERS, "digits", *(f"synthetic:{name}" for name in KNOWN))
    known = {name.lower(): name for name in names}
    clause = f"did you mean {known[text.lower()]!r}?" if text.lower() in known else nearest(text, list(known.values()))
    return UnknownNameError(f"no dataset {text!r}; {clause} Expected {ADDRESSES}")


def _not_a_folder(path: Path) -> DataError:
    from zoo.data.images import SUFFIXES

    suffix = path.suffix.lower()
    if suffix in SUFFIXES:
        return DataError(f"{path} is a single image; open the folder that holds it")
    if suffix in (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z"):
        return DataError(f"{path} is an archive; unpack it and open the folder")
    if suffix in (".pth", ".pt", ".ckpt", ".safetensors", ".bin"):
        return DataError(f"{path} is a file of weights, not a dataset; expected {ADDRESSES}")
    return DataError(f"{path} is a file of a kind that holds no dataset; expected {ADDRESSES}")


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
    from zoo.data.readers.ntu import is_ntu
    from zoo.data.readers.nucla import is_nucla
    from zoo.data.readers.pku import is_pku

    if path.is_file():
        return {".npz": "skeletons", ".npy": "skeletons", ".pkl": "pyskl", ".pickle": "pyskl"}.get(path.suffix.lower())
    if is_nucla(path):
        return "nucla"
    if is_ntu(path):
        return "ntu"
    return "pku" if is_pku(path) else None


def _nucla(path: Path) -> Reader:
    from zoo.data.readers.nucla import SPLITS, open_nucla

    return list(SPLITS), partial(open_nucla, _folder(path))


def _ntu(classes: int | None, path: Path) -> Reader:
    from zoo.data.readers.ntu import classes_in, ntu_splits, open_ntu

    count = classes or classes_in(_folder(path))
    return list(ntu_splits(count)), lambda split: open_ntu(_folder(path), split, count)


def _pku(path: Path) -> Reader:
    from zoo.data.readers.pku import SPLITS, open_pku

    return list(SPLITS), partial(open_pku, _folder(path))


def _pyskl(path: Path) -> Reader:
    from zoo.data.readers.pyskl import open_pyskl, pyskl_splits, read_pyskl

    content = read_pyskl(path)
    return pyskl_splits(content), partial(open_pyskl, path, content)


def _arrays(path: Path) -> Reader:
    from zoo.data.readers.skeleton_arrays import npz_splits, open_npy, open_npz

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
