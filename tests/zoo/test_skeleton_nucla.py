"""The reader of N-UCLA: its splits, what it refuses, and the store that training reads from."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest

from zoo.data.addresses import available_splits, open_dataset
from zoo.data.skeletons import summarise
from zoo.data.stores.sequences import sequence_store
from zoo.errors import DataError, DataWarning, UnknownNameError
from zoo.preprocessing.skeleton import SkeletonInput, SkeletonTransform

RNG = np.random.default_rng(0)


def write_nucla(folder, action, subject, episode, view, frames=None, label=None, **changes):
    frames = RNG.normal(size=(5, 20, 3)).round(4) if frames is None else frames
    name = f"a{action:02d}_s{subject:02d}_e{episode:02d}_v{view:02d}"
    item = {"file_name": name, "skeletons": np.asarray(frames).tolist(), "label": action if label is None else label}
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps({**item, **changes}))
    return np.asarray(frames)


@pytest.fixture
def nucla(tmp_path):
    """Four training sequences (cameras 1, 2), three of camera 3, of which one is a copy from camera 2."""
    root = tmp_path / "nucla"
    write_nucla(root, 1, 1, 0, 1)
    copied = write_nucla(root, 1, 1, 0, 2)
    write_nucla(root, 2, 2, 0, 1)
    write_nucla(root, 2, 2, 1, 2, frames=RNG.normal(size=(1, 20, 3)))
    write_nucla(root, 1, 1, 0, 3, frames=copied)
    write_nucla(root, 2, 2, 0, 3)
    write_nucla(root, 2, 2, 1, 3)
    return root


def test_nucla_has_an_official_and_a_leak_free_split(nucla):
    assert available_splits(nucla) == ["train", "test", "train-leakfree", "test-leakfree", "all"]
    with pytest.warns(DataWarning, match=r"1 of 3 test sequences \(33\.3 %\) are identical"):
        test = open_dataset(nucla, "test")
    assert test.report.notes and test.modality == "skeleton"
    counts = {split: len(open_dataset(nucla, split)) for split in available_splits(nucla)}
    assert counts == {"train": 4, "test": 3, "train-leakfree": 3, "test-leakfree": 2, "all": 7}
    assert "a01_s01_e00_v02" not in open_dataset(nucla, "train-leakfree").keys
    assert "a01_s01_e00_v03" not in open_dataset(nucla, "test-leakfree").keys
    train = open_dataset(f"nucla:{nucla}", "train")
    assert train.labels.tolist() == [0, 0, 1, 1] and train.groups["person"].tolist() == [1, 1, 2, 2]
    assert [train.sample(i).shape for i in range(4)] == [(5, 20, 3)] * 3 + [(1, 20, 3)]
    assert train.subset([2, 0]).groups["person"].tolist() == [2, 1]
    assert summarise(open_dataset(nucla, "all")).duplicates == 1
    with pytest.raises(UnknownNameError, match="test-leakfree"):
        open_dataset(nucla, "test-leakfre")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"skeletons": [[[0, 0, 0]] * 25]}, "got shape"),
        ({"skeletons": []}, "T >= 1"),
        ({"skeletons": [[[float("nan"), 0, 0]] * 20]}, "finite"),
        ({"label": 0}, "1..10"),
        ({"label": 11}, "off by one"),
        ({"label": "1"}, "1..10"),
        ({"label": 3}, "expected one label"),
    ],
)
def test_nucla_refuses_what_cannot_be_right(nucla, changes, message):
    write_nucla(nucla, 1, 3, 0, 1, **{"label": 1, **changes})
    with pytest.raises(DataError, match=message):
        open_dataset(nucla, "train")


def test_a_damaged_nucla_file_is_named(nucla):
    (nucla / "a01_s01_e00_v01.json").write_text("{")
    with pytest.raises(DataError, match=r"a01_s01_e00_v01\.json"):
        open_dataset(nucla, "train")


def test_fingerprint_follows_the_content(nucla):
    before = open_dataset(nucla, "train").fingerprint
    assert before == open_dataset(nucla, "train").fingerprint != open_dataset(nucla, "test").fingerprint
    write_nucla(nucla, 2, 2, 0, 1)
    assert open_dataset(nucla, "train").fingerprint != before


@pytest.mark.skipif(not os.path.isdir("data/nucla"), reason="needs the real data in data/nucla")
def test_the_real_nucla():
    counts = {split: len(open_dataset("data/nucla", split)) for split in available_splits("data/nucla")}
    assert counts == {"train": 1020, "test": 464, "train-leakfree": 925, "test-leakfree": 369, "all": 1484}
    with open("data/nucla_duplicates.txt") as file:
        pairs = [line.split() for line in file]
    assert not {copy for copy, _ in pairs} & set(open_dataset("data/nucla", "test-leakfree").keys)
    assert not {original for _, original in pairs} & set(open_dataset("data/nucla", "train-leakfree").keys)


def test_the_store_holds_what_the_transform_gives(nucla, tmp_path):
    data, transform = open_dataset(nucla, "train"), SkeletonTransform(SkeletonInput(steps=("centre_frames",)))
    store = sequence_store(data, transform, cache_dir=tmp_path / "cache")
    assert len(store) == 4 and store.lengths.tolist() == [5, 5, 5, 1]
    for i in range(4):
        np.testing.assert_array_equal(store.sequence(i), transform.frames(data.sample(i)))
    files = sorted((tmp_path / "cache" / "sequences").glob("*.npy"))
    assert len(files) == 2
    files[0].write_bytes(files[0].read_bytes()[:-8])
    again = sequence_store(data, transform, cache_dir=tmp_path / "cache")
    np.testing.assert_array_equal(again.frames, store.frames)
    with pytest.raises(DataError, match="joint layout"):
        sequence_store(data, SkeletonTransform(SkeletonInput(layout="kinect_v2")), cache_dir=tmp_path / "cache")
    with pytest.raises(DataError, match="takes skeletons"):
        sequence_store(open_dataset("synthetic:shapes?n=8", "train"), transform)
