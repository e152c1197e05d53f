"""Samples as rows for other tools: every column, both formats, torch and Hugging Face."""

from __future__ import annotations

import csv
import json
import os
import sys
from dataclasses import replace

import numpy as np
import pytest

from tests.data_fixtures import make_folder
from tests.zoo.feature_fixtures import Images, tiny_encoder
from zoo.data.addresses import open_dataset
from zoo.data.images import ImageSequence
from zoo.data.joined import Joined
from zoo.errors import DataError, InputError
from zoo.features.extract import extract
from zoo.features.samples import COLUMNS, Samples, sample_paths


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Two splits of a folder with their features."""
    root = make_folder(tmp_path_factory.mktemp("pictures"), per_class=3)
    encoder = tiny_encoder()
    return [(extract(encoder, data), data) for data in (open_dataset(root, split) for split in ("train", "test"))]


@pytest.fixture(scope="module")
def samples(parts):
    places = np.full((12, 2), np.nan, dtype=np.float32)
    places[3] = 1.5, -2.25
    columns = {"cluster": np.arange(12) % 4, "note": ['näive, "quoted"', *[None] * 11]}
    return Samples.of(parts, coordinates=places, columns=columns)


def test_csv_has_usable_paths_and_the_very_features(samples, tmp_path):
    rows = list(csv.DictReader(samples.save(tmp_path / "s.csv").open(newline="", encoding="utf-8")))
    assert list(rows[0]) == [*COLUMNS[:-1], "cluster", "note", "feature"]
    assert len(rows) == 12
    assert all(os.path.isabs(row["path"]) and os.path.isfile(row["path"]) for row in rows)
    assert [row["split"] for row in rows] == ["train"] * 6 + ["test"] * 6
    assert {(row["label"], row["class"]) for row in rows} == {("0", "cat"), ("1", "dog")}
    assert (rows[3]["x"], rows[3]["y"], rows[2]["x"]) == ("1.5", "-2.25", "")
    assert rows[0]["note"] == 'näive, "quoted"' and rows[1]["note"] == ""
    read = np.array([json.loads(row["feature"]) for row in rows], dtype=np.float32)
    assert np.array_equal(read, samples.feature)


def test_parquet_holds_the_same(samples, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    read = parquet.read_table(samples.save(tmp_path / "s.parquet"))
    assert read.column_names == [*COLUMNS[:-1], "cluster", "note", "feature"]
    rows = read.to_pylist()
    assert np.array_equal(np.array([row["feature"] for row in rows], dtype=np.float32), samples.feature)
    assert rows[3]["x"] == 1.5 and rows[2]["x"] is None and rows[7]["class"] == "cat"
    assert [row["cluster"] for row in rows] == [0, 1, 2, 3] * 3


def test_torch_gives_features_and_labels(samples):
    feature, label = samples.to_torch()[7]
    assert np.array_equal(feature.numpy(), samples.feature[7]) and int(label) == 0
    unlabelled = Samples(samples.path, samples.key, samples.split, None, (), samples.feature)
    assert len(unlabelled.to_torch()[0]) == 1


def test_hugging_face_knows_the_classes(samples):
    datasets = pytest.importorskip("datasets")
    made = samples.to_huggingface()
    assert made.features["label"] == datasets.ClassLabel(names=["cat", "dog"])
    assert made[7]["path"] == samples.path[7] and np.float32(made[7]["feature"][0]) == samples.feature[7][0]


def test_without_the_extra_it_is_named(samples, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImportError, match=r"encoder-zoo\[datasets\]"):
        samples.to_huggingface()


def test_paths_of_every_kind_of_dataset(parts, tmp_path):
    (_, train), (_, test) = parts
    assert sample_paths(train.subset([4, 0])) == [train.paths[4], train.paths[0]]
    assert sample_paths(Joined([train, test])) == [*train.paths, *test.paths]
    assert sample_paths(Images(3)) == [None] * 3
    assert sample_paths(ImageSequence([train.paths[0], train.sample(0)])) == [train.paths[0], None]


def test_what_does_not_belong_together_is_refused(parts, samples, tmp_path):
    (table, train), (other, test) = parts
    with pytest.raises(InputError, match="not of"):
        Samples.of([(table, test)])
    with pytest.raises(InputError, match="different encoders"):
        Samples.of([(table, train), (replace(other, encoder_sha256="0" * 64), test)])
    with pytest.raises(InputError, match="'cluster' has 3 values for 6 samples"):
        Samples.of([(table, train)], columns={"cluster": [1, 2, 3]})
    with pytest.raises(InputError, match="choose other names"):
        Samples.of([(table, train)], columns={"path": [""] * 6})
    with pytest.raises(DataError, match=r"\.parquet or \.csv, not '\.txt'"):
        samples.save(tmp_path / "s.txt")
    assert list(tmp_path.iterdir()) == []
