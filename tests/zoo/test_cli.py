"""The `zoo` command as a person types it: what it prints, writes and refuses."""

from __future__ import annotations

import json

import numpy as np
import pytest

import zoo
from evaluation import demo
from tests.data_fixtures import make_folder
from tests.zoo.checkpoints import results_for, write_small
from zoo import cli

DIGITS = "digits:placed"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("catalogue")
    config = write_small(folder / "simclr_small_toys")
    write_small(folder / "simclr_small_toys", results=results_for(config))
    return folder


@pytest.fixture
def zoo_command(root, monkeypatch, capsys):
    """Run `zoo ARGUMENTS`; gives exit status, stdout, stderr."""
    monkeypatch.setenv("ZOO_CHECKPOINTS", str(root))

    def run(*arguments: str) -> tuple[int, str, str]:
        status = cli.main(arguments)
        out, err = capsys.readouterr()
        return status, out, err

    return run


def test_list_and_show(zoo_command, root):
    status, out, _ = zoo_command("list")
    assert status == 0 and "simclr_small_toys" in out and "SimCLR" in out
    status, named, _ = zoo_command("show", "simclr_small_toys")
    assert status == 0 and "81.2" in named and "toys" in named
    status, addressed, _ = zoo_command("show", f"local-dir:{root / 'simclr_small_toys'}")
    assert status == 0 and addressed == named


def test_extract_writes_features_labels_and_names(zoo_command, tmp_path):
    images = make_folder(tmp_path / "images", splits=("train",))
    status, out, _ = zoo_command(
        "extract", "simclr_small_toys", str(images), "--split", "train", "--out", str(tmp_path / "f.npz")
    )
    assert status == 0 and "10 x 16" in out
    with np.load(tmp_path / "f.npz") as found:
        assert found["features"].shape == (10, 16) and found["labels"].tolist() == [0] * 5 + [1] * 5
        assert len(found["keys"]) == 10


def test_extract_writes_the_layers_that_are_asked_for(zoo_command, tmp_path):
    images = make_folder(tmp_path / "images", splits=("train",))
    where = ["simclr_small_toys", str(images), "--split", "train"]
    status, _, err = zoo_command(
        "extract", *where, "--layers", "layer3,layer4", "--pool", "max", "--out", str(tmp_path / "f.npz")
    )
    assert status == 0, err
    table = zoo.extract(
        "simclr_small_toys", zoo.open_dataset(str(images), "train"), layers=["layer3", "layer4"], pool="max"
    )
    with np.load(tmp_path / "f.npz") as found:
        np.testing.assert_array_equal(found["features"], table.features)


def test_publish_measures_and_writes_the_card(zoo_command, root, tmp_path):
    status, _, err = zoo_command(
        "publish", str(root / "simclr_small_toys"), "--name", "simclr_small_digits", "--data", DIGITS, "--limit", "60",
        "--out", str(tmp_path / "published"), "--cards", str(tmp_path / "cards"),
    )  # fmt: skip
    assert status == 0, err
    card = (tmp_path / "cards" / "simclr_small_digits.md").read_text()
    results = json.loads((tmp_path / "published" / "simclr_small_digits" / "results.json").read_text())
    value = results["rows"][0]["metrics"]["top1"]["value"]
    assert f"{100 * value:.1f} %" in card and "simclr_small_digits" in results["rows"][0]["command"]


def test_the_demo_needs_no_download_and_writes_what_it_says(root, tmp_path, monkeypatch, capsys):
    """On a checkpoint of no skill: the floors are measured all the same, and nothing is claimed."""
    monkeypatch.setenv("ZOO_CHECKPOINTS", str(root))
    monkeypatch.chdir(tmp_path)  # no data/ here
    report = demo.run(out=tmp_path / "demo", limit=60)
    out = capsys.readouterr().out
    assert "simclr_small_toys" in out and "untrained" in out and "raw pixels" in out
    page = report.read_text()
    assert page.count("data:image/png;base64,") >= 4 and "http://" not in page.replace("http://www.w3.org", "")
    results = json.loads((tmp_path / "demo" / "results.json").read_text())
    assert {row["subject"] for row in results["rows"]} == {"encoder", "untrained", "raw"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "simclr_smal_toys"], "did you mean 'simclr_small_toys'"),
        (["list", "byol*"], "no checkpoint matches"),
        (["extract", "simclr_small_toys", "nowhere", "--out", "f.npz"], "no dataset 'nowhere'"),
        (
            ["extract", "simclr_small_toys", DIGITS, "--split", "test", "--layers", "x", "--out", "f.npz"],
            "no layer 'x'",
        ),
        (["extract", "simclr_small_toys", DIGITS, "--split", "test", "--pool", "sum", "--out", "f.npz"], "'mean+cls'"),
        (["extract", "simclr_small_toys", DIGITS, "--split", "tran", "--out", "f.npz"], "no split 'tran'"),
        (["extract", "simclr_small_toys", DIGITS, "--split", "test", "--device", "cuda:9", "--out", "f.npz"], "CUDA"),
        (["publish", "nowhere", "--name", "simclr_a_b"], "nowhere"),
        (["publish", "nowhere", "--name", "a", "--data", "digits", "--results", "r.json"], "not both"),
        (["verify", "simclr_smal_toys"], "did you mean"),
        (["demo", "--encoder", "simclr_smal_toys"], "did you mean"),
    ],
)
def test_bad_input_is_one_line_and_status_2(zoo_command, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    status, _, err = zoo_command(*arguments)
    lines = err.strip().splitlines()
    assert status == 2 and lines[-1].startswith("error: ") and message in lines[-1], err
    assert not list(tmp_path.iterdir())
