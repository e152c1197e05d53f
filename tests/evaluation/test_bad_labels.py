"""Labels that are no class indices: one clear error, at once, through every door that takes some."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.evaluate import evaluate
from evaluation.frozen import Features
from tests.zoo.checkpoints import small_encoder
from zoo.data.addresses import open_dataset
from zoo.data.base import Dataset
from zoo.data.labels import MOST_CLASSES, class_indices
from zoo.errors import DataError
from zoo.features.table import FeatureTable

BAD = {
    "negative": [0, 1, -1, 1],
    "float": [0.0, 1.0, 0.5, 1.0],
    "whole floats": [0.0, 1.0, 0.0, 1.0],
    "NaN": [0.0, 1.0, np.nan, 1.0],
    "infinite": [0.0, 1.0, np.inf, 1.0],
    "huge": [0, 1, 10**9, 1],
    "beyond 64 bits": [0, 1, 10**30, 1],
    "unsigned": np.array([0, 1, 2**63 + 1, 1], dtype=np.uint64),
    "text": ["a", "b", "c", "d"],
    "objects": np.array([0, None, 1, 1], dtype=object),
    "truth": [True, False, True, True],
    "one-hot": np.eye(4, dtype=np.int64),
    "a scalar": 3,
}
bad = pytest.mark.parametrize("labels", BAD.values(), ids=BAD)


@bad
def test_refused_in_one_line(labels):
    with pytest.raises(DataError, match=r"^here: labels ") as caught:
        class_indices(labels, "here")
    assert len(str(caught.value)) < 300


@bad
def test_by_a_dataset_and_by_features(labels):
    with pytest.raises(DataError, match="labels"):
        Dataset("toys", "train", list("abcd"), labels, ("x", "y"))
    with pytest.raises(DataError, match="labels"):
        Features(np.zeros((4, 3), np.float32), labels)


@bad
def test_before_any_feature_is_computed(labels, monkeypatch):
    """A class of its own may fill in its labels as it likes."""
    train, test = (open_dataset("synthetic:shapes?n=16&size=16", split) for split in ("train", "test"))
    encoder = small_encoder()
    monkeypatch.setattr(type(encoder), "forward", lambda *_: pytest.fail("ran the encoder"))
    for broken, name in ((train, "/train: labels"), (test, "/test: labels")):
        good, broken.labels = broken.labels, labels
        with pytest.raises(DataError, match=name):
            evaluate(encoder, train, test)
        broken.labels = good


def test_ordinary_labels_of_every_integer_dtype():
    for dtype in (np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64):
        found = class_indices(np.array([0, 1, 100], dtype=dtype), "x")
        assert found.dtype == np.int64 and found.tolist() == [0, 1, 100]
    assert class_indices([MOST_CLASSES - 1], "x").tolist() == [MOST_CLASSES - 1]
    assert class_indices(range(3), "x").tolist() == [0, 1, 2]


@pytest.mark.parametrize("suffix", [".npz", ".npy"])
def test_a_stored_table_is_asked_the_same(tmp_path, suffix):
    table = FeatureTable(np.zeros((2, 3), np.float32), np.array([0.5, np.nan]), ["a", "b"], ("x", "y"))
    path = table.save(tmp_path / f"f{suffix}")
    with pytest.raises(DataError, match="labels must be whole numbers"):
        FeatureTable.load(path)
