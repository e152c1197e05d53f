"""`open_dataset`: an address -> one split of a dataset."""

from __future__ import annotations

import os
import re
import warnings
from pathlib import Path

from zoo.data.base import Dataset, Joined
from zoo.data.reader import Address, Options, Reader
from zoo.errors import DataError, DataWarning, UnknownNameError, nearest


def open_dataset(
    address: str | Path,
    split: str | None = None,
    *,
    root: str | Path | None = None,
    download: bool = False,
    inspect: bool = False,
) -> Dataset:
    """Open one split of a dataset. What the reader left out is said once, as a `DataWarning`, and kept in `.report`.

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
        inspect: read every sample of every split, and add to the report how many samples of this split are exact
            copies of others in it or in another split; for skeletons lengths and untracked joints as well.

    Raises:
        UnknownNameError: no such dataset or split; the nearest names are listed.
        DataError: empty, unreadable, or not a dataset.
        HubError: the Hugging Face Hub cannot be reached.
    """
    reader = _reader(address, Options(root=root, download=download))
    known = reader.splits()
    names = [choose_split(str(address), part, known) for part in (split.split("+") if split else [None])]
    parts = [reader.open(name) for name in names]
    data = parts[0] if len(parts) == 1 else Joined(parts)
    if inspect:
        others = [reader.open(name) for name in known if name not in names and counterparts(names, name)]
        data.reported(notes=_inspected(data, others))
    if data.report.left or data.report.notes:
        warnings.warn(f"{data.name}/{data.split}: {data.report}", DataWarning, stacklevel=2)
    return data


def available_splits(address: str | Path, *, root: str | Path | None = None) -> list[str]:
    """Names of the splits of a dataset, `["all"]` where it has none. Arguments and errors as in `open_dataset`."""
    return _reader(address, Options(root=root)).splits()


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


_ROLE = re.compile(r"(?<![a-z])(trainval|train|validation|val|test)(?![a-z])")


def counterparts(names: list[str], other: str) -> bool:
    """Whether two splits should share no sample: names that differ in their role alone, as `xsub-train`, `xsub-test`.

    `trainval` holds `train` and `val`, and `all` holds everything, so these are no counterparts.
    """
    for name in names:
        if _ROLE.sub("*", name) != _ROLE.sub("*", other) or not _ROLE.search(name):
            return False
        roles = {_ROLE.search(name)[0], _ROLE.search(other)[0]}
        if "trainval" in roles and "test" not in roles:
            return False
    return True


def _inspected(data: Dataset, others: list[Dataset]) -> list[str]:
    from zoo.data.duplicates import copies
    from zoo.data.skeletons import summarise

    return copies(data, others) + ([str(summarise(data))] if data.modality == "skeleton" else [])


def _reader(address: str | Path, options: Options) -> Reader:
    from zoo.data.registry import reader_for

    asked = Address.of(address)
    kind = reader_for(asked)
    if kind is None:
        raise _unknown_file(asked.path) if asked.path.is_file() else _missing(asked)
    return kind(asked, options)


def _missing(address: Address) -> Exception:
    from zoo.data.registry import examples, names

    text = address.text
    name = text.partition("?")[0]
    is_path = address.is_path or os.sep in text or text.startswith((".", "~")) or Path(text).suffix
    if is_path and not name.startswith("synthetic:"):
        return DataError(f"{text} does not exist; expected {examples()}")
    known = {each.lower(): each for each in names()}
    clause = f"did you mean {known[name.lower()]!r}?" if name.lower() in known else nearest(name, list(known.values()))
    return UnknownNameError(f"no dataset {text!r}; {clause} Expected {examples()}")


def _unknown_file(path: Path) -> DataError:
    from zoo.data.images import SUFFIXES
    from zoo.data.registry import examples

    suffix = path.suffix.lower()
    if suffix in SUFFIXES:
        return DataError(f"{path} is a single image; open the folder that holds it")
    if suffix in (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".7z"):
        return DataError(f"{path} is an archive; unpack it and open the folder")
    if suffix in (".pth", ".pt", ".ckpt", ".safetensors", ".bin"):
        return DataError(f"{path} is a file of weights, not a dataset; expected {examples()}")
    return DataError(f"{path} is a file of a kind that holds no dataset; expected {examples()}")
