"""The list of readers: a new format is one class and one entry, and what a reader saw, took and left is said."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from tests.data_fixtures import make_folder, noise, write_image
from zoo.data import registry
from zoo.data.addresses import available_splits, open_dataset
from zoo.data.base import Report
from zoo.data.images import ArrayImages
from zoo.data.joined import Joined
from zoo.data.reader import PathReader
from zoo.data.splits import are_counterparts
from zoo.errors import DataError, DataWarning, UnknownNameError


class RawPixels(PathReader):
    """`.raw8` files: 8x8 grey images one after the other; what is left over at the end is no image."""

    example = "a .raw8 file"
    prefixes = ("raw8",)

    @classmethod
    def fits(cls, path):
        return path.suffix == ".raw8"

    def splits(self):
        return ["train", "test"]

    def open(self, split):
        content = self.path.read_bytes()
        count = len(content) // 64
        pixels = np.frombuffer(content[: 64 * count], dtype=np.uint8).reshape(-1, 8, 8)
        rows = np.arange(count) % 2 == (split == "test")
        data = ArrayImages(self.path.stem, split, pixels[rows], None)
        return data.reported({"bytes at the end": ["x"] * (len(content) % 64)})


@pytest.fixture
def raw8(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "READERS", [RawPixels, *registry.READERS])
    path = tmp_path / "scan.raw8"
    path.write_bytes(noise(0, 32, 20)[..., 0].tobytes() + b"xyz")
    return path


def test_a_new_format_is_one_class_and_one_entry(raw8):
    assert available_splits(raw8) == ["train", "test"]
    with pytest.warns(DataWarning, match=r"scan/train: 8 seen, 5 taken, 3 left out: 3 bytes at the end"):
        train = open_dataset(raw8, "train")
    assert len(train) == 5 and train.report == Report(5, {"bytes at the end": ("x", "x", "x")})
    assert train.report.saw == 8
    # Errors know it without another line.
    with pytest.raises(DataError, match=r"nowhere/x does not exist; expected .* or a \.raw8 file|a \.raw8 file"):
        open_dataset("nowhere/x")
    with pytest.raises(DataError, match="raw8: takes the path"):
        open_dataset("raw8:nowhere")


def test_every_reader_has_an_example_and_all_are_in_errors():
    for reader in registry.READERS:
        assert reader.example in registry.examples()
    with pytest.raises(UnknownNameError, match="did you mean 'synthetic:motion'"):
        open_dataset("synthetic:moton?n=8")
    with pytest.raises(UnknownNameError, match="no dataset 'synthetic:motions'"):
        open_dataset("synthetic:motions", "train")


def test_nothing_left_out_says_nothing(tmp_path):
    make_folder(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = open_dataset(tmp_path, "train")
    assert data.report == Report(10) and str(data.report) == "10 seen, all of them taken"


def test_opening_can_say_copies(tmp_path):
    make_folder(tmp_path / "pets")
    write_image(tmp_path / "pets" / "test" / "dog" / "copy.png", 3)  # train/cat/3.png with another label
    write_image(tmp_path / "pets" / "test" / "dog" / "twin.png", 19)  # test/dog/4.png once more
    with pytest.warns(DataWarning, match="1 samples are exact copies of earlier ones in this split"):
        test = open_dataset(tmp_path / "pets", "test", inspect=True)
    assert test.report.notes[1] == (
        "pets: 1 of 12 test samples (8.33 %) are exact copies of train samples, 1 of them with another label"
    )
    assert open_dataset(tmp_path / "pets", "train", inspect=True).report.notes[0].startswith("pets: 1 of 10 train")


def test_opening_skeletons_can_summarise_them():
    with pytest.warns(DataWarning, match=r"16 sequences of 8 classes, 20 joints, .* untracked, 0 exact copies"):
        open_dataset("synthetic:motion?n=16", "train", inspect=True)


@pytest.mark.parametrize(
    ("names", "other", "expected"),
    [
        (["train"], "test", True),
        (["xsub-train"], "xsub-test", True),
        (["xsub-train"], "xview-test", False),
        (["train"], "test-leakfree", False),
        (["trainval"], "train", False),
        (["trainval"], "test", True),
        (["train", "val"], "test", True),
        (["all"], "test", False),
    ],
)
def test_which_splits_should_share_nothing(names, other, expected):
    assert all(are_counterparts(name, other) for name in names) is expected


def test_groups_and_reports_survive_joining_and_subsets():
    """Held-out persons are chosen from joined splits as well."""
    train, test = (open_dataset("synthetic:motion?n=16", split) for split in ("train", "test"))
    joined = Joined([train.reported({"broken": ["a"]}), test.reported({"broken": ["b"]})])
    assert joined.groups["person"].tolist() == [*train.groups["person"].tolist(), *test.groups["person"].tolist()]
    assert joined.report.left == {"broken": ("a", "b")} and joined.layout == "kinect_v1"
    part = joined.subset([17, 0])
    assert part.groups["person"].tolist() == [joined.groups["person"][17], joined.groups["person"][0]]


def test_a_dataset_says_what_it_is(tmp_path):
    make_folder(tmp_path / "pets")
    assert repr(open_dataset(tmp_path / "pets", "train")) == "<pets/train: 10 images, 2 classes (cat, dog)>"
