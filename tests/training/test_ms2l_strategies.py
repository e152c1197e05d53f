"""The strategies' benchmark end to end on made motion."""

from __future__ import annotations

import json

import pytest

from benchmarks.claims.ms2l_strategies import ARMS, RUNS, SUPERVISED, main
from training.recipe import read_recipe
from zoo.checkpoint.results import read_claim


def test_every_run_is_a_recipe_with_the_strategy_it_names():
    found = [read_recipe("ms2l_bigru64_nucla", changes).method_config().strategy for changes in RUNS.values()]
    assert found == ["pretrain", "joint", "moving"]
    assert {run for run, _, _ in ARMS.values()} == set(RUNS)


def test_the_command_measures_every_strategy_and_goes_on_where_it_stopped(tmp_path):
    out = tmp_path / "strategies"
    arguments = ["smoke_ms2l", "data=synthetic:motion?n=64", "epochs=1", "batch_size=16", "monitor=null"]
    arguments += ["encoder.hidden=8", "--out", str(out), "--seeds", "0", "--split", "train/test", "--lr", "0.1"]
    assert main([*arguments, "--steps", "4"]) == 0
    claim = read_claim(out / "claim.json")
    assert list(claim.arms) == list(ARMS) and all(len(values) == 1 for values in claim.arms.values())
    assert {d.other for d in claim.differences} == {SUPERVISED}
    tuned = out / "pretrained_seed0" / "pretrained_fine-tuned.json"
    kept = json.loads(tuned.read_text())
    assert kept["steps"] == 4 and kept["top1"] == pytest.approx(claim.arms["pretrained, fine-tuned"][0])
    weights = out / "joint_seed0" / "encoder" / "config.json"
    stamps = weights.stat().st_mtime_ns, (out / "joint_seed0" / "joint_linear.json").stat().st_mtime_ns
    assert main([*arguments, "--steps", "5"]) == 0  # other settings: fine-tuned anew, nothing trained or probed again
    assert json.loads(tuned.read_text())["steps"] == 5
    assert stamps == (weights.stat().st_mtime_ns, (out / "joint_seed0" / "joint_linear.json").stat().st_mtime_ns)
