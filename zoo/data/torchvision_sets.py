"""Datasets that torchvision downloads, by their torchvision names."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zoo.data.base import Dataset
from zoo.data.images import ArrayImages, FileImages
from zoo.data.store import data_root, locked
from zoo.errors import DataError

#: What a reader takes from a torchvision dataset: uint8 images or file paths, and labels.
Content = tuple[Any, Any]


def _arrays(labels: str, channels_first: bool = False) -> Callable[[Any], Content]:
    def read(data: Any) -> Content:
        images = np.asarray(data.data)
        if channels_first:
            images = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
        return images, np.asarray(getattr(data, labels))

    return read


def _files(images: str) -> Callable[[Any], Content]:
    return lambda data: (getattr(data, images), data._labels)


def _pairs(samples: str) -> Callable[[Any], Content]:
    return lambda data: tuple(zip(*getattr(data, samples), strict=True))


def _caltech101(data: Any) -> Content:
    folder = os.path.join(data.root, "101_ObjectCategories")
    numbered = zip(data.y, data.index, strict=True)
    return [os.path.join(folder, data.categories[y], f"image_{i:04d}.jpg") for y, i in numbered], data.y


def _caltech256(data: Any) -> Content:
    folder = os.path.join(data.root, "256_ObjectCategories")
    numbered = zip(data.y, data.index, strict=True)
    return [os.path.join(folder, data.categories[y], f"{y + 1:03d}_{i:04d}.jpg") for y, i in numbered], data.y


def _named(*splits: str) -> dict[str, dict[str, Any]]:
    return {split: {"split": split} for split in splits}


_TRAIN_FLAG = {"train": {"train": True}, "test": {"train": False}}
_RESEARCH = "non-commercial research"


@dataclass(frozen=True)
class Source:
    """How to open one torchvision dataset: split -> constructor arguments, what to read, class count, terms."""

    splits: dict[str, dict[str, Any]]
    read: Callable[[Any], Content]
    classes: int | None = None
    licence: str = "unknown"


#: torchvision name -> Source. `classes` is set where torchvision has no class names.
SOURCES: dict[str, Source] = {
    "CIFAR10": Source(_TRAIN_FLAG, _arrays("targets")),
    "CIFAR100": Source(_TRAIN_FLAG, _arrays("targets")),
    "Caltech101": Source({"all": {}}, _caltech101, licence="CC BY 4.0"),
    "Caltech256": Source({"all": {}}, _caltech256, licence="CC BY 4.0"),
    "Country211": Source(
        {"train": {"split": "train"}, "val": {"split": "valid"}, "test": {"split": "test"}}, _pairs("samples")
    ),
    "DTD": Source(_named("train", "val", "test"), _files("_image_files"), licence="research"),
    "EuroSAT": Source({"all": {}}, _pairs("samples"), licence="MIT"),
    "FGVCAircraft": Source(_named("train", "val", "trainval", "test"), _files("_image_files"), licence=_RESEARCH),
    "FashionMNIST": Source(_TRAIN_FLAG, _arrays("targets"), licence="MIT"),
    "Flowers102": Source(_named("train", "val", "test"), _files("_image_files"), classes=102, licence="research"),
    "Food101": Source(_named("train", "test"), _files("_image_files"), licence="research"),
    "GTSRB": Source(_named("train", "test"), _pairs("_samples"), classes=43),
    "ImageNet": Source(_named("train", "val"), _pairs("samples"), licence=_RESEARCH),
    "Imagenette": Source(_named("train", "val"), _pairs("_samples"), licence=_RESEARCH),
    "KMNIST": Source(_TRAIN_FLAG, _arrays("targets"), licence="CC BY-SA 4.0"),
    "MNIST": Source(_TRAIN_FLAG, _arrays("targets"), licence="CC BY-SA 3.0"),
    "OxfordIIITPet": Source(_named("trainval", "test"), _files("_images"), licence="CC BY-SA 4.0"),
    "RenderedSST2": Source(_named("train", "val", "test"), _pairs("_samples")),
    "STL10": Source(_named("train", "test", "unlabeled"), _arrays("labels", channels_first=True)),
    "SUN397": Source({"all": {}}, _files("_image_files")),
    "SVHN": Source(
        _named("train", "test", "extra"), _arrays("labels", channels_first=True), classes=10, licence="non-commercial"
    ),
    "StanfordCars": Source(_named("train", "test"), _pairs("_samples"), licence=_RESEARCH),
    "USPS": Source(_TRAIN_FLAG, _arrays("targets"), classes=10),
}


def open_torchvision(name: str, split: str, root: str | Path | None, download: bool) -> Dataset:
    """Open `split` of the torchvision dataset `name` under `root` (default $ZOO_DATA).

    Raises:
        DataError: the files are missing or damaged; the message names --download.
    """
    source, folder = SOURCES[name], data_root(root)
    data = _construct(name, source.splits[split], folder, download)
    images, labels = source.read(data)
    classes = _class_names(data, source)
    labels = np.asarray(labels, dtype=np.int64)
    if (labels < 0).all():  # STL10's unlabelled part
        labels = None
    short = name.lower()
    if isinstance(images, np.ndarray):
        return ArrayImages(short, split, images, labels, classes, source.licence)
    paths = [os.path.abspath(path) for path in images]
    # SUN397 lists files in the order of the file system: sorting makes every copy the same dataset.
    order = sorted(range(len(paths)), key=paths.__getitem__)
    paths = [paths[i] for i in order]
    keys = [os.path.relpath(path, folder).replace(os.sep, "/") for path in paths]
    return FileImages(short, split, paths, keys, None if labels is None else labels[order], classes, source.licence)


def _construct(name: str, arguments: dict[str, Any], folder: Path, download: bool) -> Any:
    import contextlib

    import torchvision.datasets

    kind = getattr(torchvision.datasets, name)
    options = dict(arguments)
    if download:
        if name == "ImageNet":
            raise DataError(f"ImageNet cannot be downloaded: put its ILSVRC2012 archives into {folder} yourself")
        options["download"] = True
    try:
        # Two processes that download into one folder would write the same files.
        with locked(folder / name) if download else contextlib.nullcontext():
            return kind(root=str(folder), **options)
    except (RuntimeError, OSError, ValueError) as error:
        reason = str(error).split("\n")[0].split(" You can use download=True")[0]
        if download:
            raise DataError(f"downloading {name} into {folder} failed: {reason}") from error
        raise DataError(
            f"{name} was not found in {folder} ({reason}); pass --download (download=True) to fetch it, "
            "or name the folder that holds it with root=... or ZOO_DATA"
        ) from error


def _class_names(data: Any, source: Source) -> tuple[str, ...]:
    names = getattr(data, "classes", None) or getattr(data, "categories", None)
    if not names:
        names = range(source.classes or 0)
    return tuple(", ".join(name) if isinstance(name, tuple) else str(name) for name in names)
