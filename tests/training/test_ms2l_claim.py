"""The claim's benchmark end to end on made motion, and its paired differences."""

from __future__ import annotations

import json

import pytest

from benchmarks.ms2l_claim import ALL, ARMS, FLOOR, RELEASED, differences, main, table
from training.recipe import read_recipe


def test_every_arm_is_a_recipe_that_trains_the_tasks_it_names():
    for arm, overrides in ARMS.items():
        config = read_recipe("ms2l_bigru_nucla", overrides).method_config()
        on = [task for task in ("motion", "jigsaw", "contrastive") if getattr(config, task)]
        assert on == (ALL if arm == RELEASED else arm).split("+")
    assert len(ARMS) == 8


def test_differences_are_paired_over_seeds():
    scores = {
        ALL: {"0": {"official": 0.8}, "1": {"official": 0.6}},
        "motion": {"0": {"official": 0.7}, "1": {"official": 0.5}},
    }
    found = differences(scores)["motion"]["official"]
    assert found["mean"] == pytest.approx(0.1) and found["low"] == pytest.approx(0.1) == found["high"]
    assert "| motion | 2 | 60.0 ± 14.1 | +10.0 [+10.0, +10.0] |" in table(scores)


def test_the_command_trains_probes_and_goes_on_where_it_stopped(tmp_path, capsys):
    out = tmp_path / "claim"
    arguments = ["smoke_ms2l", "data=synthetic:motion?n=64", "epochs=1", "batch_size=16", "monitor=null"]
    arguments += ["encoder.hidden=8", "--out", str(out), "--seeds", "0", "1", "--arms", "jigsaw", ALL]
    arguments += ["--splits", "train/test"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    found = json.loads((out / "claim.json").read_text())
    assert set(found["scores"]) == {"jigsaw", ALL, FLOOR} and set(found["differences"]) == {"jigsaw", FLOOR}
    stamp = (out / "jigsaw_seed1" / "encoder" / "config.json").stat().st_mtime_ns
    assert main(arguments) == 0
    assert (out / "jigsaw_seed1" / "encoder" / "config.json").stat().st_mtime_ns == stamp
    assert capsys.readouterr().out.endswith(printed[printed.index("| tasks") :])
