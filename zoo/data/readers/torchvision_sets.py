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
from zoo.data.reader import NameReader
from zoo.data.readers.partitions import sun397_partition, thirty_per_class
from zoo.errors import DataError
from zoo.files import data_root, locked

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


@dataclass(frozen=True)
class Source:
    """How to open one torchvision dataset.

    Attributes:
        splits: name -> constructor arguments. read: paths or pixels, and labels, of what torchvision made.
        homepage: where the data and its terms are.
        classes: their number, where torchvision has no names.
        terms: as the source itself states them; empty where no such statement was found.
        partition: for sets that torchvision does not split, `(paths, labels, folder) -> {split: (indices, how)}`.
    """

    splits: dict[str, dict[str, Any]]
    read: Callable[[Any], Content]
    homepage: str
    classes: int | None = None
    terms: str = ""
    partition: Callable[[list[str], np.ndarray, Path], dict[str, tuple[np.ndarray, str]]] | None = None

    @property
    def licence(self) -> str:
        """Terms of use with their source."""
        return f"{self.terms}; see {self.homepage}" if self.terms else f"see {self.homepage}"

    @property
    def names(self) -> list[str]:
        """All splits, those of the partition included."""
        return [*self.splits, *(("train", "test") if self.partition else ())]


_VGG = "https://www.robots.ox.ac.uk/~vgg/data"
#: Sets that nobody may or can download for a person -> what to do.
BY_HAND = {
    "ImageNet": "put its ILSVRC2012 archives into {folder} yourself",
    # Its address went dead in 2023 (pytorch/vision issue 7545).
    "StanfordCars": "get the images, devkit and cars_test_annos_withlabels.mat yourself and put them into "
    "{folder}/stanford_cars (cars_train/, cars_test/, devkit/)",
}
#: torchvision name -> Source.
SOURCES: dict[str, Source] = {
    "CIFAR10": Source(_TRAIN_FLAG, _arrays("targets"), "https://www.cs.toronto.edu/~kriz/cifar.html"),
    "CIFAR100": Source(_TRAIN_FLAG, _arrays("targets"), "https://www.cs.toronto.edu/~kriz/cifar.html"),
    "Caltech101": Source(
        {"all": {}}, _caltech101, "https://data.caltech.edu/records/mzrjq-6wc02", partition=thirty_per_class
    ),
    "Caltech256": Source({"all": {}}, _caltech256, "https://data.caltech.edu/records/nyy15-4j048"),
    "Country211": Source(
        {"train": {"split": "train"}, "val": {"split": "valid"}, "test": {"split": "test"}},
        _pairs("samples"),
        "https://github.com/openai/CLIP/blob/main/data/country211.md",
    ),
    "DTD": Source(
        _named("train", "val", "test"), _files("_image_files"), f"{_VGG}/dtd/", terms="for research purposes"
    ),
    "EuroSAT": Source({"all": {}}, _pairs("samples"), "https://github.com/phelber/eurosat"),
    "FGVCAircraft": Source(
        _named("train", "val", "trainval", "test"),
        _files("_image_files"),
        f"{_VGG}/fgvc-aircraft/",
        terms="for non-commercial research purposes only; the photographers keep their copyright",
    ),
    "FashionMNIST": Source(_TRAIN_FLAG, _arrays("targets"), "https://github.com/zalandoresearch/fashion-mnist"),
    "Flowers102": Source(_named("train", "val", "test"), _files("_image_files"), f"{_VGG}/flowers/102/", classes=102),
    "Food101": Source(
        _named("train", "test"),
        _files("_image_files"),
        "https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/",
        terms="scientific fair use; any other use must be negotiated with the owners of the pictures",
    ),
    "GTSRB": Source(_named("train", "test"), _pairs("_samples"), "https://benchmark.ini.rub.de/", classes=43),
    "ImageNet": Source(
        _named("train", "val"),
        _pairs("samples"),
        "https://image-net.org/",
        terms="only for non-commercial research and educational purposes",
    ),
    "Imagenette": Source(_named("train", "val"), _pairs("_samples"), "https://github.com/fastai/imagenette"),
    "KMNIST": Source(_TRAIN_FLAG, _arrays("targets"), "http://codh.rois.ac.jp/kmnist/"),
    "MNIST": Source(_TRAIN_FLAG, _arrays("targets"), "http://yann.lecun.com/exdb/mnist/"),
    "OxfordIIITPet": Source(_named("trainval", "test"), _files("_images"), f"{_VGG}/pets/"),
    "RenderedSST2": Source(
        _named("train", "val", "test"),
        _pairs("_samples"),
        "https://github.com/openai/CLIP/blob/main/data/rendered-sst2.md",
    ),
    "STL10": Source(
        _named("train", "test", "unlabeled"),
        _arrays("labels", channels_first=True),
        "https://cs.stanford.edu/~acoates/stl10/",
    ),
    "SUN397": Source(
        {"all": {}},
        _files("_image_files"),
        "https://vision.princeton.edu/projects/2010/SUN/",
        partition=sun397_partition,
    ),
    "SVHN": Source(
        _named("train", "test", "extra"),
        _arrays("labels", channels_first=True),
        "http://ufldl.stanford.edu/housenumbers/",
        classes=10,
    ),
    "StanfordCars": Source(
        _named("train", "test"), _pairs("_samples"), "https://ai.stanford.edu/~jkrause/cars/car_dataset.html"
    ),
    "USPS": Source(
        _TRAIN_FLAG,
        _arrays("targets"),
        "https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/multiclass.html#usps",
        classes=10,
    ),
}


def open_torchvision(name: str, split: str, root: str | Path | None, download: bool) -> Dataset:
    """Open `split` of the torchvision dataset `name` under `root` (default $ZOO_DATA).

    Raises:
        DataError: the files are missing or damaged; the message names --download.
    """
    source, folder = SOURCES[name], data_root(root)
    data = _construct(name, source.splits.get(split, {}), folder, download)
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
    labels = None if labels is None else labels[order]
    if split not in source.splits:
        assert source.partition is not None
        chosen, how = source.partition(paths, labels, folder)[split]
        paths, labels, split = [paths[i] for i in chosen], labels[chosen], f"{split}{how}"
    keys = [os.path.relpath(path, folder).replace(os.sep, "/") for path in paths]
    return FileImages(short, split, paths, keys, labels, classes, source.licence)


def _construct(name: str, arguments: dict[str, Any], folder: Path, download: bool) -> Any:
    import contextlib

    import torchvision.datasets

    kind = getattr(torchvision.datasets, name)
    options = dict(arguments)
    if download:
        if name in BY_HAND:
            raise DataError(f"{name} cannot be downloaded: {BY_HAND[name].format(folder=folder)}")
        options["download"] = True
    try:
        # Two processes that download into one folder would write the same files.
        with locked(folder / name) if download else contextlib.nullcontext():
            return kind(root=str(folder), **options)
    except (RuntimeError, OSError, ValueError) as error:
        reason = str(error).split("\n")[0].split(" You can use download=True")[0]
        if download:
            raise DataError(f"downloading {name} into {folder} failed: {reason}") from error
        fetch = BY_HAND.get(name, "pass --download (download=True) to fetch it").format(folder=folder)
        raise DataError(
            f"{name} was not found in {folder} ({reason}); {fetch}, "
            "or name the folder that holds it with root=... or ZOO_DATA"
        ) from error


def _class_names(data: Any, source: Source) -> tuple[str, ...]:
    names = getattr(data, "classes", None) or getattr(data, "categories", None)
    if not names:
        names = range(source.classes or 0)
    return tuple(", ".join(name) if isinstance(name, tuple) else str(name) for name in names)


class TorchvisionSets(NameReader):
    """The torchvision datasets in `SOURCES`."""

    example = "a torchvision name such as 'CIFAR10'"
    names = tuple(SOURCES)
    takes = ("test_share", "seed")

    def divisible(self) -> bool:
        return True

    def splits(self) -> list[str]:
        return SOURCES[self.address.text].names

    def open(self, split: str) -> Dataset:
        return open_torchvision(self.address.text, split, self.options.root, self.options.download)
