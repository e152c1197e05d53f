"""CUB-200-2011 and Stanford Dogs in the layouts of their own archives, which torchvision does not read."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from zoo.data.base import Dataset
from zoo.data.images import FileImages
from zoo.data.reader import NameReader
from zoo.errors import DataError
from zoo.files import data_root

CUB_HOME = "https://www.vision.caltech.edu/datasets/cub_200_2011/"
DOGS_HOME = "http://vision.stanford.edu/aditya86/ImageNetDogs/"


def open_cub200(split: str, root: str | Path | None = None) -> Dataset:
    """CUB-200-2011: 200 bird species, 5,994 training and 5,794 test images.

    `images.txt`, `image_class_labels.txt` and `train_test_split.txt` are joined on the image's number; class
    names come from `classes.txt` without their numbers.

    Args:
        split: `"train"` or `"test"`.
        root: the folder that holds `CUB_200_2011`, or that folder itself; default $ZOO_DATA.

    Raises:
        DataError: a file is missing, or two files list different images.
    """
    home = _home(root, ("CUB_200_2011", "cub_200_2011"), "images.txt", "CUB200", CUB_HOME)
    images, classes = _numbered(home / "images.txt"), _numbered(home / "classes.txt")
    labels, training = _numbered(home / "image_class_labels.txt"), _numbered(home / "train_test_split.txt")
    for name, part in (("image_class_labels.txt", labels), ("train_test_split.txt", training)):
        if part.keys() != images.keys():
            raise DataError(
                f"{home / name} lists {len(part)} images, images.txt {len(images)}, not the same; restore it"
            )
    wanted = "1" if split == "train" else "0"
    numbers = [number for number in images if training[number] == wanted]
    index = {number: i for i, number in enumerate(classes)}
    names = [name.split(".", 1)[-1].replace("_", " ") for name in classes.values()]
    files = [f"images/{images[number]}" for number in numbers]
    return _files("cub200", split, home, files, [index[labels[number]] for number in numbers], names, CUB_HOME)


def open_stanford_dogs(split: str, root: str | Path | None = None) -> Dataset:
    """Stanford Dogs: 120 breeds, 12,000 training and 8,580 test images, all of them from ImageNet.

    Reads `train_list.mat` or `test_list.mat` (of lists.tar, here or in `lists/`) and `Images/`.

    Args and errors as `open_cub200`; the folder is called `stanford_dogs`.
    """
    from scipy.io import loadmat

    home = _home(root, ("stanford_dogs", "StanfordDogs", "dogs"), "Images", "StanfordDogs", DOGS_HOME)
    found = [path for path in (home / f"{split}_list.mat", home / "lists" / f"{split}_list.mat") if path.is_file()]
    if not found:
        raise DataError(f"{home} holds no {split}_list.mat; unpack lists.tar of {DOGS_HOME} there")
    try:
        lists = loadmat(found[0], squeeze_me=True)
        files = [str(name) for name in np.atleast_1d(lists["file_list"])]
        labels = [int(label) - 1 for label in np.atleast_1d(lists["labels"])]
    except (KeyError, ValueError, TypeError, NotImplementedError) as error:
        raise DataError(f"{found[0]} is not a list of Stanford Dogs ({error}); unpack lists.tar again") from None
    folders = sorted(entry.name for entry in os.scandir(home / "Images") if entry.is_dir())
    # Labels count the folders in alphabetical order from 1; a list that disagrees would shift every name.
    wrong = next((f for f, i in zip(files, labels, strict=True) if not _fits(f, i, folders)), None)
    if wrong is not None:
        raise DataError(
            f"{found[0]}: the label of {wrong} does not fit the {len(folders)} folders of {home / 'Images'}"
        )
    names = [folder.split("-", 1)[-1].replace("_", " ") for folder in folders]
    return _files("stanforddogs", split, home, [f"Images/{name}" for name in files], labels, names, DOGS_HOME)


def _fits(file: str, label: int, folders: list[str]) -> bool:
    return 0 <= label < len(folders) and folders[label] == file.split("/", 1)[0]


def _files(
    name: str, split: str, home: Path, files: list[str], labels: list[int], class_names: list[str], page: str
) -> FileImages:
    order = sorted(range(len(files)), key=files.__getitem__)
    paths = [os.path.abspath(home / files[i]) for i in order]
    missing = [path for path in paths if not os.path.isfile(path)]
    if missing:
        raise DataError(
            f"{missing[0]} is missing ({len(missing)} of {len(paths)} images are); unpack the archive again"
        )
    chosen = np.array([labels[i] for i in order], dtype=np.int64)
    return FileImages(name, split, paths, [files[i] for i in order], chosen, class_names, f"see {page}")


def _home(root: str | Path | None, folders: tuple[str, ...], mark: str, name: str, page: str) -> Path:
    """The dataset's folder: `root` itself or one below it, known by a file `mark`."""
    root = data_root(root)
    for candidate in (*(root / folder for folder in folders), root):
        if (candidate / mark).exists():
            return candidate
    raise DataError(
        f"{name} was not found in {root} (no {folders[0]}/{mark}); download and unpack it from {page}, "
        "or name the folder that holds it with root=... or ZOO_DATA"
    )


def _numbered(path: Path) -> dict[str, str]:
    """`number text` lines -> number: text, in the order of the file."""
    try:
        lines = [line.split(maxsplit=1) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        return {number: text.strip() for number, text in lines}
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}); unpack CUB_200_2011.tgz again") from None
    except ValueError:
        raise DataError(f"{path} holds a line that is not `number text`; unpack CUB_200_2011.tgz again") from None


class CUB200(NameReader):
    """CUB-200-2011."""

    example = "'CUB200'"
    names = ("CUB200",)

    def splits(self) -> list[str]:
        return ["train", "test"]

    def open(self, split: str) -> Dataset:
        return open_cub200(split, self.options.root)


class StanfordDogs(NameReader):
    """Stanford Dogs."""

    example = "'StanfordDogs'"
    names = ("StanfordDogs",)

    def splits(self) -> list[str]:
        return ["train", "test"]

    def open(self, split: str) -> Dataset:
        return open_stanford_dogs(split, self.options.root)
