"""Tar shards for tests, written with the standard library."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from tests.data_fixtures import make_folder, noise
from zoo.data.addresses import open_dataset
from zoo.data.base import Dataset, FileDataset


def write_tar(path: Path, members: Iterable[tuple[str, bytes]] | Mapping[str, bytes]) -> Path:
    """A plain tar of the members, in their order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pairs = members.items() if isinstance(members, Mapping) else members
    with tarfile.open(path, "w") as archive:
        for name, content in pairs:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def shards_of(data: FileDataset, folder: Path, count: int, split: str = "") -> list[Path]:
    """The pictures of a folder as `count` shards, in the same order, the names of their classes as `.cls`."""
    made = []
    for number, part in enumerate(np.array_split(np.arange(len(data)), count)):
        members = []
        for index in part.tolist():
            key = data.keys[index]
            members.append((key, data.content(index)))
            if data.labels is not None:
                members.append((f"{key.rpartition('.')[0]}.cls", class_of(data, index).encode()))
        made.append(write_tar(folder / f"{split}{'-' if split else ''}{number:04d}.tar", members))
    return made


def class_of(data: FileDataset, index: int) -> str:
    """Name of the class of a sample."""
    return data.class_names[int(data.labels[index])]


def picture(seed: int, kind: str = "PNG") -> bytes:
    """A noise image as an encoded file."""
    buffer = io.BytesIO()
    Image.fromarray(noise(seed)).save(buffer, kind)
    return buffer.getvalue()


def pair(key: str, seed: int = 0, label: bytes = b"1") -> list[tuple[str, bytes]]:
    """A picture and its `.cls`."""
    return [(f"{key}.png", picture(seed)), (f"{key}.cls", label)]


def split_shards(place: Path) -> tuple[Path, Path]:
    """A folder of pictures with splits, and the same as shards: three of train, one of test."""
    folder = make_folder(place / "pets")
    for split, count in (("train", 3), ("test", 1)):
        shards_of(open_dataset(folder, split), place / "shards", count, split)
    return folder, place / "shards"


def same(a: Dataset, b: Dataset) -> None:
    """Equal samples, keys, labels and fingerprints."""
    assert (len(a), list(a.keys), a.class_names) == (len(b), list(b.keys), b.class_names)
    assert a.labels.tolist() == b.labels.tolist() and a.fingerprint == b.fingerprint
    for index in (len(a) - 1, 0, len(a) // 2):
        assert np.array_equal(np.asarray(a.sample(index)), np.asarray(b.sample(index)))


def keys_read(trainer) -> list[str]:
    """Trains; the keys that were read, in order."""
    keys, draw = [], trainer.batches.draw

    def drawn(rows, *others):
        keys.extend(trainer.data.dataset.keys[row] for row in rows.tolist())
        return draw(rows, *others)

    trainer.batches.draw = drawn
    trainer.run()
    return keys
