"""The demo's choice of an encoder: the one that README names, whatever else is published beside it."""

from __future__ import annotations

import json

import pytest
import yaml
from PIL import Image

from evaluation.demo import SLOW_SECONDS, _watched, default_encoder, run
from tests.zoo.checkpoints import write_small
from zoo import cli
from zoo.errors import UnknownNameError


def test_the_bundled_demo_shows_the_strongest_encoder_of_cifar10():
    assert default_encoder() == "distill_airbench_cifar10"
    assert default_encoder("skeleton") == "ms2l_bigru_nucla"


def test_another_catalogue_gives_what_it_has(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_CHECKPOINTS", str(tmp_path))
    with pytest.raises(UnknownNameError, match="no image encoder"):
        default_encoder()
    for name in ("conrec_small_toys", "simclr_a_toys", "distill_airbench_cifar10"):
        write_small(tmp_path / name)
        config = json.loads((tmp_path / name / "config.json").read_text())
        (tmp_path / name / "config.json").write_text(json.dumps({**config, "name": name}))
    assert default_encoder() == "distill_airbench_cifar10"
    for name in ("distill_airbench_cifar10", "simclr_a_toys"):
        expected = {"distill_airbench_cifar10": "simclr_a_toys", "simclr_a_toys": "conrec_small_toys"}[name]
        (tmp_path / name / "config.json").unlink()
        assert default_encoder() == expected


SHAPES = "synthetic:shapes?n=80&size=16"


@pytest.fixture
def catalogue(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_CHECKPOINTS", str(tmp_path / "zoo"))
    write_small(tmp_path / "zoo" / "simclr_small_toys")
    return tmp_path


def test_the_story_adapts_and_probes_again(catalogue, capsys):
    calls = []

    def adapt(*arguments):
        calls.append(arguments)
        return arguments[0], False

    out = catalogue / "demo"
    report = run(SHAPES, out=out, limit=40, adapt=adapt, picture=catalogue / "maps.png", quiet=True)
    assert calls == [("simclr_small_toys", SHAPES, "train", 40, out / "adapted" / "run")]
    said = " ".join(capsys.readouterr().out.split())
    assert "before" in said and "after" in said and "stopped early" in said and "random weights (untrained)" in said
    assert report == out / "adapted" / "report.html" and (out / "report.html").exists()
    first, second = (json.loads((folder / "results.json").read_text())["rows"] for folder in (out, out / "adapted"))
    assert {row["subject"] for row in first} == {"encoder", "untrained", "raw"} and len(second) == 1
    assert second[0]["metrics"] == first[0]["metrics"]  # the same weights, so the same number
    with Image.open(catalogue / "maps.png") as picture:
        assert picture.width > picture.height


def test_the_command_adapts_by_training(catalogue, capsys):
    command = [
        "demo",
        "--data",
        SHAPES,
        "--limit",
        "40",
        "--out",
        str(catalogue / "demo"),
        "--device",
        "cpu",
        "--quiet",
    ]
    assert cli.main(command) == 0
    recipe = yaml.safe_load((catalogue / "demo" / "adapted" / "run" / "recipe.yaml").read_text())
    assert recipe["encoder"]["init"] == "simclr_small_toys" and recipe["data"]["held_out"] == 0
    assert "zoo.load('local-dir:" in capsys.readouterr().out
    assert cli.main([*command, "--no-adapt"]) == 0 and "before" not in capsys.readouterr().out


def test_a_slow_machine_is_told_once(monkeypatch):
    said, now = [], [0.0]
    monkeypatch.setattr("evaluation.demo.time.monotonic", lambda: now[0])
    advance = _watched(lambda *given: None, 0.0, said.append)
    for seconds in (1, SLOW_SECONDS + 1, SLOW_SECONDS + 2):
        now[0] = seconds
        advance("features", 100, 400)
    (line,) = said
    assert "slower than expected" in line and "--limit 100" in line
