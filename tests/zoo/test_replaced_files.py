"""What a fingerprint vouches for is what was read: a file that is replaced meanwhile is noticed."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tests.zoo.feature_fixtures import tiny_encoder
from zoo.data.addresses import open_dataset
from zoo.data.base import Joined
from zoo.data.images import ImageSequence
from zoo.data.stores.pixels import pixel_view
from zoo.errors import DataError
from zoo.features.extract import extract

RNG = np.random.default_rng(0)


def picture(path, side=20):
    Image.fromarray(RNG.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(path)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    for split in ("train", "test"):
        for name in "ab":
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for i in range(6):
                picture(tmp_path / "data" / split / name / f"{i}.png")
    return tmp_path / "data"


def replacing_at_the_first_batch(path):
    def progress(done, total):
        if done <= 2:
            picture(path, side=24)

    return progress


@pytest.mark.parametrize("out", [None, "f.npy", "f.npz"])
@pytest.mark.parametrize("kind", ["folder", "subset", "joined", "paths"])
def test_an_extraction_of_files_that_change_is_refused(folder, tmp_path, out, kind):
    last = folder / "train" / "b" / "5.png"

    def opened():
        train = open_dataset(folder, "train")
        kinds = {
            "folder": lambda: train,
            "subset": lambda: train.subset([0, 1, 2, 11]),
            "joined": lambda: Joined([train, open_dataset(folder, "test")]),
            "paths": lambda: ImageSequence([folder / "train" / "a" / f"{i}.png" for i in range(4)] + [last]),
        }
        return kinds[kind]()

    encoder, place = tiny_encoder(), None if out is None else tmp_path / out
    options = {"batch_size": 2, "precision": "fp32", "out": place}
    data = opened()
    with pytest.raises(DataError, match="changed while they were read"):
        extract(encoder, data, progress=replacing_at_the_first_batch(last), **options)
    assert not [path for path in tmp_path.glob("f.*") if path.suffix != ".lock"], "no rows that a resume could take up"
    calls = []
    table = extract(encoder, opened(), progress=lambda *done: calls.append(done), **options)
    assert calls[-1][0] == len(table) and table.fingerprint != data.fingerprint


def test_a_pixel_cache_of_other_files_is_not_kept(folder, tmp_path):
    data = open_dataset(folder, "train")
    old = data.fingerprint
    picture(folder / "train" / "a" / "0.png")
    with pytest.raises(DataError, match="changed while they were read"):
        pixel_view(data, 16)
    assert not list((tmp_path / "cache" / "pixels").glob("*.npy"))
    again = open_dataset(folder, "train")
    assert again.fingerprint != old and pixel_view(again, 16)[0].shape == (12, 16, 16, 3)


def test_files_that_change_while_they_are_hashed(folder, monkeypatch):
    data = open_dataset(folder, "train")
    read = data.content

    def replace(index):
        if index == 3:
            picture(folder / "train" / "a" / "0.png")
        return read(index)

    monkeypatch.setattr(data, "content", replace)
    with pytest.raises(DataError, match="changed while they were read"):
        data.fingerprint  # noqa: B018
