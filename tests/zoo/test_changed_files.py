"""A fingerprint vouches for what was read: a file that is replaced meanwhile is noticed, and nothing is kept of it."""

from __future__ import annotations

import os

import numpy as np
import pytest
from PIL import Image

from tests.data_fixtures import make_folder
from tests.zoo.checkpoints import small_encoder
from zoo.data.addresses import open_dataset
from zoo.data.images import ImageSequence
from zoo.data.joined import Joined
from zoo.data.stores.pixels import pixel_cache
from zoo.errors import ChangedError, DataError
from zoo.features.extract import embed, extract, extract_cached


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    return make_folder(tmp_path / "images", splits=("train", "test"))


def paths(dataset) -> list[str]:
    return [os.fspath(p) for p in getattr(dataset, "paths", getattr(dataset, "images", ()))]


def replace(path: str, keep_time: bool = True) -> None:
    """Another picture of the same size under the same name, as an editor or a sync tool puts it there."""
    before = os.stat(path)
    image = np.asarray(Image.open(path))
    fresh = f"{path}.new"
    Image.fromarray(255 - image).save(fresh, format="PNG")
    if keep_time:
        os.utime(fresh, ns=(before.st_atime_ns, before.st_mtime_ns))
    os.replace(fresh, path)


@pytest.fixture
def replaced_while_running(monkeypatch):
    """Arrange that a file is replaced while the encoder runs on the first batch."""

    def arrange(encoder, path):
        forward, done = encoder.forward, []

        def step(x):
            if not done:
                done.append(replace(path))
            return forward(x)

        monkeypatch.setattr(encoder, "forward", step)

    return arrange


def data_of(folder, kind):
    train = open_dataset(folder, "train")
    if kind == "subset":
        return train.subset(np.arange(len(train) - 1)), train.paths[0]
    if kind == "joined":
        return Joined([train, open_dataset(folder, "test")]), train.paths[0]
    if kind == "without":
        return train.without({1: "bad"}), train.paths[0]
    if kind == "sequence":
        return ImageSequence(list(train.paths)), train.paths[0]
    return train, train.paths[0]


@pytest.mark.parametrize("out", [None, "f.npy", "f.npz"])
@pytest.mark.parametrize("kind", ["folder", "subset", "joined", "without", "sequence"])
def test_a_file_that_is_replaced_while_features_are_made(folder, tmp_path, replaced_while_running, kind, out):
    encoder, place = small_encoder(), None if out is None else tmp_path / out
    data, path = data_of(folder, kind)
    replaced_while_running(encoder, path)
    with pytest.raises(ChangedError, match="changed while they were read"):
        extract(encoder, data, batch_size=4, out=place)
    left = [path for path in tmp_path.glob("f.*") if path.suffix != ".lock"]
    assert not left, "no features, and nothing that a later run would resume"
    again, _ = data_of(folder, kind)
    table = extract(encoder, again, batch_size=4, out=place)
    assert len(table) == len(again) and table.fingerprint != data.fingerprint


@pytest.mark.parametrize("run", [embed, extract, extract_cached])
def test_every_way_to_features(folder, replaced_while_running, run):
    encoder = small_encoder()
    data = open_dataset(folder, "train")
    replaced_while_running(encoder, data.paths[3])
    with pytest.raises(ChangedError):
        run(encoder, data, batch_size=4)


def test_a_file_that_is_replaced_between_the_fingerprint_and_the_reading(folder, tmp_path):
    encoder, data = small_encoder(), open_dataset(folder, "train")
    assert data.fingerprint
    replace(data.paths[0])
    with pytest.raises(ChangedError):
        extract(encoder, data)
    with pytest.raises(ChangedError):
        pixel_cache(data, 16)
    assert open_dataset(folder, "train").fingerprint != data.fingerprint


def test_a_file_that_is_replaced_while_it_is_hashed(folder, monkeypatch, tmp_path):
    data = open_dataset(folder, "train")
    content = type(data).content
    monkeypatch.setattr(type(data), "content", lambda self, i: (content(self, i), i == 9 and replace(self.paths[0]))[0])
    with pytest.raises(ChangedError):
        _ = data.fingerprint
    assert not list((tmp_path / "cache").rglob("fingerprints/*")), "nothing is remembered under the old state"


def test_a_file_that_is_replaced_while_pixels_are_stored(folder, monkeypatch, tmp_path):
    data = open_dataset(folder, "train")
    sample = type(data).sample
    monkeypatch.setattr(type(data), "sample", lambda self, i: (sample(self, i), i == 9 and replace(self.paths[0]))[0])
    with pytest.raises(ChangedError):
        pixel_cache(data, 16)
    assert not list((tmp_path / "cache").rglob("*.npy"))


def test_a_file_that_is_removed_meanwhile(folder, replaced_while_running, monkeypatch):
    encoder, data = small_encoder(), open_dataset(folder, "train")
    forward = encoder.forward
    monkeypatch.setattr(encoder, "forward", lambda x: (forward(x), os.unlink(data.paths[0]))[0])
    with pytest.raises(DataError, match="cannot be read"):
        extract(encoder, data)


def test_files_that_are_only_read_are_unchanged(folder):
    encoder, data = small_encoder(), open_dataset(folder, "train")
    first = extract(encoder, data)
    for path in paths(data):
        Image.open(path).load()
    second = extract(encoder, data)
    assert first.fingerprint == second.fingerprint and np.array_equal(first.features, second.features)
