"""Suites: every dataset that is there is measured, every other is skipped with a way to get it."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from evaluation.__main__ import main
from evaluation.frozen import cached_features
from evaluation.report.confused import class_rows, confused_pairs
from evaluation.report.suite_page import headlines, verdict
from evaluation.suite import SuiteResults, read_suite, run_suite, suite_names
from tests.data_fixtures import make_folder, write_image
from tests.zoo.checkpoints import small_encoder, write_small
from zoo.data.addresses import available_splits, open_dataset
from zoo.data.images import ArrayImages
from zoo.data.joined import Joined
from zoo.errors import DataError, UnknownNameError
from zoo.features.extract import extract_cached

PROTOCOLS = "transfer,knn,few_label,retrieval,metric_learning,clustering"


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint") / "simclr_small_toys"
    write_small(folder)
    return f"local-dir:{folder}"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Flowers-102 as a folder with four classes; a damaged CUB-200; nothing else."""
    root = tmp_path_factory.mktemp("data")
    make_folder(root / "flowers102", ("train", "val", "test"), ("aster", "iris", "lily", "rose"), per_class=6)
    (root / "CUB_200_2011").mkdir()
    (root / "CUB_200_2011" / "images.txt").write_text("1 a/b.jpg\n")
    return root


@pytest.fixture(scope="module")
def report(address, root, tmp_path_factory):
    out = tmp_path_factory.mktemp("report")
    arguments = [address, "--suite", "fine_grained", "--data-root", str(root), "--precision", "fp32", "--out", str(out)]
    assert main([*arguments, "--protocol", PROTOCOLS, "--labels", "1", "0.5"]) == 0
    return out


def test_one_json_with_every_number_its_protocol_and_the_fields_metric(report):
    results = SuiteResults.model_validate(json.loads((report / "results.json").read_text()))
    assert results.suite == "fine_grained" and results.weights_sha256
    rows = [row for row in results.rows if row.subject == "encoder"]
    assert {row.protocol for row in rows} == {
        "knn-v2",
        *(f"{name}-v1" for name in ("transfer", "few-label", "retrieval", "metric-learning", "clustering")),
    }
    heads = {row.protocol: row.headline for row in rows}
    assert heads["transfer-v1"] == heads["few-label-v1"] == "mean_per_class" and heads["retrieval-v1"] == "map"
    for row in results.rows:
        assert row.headline in row.metrics and "--out" not in row.command and row.settings
        assert (row.train.split, row.train.samples, row.test.samples) == ("train+val", 48, 24)
    assert {"top1", "mean_per_class"} == set(rows[0].metrics)


def test_what_is_missing_or_damaged_is_skipped_with_a_way_out(report):
    skipped = {item["dataset"]: item["reason"] for item in json.loads((report / "results.json").read_text())["skipped"]}
    assert set(skipped) == {entry.name for entry in read_suite("fine_grained").datasets} - {"flowers102"}
    assert "--download" in skipped["aircraft"] and "cars_test_annos_withlabels" in skipped["cars"]
    assert "classes.txt cannot be read" in skipped["cub200"] and "cub200/train/CLASS" in skipped["cub200"]
    page = (report / "report.html").read_text()
    assert "Stanford Dogs" in page and "vision.stanford.edu" in page


def test_one_csv_row_per_result(report):
    rows = list(csv.DictReader((report / "results.csv").open()))
    results = json.loads((report / "results.json").read_text())["rows"]
    assert len(rows) == len(results) and {row["dataset"] for row in rows} == {"flowers102"}
    for row, result in zip(rows, results, strict=True):
        assert float(row["headline_value"]) == result["metrics"][row["headline"]]["value"]


def test_the_page_needs_no_other_file_and_shows_classes_and_pairs(report):
    page = (report / "report.html").read_text()
    assert "<script" not in page and 'src="http' not in page and "<link" not in page
    assert ("All 4 classes, the hardest first" in page and "were taken for" in page) or "confused most often" in page
    assert page.count("data:image/png;base64,") >= 2 and "transfer-v1" in page and "few labels, 1 per class" in page


def test_an_empty_data_root_fails_nothing(address, tmp_path, capsys):
    out = tmp_path / "out"
    assert main([address, "--suite", "downstream", "--data-root", str(tmp_path / "none"), "--out", str(out)]) == 0
    written = json.loads((out / "results.json").read_text())
    assert written["rows"] == [] and len(written["skipped"]) == len(read_suite("downstream").datasets)
    assert "10 were skipped" in (out / "report.html").read_text() and "skipped CIFAR-10: " in capsys.readouterr().out


def test_a_folder_of_ones_own_joins_the_suite(root, tmp_path):
    own = make_folder(tmp_path / "birds", per_class=4)
    bare = make_folder(tmp_path / "bare", splits=("train", "val"), per_class=2)
    options = {"protocols": ["knn"], "floors": False, "precision": "fp32"}
    found = run_suite(small_encoder(), "downstream", tmp_path, folders=[own, bare], **options)
    assert list(found.found) == ["birds"] and found.rows[0].headline == "top1"
    assert found.rows[0].settings["k_grid"] == [1, 5, 10, 20]
    assert "bare has no train and test folders" in found.skipped[-1].reason
    assert headlines(found.rows)[0].outcome == "alone"
    assert verdict(found) == "Measured on 1 of 12 datasets, with no baseline beside the encoder."


def test_a_folder_named_like_a_dataset_of_the_suite_hides_neither(root, tmp_path):
    own = make_folder(tmp_path / "flowers102", per_class=4)
    options = {"protocols": ["knn"], "floors": False, "precision": "fp32"}
    found = run_suite(small_encoder(), "downstream", root, folders=[own, own], **options)
    assert list(found.found) == ["flowers102", "flowers102_2", "flowers102_3"]
    assert [row.headline for row in found.rows] == ["mean_per_class", "top1", "top1"]
    assert found.entry("flowers102_2").metric == "top1" and found.entry("flowers102_2").title == str(own)


def test_copies_of_training_images_in_the_test_split_are_said_beside_every_number(tmp_path):
    make_folder(tmp_path / "dtd", per_class=3)
    (tmp_path / "dtd" / "test" / "cat" / "0.png").write_bytes((tmp_path / "dtd/train/cat/2.png").read_bytes())
    found = run_suite(small_encoder(), "downstream", tmp_path, protocols=["knn"], floors=False, precision="fp32")
    assert any("1 of 6 test samples (16.67 %) are exact copies of train" in text for text in found.rows[0].warnings)


def test_a_broken_image_skips_its_dataset_and_nothing_else(root, tmp_path):
    make_folder(tmp_path / "cifar10", per_class=3)
    make_folder(tmp_path / "dtd", per_class=3)
    (tmp_path / "cifar10" / "train" / "cat" / "1.png").write_bytes(b"no image")
    found = run_suite(small_encoder(), "downstream", tmp_path, protocols=["knn"], floors=False, precision="fp32")
    assert list(found.found) == ["dtd"]
    assert any("cannot be decoded" in skipped.reason for skipped in found.skipped)


def test_bad_requests_say_what_would_do(address, capsys):
    assert main([address, "--suite", "fine_graind"]) == 2 and "'fine_grained'" in capsys.readouterr().err
    assert main([address, "--suite", "downstream", "--protocol", "knnn"]) == 2 and "'knn'" in capsys.readouterr().err
    assert main([address]) == 2 and "--suite for many" in capsys.readouterr().err
    with pytest.raises(UnknownNameError, match="unknown suite"):
        read_suite("nope")


@pytest.mark.parametrize("name", suite_names())
def test_every_entry_names_a_dataset_and_splits_that_exist(name):
    suite = read_suite(name)
    assert len({entry.name for entry in suite.datasets}) == len(suite.datasets)
    for entry in suite.datasets:
        assert {entry.train, entry.test, entry.validation or entry.train} <= set(available_splits(entry.source))


# --- the feature cache --------------------------------------------------------------------------


def test_features_are_found_again_and_only_when_nothing_changed(root, tmp_path, monkeypatch):
    encoder = small_encoder()
    train, test = (open_dataset(root / "flowers102", split) for split in ("train", "test"))
    first = cached_features(encoder, train, precision="fp32", folder=tmp_path)
    assert isinstance(first, np.memmap)
    with monkeypatch.context() as patch:
        patch.setattr(type(encoder), "_features", lambda *_: pytest.fail("extracted again"))
        assert (cached_features(encoder, train, precision="fp32", folder=tmp_path) == first).all()
    other_weights, other_input = small_encoder(seed=1), small_encoder()
    other_input.input = other_input.input.model_copy(update={"crop_fraction": 0.875})
    keys = {
        extract_cached(encoder, train, precision="fp32", folder=tmp_path).origin,
        extract_cached(encoder, test, precision="fp32", folder=tmp_path).origin,
        extract_cached(encoder, train, precision="bf16", folder=tmp_path).origin,
        extract_cached(other_weights, train, precision="fp32", folder=tmp_path).origin,
        extract_cached(other_input, train, precision="fp32", folder=tmp_path).origin,
    }
    assert len(keys) == 5


# --- parts --------------------------------------------------------------------------------------


def test_joined_splits_keep_every_sample_and_say_what_they_are(root):
    train, val, test = (open_dataset(root / "flowers102", split) for split in ("train", "val", "test"))
    both = Joined([train, val])
    assert (both.split, len(both)) == ("train+val", len(train) + len(val))
    for index, (part, i) in {0: (train, 0), 23: (train, 23), 24: (val, 0), 47: (val, 23)}.items():
        assert np.array_equal(np.asarray(both.sample(index)), np.asarray(part.sample(i)))
        assert both.labels[index] == part.labels[i]
    assert len(set(both.keys)) == len(both) and both.fingerprint != Joined([val, train]).fingerprint
    other = ArrayImages("x", "test", np.zeros((2, 4, 4, 3), np.uint8), np.arange(2), ["a", "b"])
    with pytest.raises(DataError, match="do not have the same classes"):
        Joined([test, other])


def test_the_hardest_class_comes_first_with_what_it_is_taken_for(tmp_path):
    true, predicted = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 2, 2, 1, 1, 1])
    rows = class_rows(true, predicted, ["ash", "box", "elm"])
    assert [(row.name, row.samples, row.taken_for, row.times) for row in rows] == [
        ("elm", 1, "box", 1), ("ash", 3, "elm", 2), ("box", 2, "", 0),
    ]  # fmt: skip
    assert rows[1].right == pytest.approx(1 / 3)
    for index in range(6):
        write_image(tmp_path / "all" / "ash" / f"{index}.png", index)
    data = open_dataset(tmp_path / "all")
    data.class_names = ("ash", "box", "elm")
    figure = confused_pairs(true, predicted, data)
    assert figure.png.startswith(b"\x89PNG") and "ash, taken for elm 2 of 3 times" in figure.caption
    assert confused_pairs(true, true, data) is None
