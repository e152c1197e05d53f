"""`open_dataset`: an address -> one split of a dataset."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np

from zoo.data.base import Dataset
from zoo.data.joined import Joined
from zoo.data.reader import Address, Options, Reader
from zoo.data.splits import are_counterparts, held_out
from zoo.data.unreadable import readable
from zoo.errors import DataError, DataWarning, UnknownNameError, nearest

#: Share of each class that becomes the test part of labelled data without splits.
DEFAULT_SHARE = 0.2


def open_dataset(
    address: str | Path,
    split: str | None = None,
    *,
    root: str | Path | None = None,
    download: bool = False,
    classes: str | None = None,
    labels: str | Path | None = None,
    test_share: float | None = None,
    seed: int | None = None,
    skip_bad: bool = False,
    inspect: bool = False,
) -> Dataset:
    """Open one split of a dataset. What the reader left out is said once, as a `DataWarning`, and kept in `.report`.

    Args:
        address: one of
            - a folder: `root/split/class/image`, `root/class/image`, or images alone (no labels); split folders are
              called train (training), val (valid, validation, dev, eval) and test (testing), in any case and with
              endings such as `_set`; class folders without splits are divided by chance, see `test_share`;
            - a folder of images with a table or lists of labels, or such a table (`zoo/data/readers/label_table.py`);
            - a `.parquet` file or a folder of them;
            - WebDataset shards: a `.tar`, a folder or pattern of them (`"train-{0000..0099}.tar"`, `"train-*.tar"`),
              `"https://host/train-{0000..0099}.tar"` or `"pipe:COMMAND"`, options behind a `#`
              (`zoo/data/readers/webdataset.py`);
            - a torchvision name such as `"CIFAR10"` (a folder of the same name is `"./CIFAR10"`), or
              `"CUB200"` or `"StanfordDogs"`, which torchvision lacks;
            - `"digits"`: scikit-learn's 1,797 digits; `"digits:placed"`: the same at random places and scales;
            - `"hf:org/name[@revision][:config]"`: the Hugging Face Hub, needs the extra `datasets`;
            - `"synthetic:shapes[?n=2048&size=32&seed=0]"`: drawn on the spot; so are `synthetic:rectangle-triangle`
              and `synthetic:circle-square` (`n`, `size`, `seed`), the two drawn sets of ConRec;
            - skeletons: a folder of N-UCLA JSON, NTU `.skeleton` or PKU-MMD text files, a pyskl `.pkl`, CTR-GCN's
              `NTU60_CS.npz`, an `(N, C, T, V, M)` `.npy`, the zoo's `.npz` (zoo/data/readers/skeleton_arrays.py), or
              `"synthetic:motion[?n=512&seed=0]"`; `nucla:`, `ntu60:`, `ntu120:`, `pku:`, `pyskl:` and
              `skeletons:` before a path say which.
        split: name of the split, or several joined, as in `"train+val"`; may be left out if there is only one, or
            one called `"all"`.
        root: where torchvision datasets lie; default $ZOO_DATA or ~/.cache/encoder-zoo/data.
        download: let torchvision fetch what is missing.
        classes: for folders within folders, which one is the class: `"top"`, `"leaf"` or `"level:N"` (1 is the top).
            None decides where only one reading makes sense.
        labels: a CSV, TSV, Parquet or list of the labels of a folder of images, with the columns file, label and
            maybe split.
        test_share: share of each class that becomes `test` where the data has labels but no splits; default 0.2.
        seed: of that division; default 0.
        skip_bad: leave out samples that cannot be read, and name them in the report. It decodes every sample once.
            Otherwise the first use of such a sample is an error that names all of them.
        inspect: read every sample of every split, and add to the report how many samples of this split are exact
            copies of others in it or in another split; for skeletons lengths and untracked joints as well.

    Raises:
        UnknownNameError: no such dataset or split; the nearest names are listed.
        DataError: empty, unreadable, or not a dataset.
        HubError: the Hugging Face Hub cannot be reached.
    """
    options = Options(root, download, classes, labels, test_share, seed, skip_bad)
    reader = _reader(address, options)
    known = _splits(reader)
    names = [choose_split(str(address), part, known) for part in (split.split("+") if split else [None])]
    parts = [_open(reader, name) for name in names]
    data = parts[0] if len(parts) == 1 else Joined(parts)
    if inspect:
        others = [
            _open(reader, name)
            for name in known
            if name not in names and all(are_counterparts(each, name) for each in names)
        ]
        data.reported(notes=_inspected(data, others))
    if data.report.left or data.report.notes:
        warnings.warn(f"{data.name}/{data.split}: {data.report}", DataWarning, stacklevel=2)
    return data


def available_splits(
    address: str | Path,
    *,
    root: str | Path | None = None,
    classes: str | None = None,
    labels: str | Path | None = None,
    skip_bad: bool = False,
) -> list[str]:
    """Names of the splits of a dataset, `["all"]` where it has none. Arguments and errors as in `open_dataset`."""
    return _splits(_reader(address, Options(root=root, classes=classes, labels=labels, skip_bad=skip_bad)))


def _splits(reader: Reader) -> list[str]:
    known, options = reader.splits(), reader.options
    if known == ["all"] and reader.divisible():
        return ["train", "test", "all"]
    values = {"test_share": options.test_share, "seed": options.seed}
    given = [f"{name}={value}" for name, value in values.items() if value is not None]
    if given:
        why = "no labels" if known == ["all"] else f"splits of its own ({', '.join(known)})"
        raise DataError(f"{reader.address} is not divided by chance, as it has {why}; leave {' and '.join(given)} out")
    return known


def _open(reader: Reader, split: str) -> Dataset:
    """One split, also one that the format itself does not have: a seeded, stratified part of `all`."""
    if split in reader.splits():
        data = reader.open(split)
        return readable(data) if reader.options.skip_bad else data
    whole = reader.open("all")
    if reader.options.skip_bad:
        whole = readable(whole)
    share = DEFAULT_SHARE if reader.options.test_share is None else reader.options.test_share
    seed = reader.options.seed or 0
    rest, held = held_out(whole.labels, share, seed)
    chosen, part = (rest, 1 - share) if split == "train" else (held, share)
    single = int((np.bincount(whole.labels) == 1).sum())
    data = whole.subset(chosen, f"{split}[{100 * part:g}% of each class, seed {seed}]")
    notes = ["the data has no splits of its own; they were drawn by chance"]
    if single:
        notes.append(f"{single} classes have a single sample, which is in train")
    return data.reported(notes=notes)


def choose_split(address: str, split: str | None, known: list[str]) -> str:
    """The split that was asked for; without one the only split, or `"all"`.

    Raises:
        UnknownNameError: it does not exist, or none was asked for and there are several.
    """
    from zoo.data.tree import split_of

    if split is None:
        if len(known) == 1:
            return known[0]
        if "all" in known:
            return "all"
        raise UnknownNameError(f"{address} has the splits {', '.join(known)}; name one of them")
    meaning = split_of(split)
    for candidate in (split, meaning):
        if candidate in known:
            return candidate
    # Hugging Face says `validation` where this zoo says `val`.
    for candidate in known:
        if meaning is not None and split_of(candidate) == meaning:
            return candidate
    raise UnknownNameError(f"{address} has no split {split!r}; {nearest(split, known)}")


def _inspected(data: Dataset, others: list[Dataset]) -> list[str]:
    from zoo.data.duplicates import copies
    from zoo.data.skeletons import summarise

    return copies(data, others) + ([str(summarise(data))] if data.modality == "skeleton" else [])


def _reader(address: str | Path, options: Options) -> Reader:
    from zoo.data.registry import LABEL_READER, reader_for

    asked = Address.of(address)
    kind = reader_for(asked) if options.labels is None else LABEL_READER
    if kind is None:
        raise _unknown_file(asked.path) if asked.path.is_file() else _missing(asked)
    for name in ("classes", "labels", "test_share", "seed"):
        if getattr(options, name) is not None and name not in kind.takes:
            raise DataError(f"{asked} takes no {name}='{getattr(options, name)}'; that is for {_takers(name)}")
    if options.test_share is not None and not 0 < options.test_share < 1:
        raise DataError(f"test_share={options.test_share} does not lie strictly between 0 and 1")
    return kind(asked, options)


def _takers(option: str) -> str:
    from zoo.data.registry import READERS

    return ", ".join(reader.example for reader in reversed(READERS) if option in reader.takes)


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
        shards = "; shards of WebDataset must be plain .tar files" if ".tar" in path.name or suffix == ".tgz" else ""
        return DataError(f"{path} is an archive; unpack it and open the folder{shards}")
    if suffix in (".pth", ".pt", ".ckpt", ".safetensors", ".bin"):
        return DataError(f"{path} is a file of weights, not a dataset; expected {examples()}")
    return DataError(f"{path} is a file of a kind that holds no dataset; expected {examples()}")
