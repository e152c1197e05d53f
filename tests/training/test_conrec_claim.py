"""The benchmark of ConRec's claim: arms share everything but what they are named for; one command, resumed."""

from __future__ import annotations

import json
import re

import pytest

from benchmarks.claims import study as claims
from benchmarks.claims.conrec import ARMS, FRACTIONS, main
from training.recipe import read_recipe
from zoo.checkpoint.results import read_claim


def test_arms_differ_in_pooling_decoder_and_corruption_only():
    recipes = {arm: read_recipe("conrec_unet16_rectangles", changes).dump() for arm, changes in ARMS.items()}
    reference = recipes["conrec"]
    for arm, recipe in recipes.items():
        assert {k: v for k, v in recipe.items() if k not in ("method", "encoder")} == {
            k: v for k, v in reference.items() if k not in ("method", "encoder")
        }
        differing = {k for k in recipe["method"] if recipe["method"][k] != reference["method"][k]}
        assert differing == (set() if arm == "conrec" else {"reconstruction", "corrupt"})
        differing = {k for k in recipe["encoder"] if recipe["encoder"][k] != reference["encoder"][k]}
        assert differing == ({"pool"} if arm == "simclr" else set())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The command once, over two seeds, on drawn shapes."""
    out = tmp_path_factory.mktemp("conrec_claim") / "claim"
    command = ["conrec_unet16_rectangles", "data=synthetic:shapes?n=64&size=16", "input.size=[16,16]"]
    command += ["encoder.width=8", "epochs=1", "batch_size=16", "monitor=null"]
    command += ["--out", str(out), "--seeds", "0", "1", "--arms", "conrec", "simclr", "--draws", "2"]
    assert main(command) == 0
    return out, command


def test_one_command_trains_judges_and_writes_claims_for_cards(finished, capsys):
    out, command = finished
    found = [read_claim(out / f"claim_{percent}pct_of_labels.json") for percent in (10, 25, 50, 100)]
    for claim in found:
        assert list(claim.arms) == [claims.FLOOR, "simclr", "conrec"] and claim.seeds == (0, 1)
        pairs = [(d.arm, d.other) for d in claim.differences]
        assert pairs == [("simclr", "untrained"), ("conrec", "untrained"), ("conrec", "simclr")]
        assert claim.command.startswith("python -m benchmarks.claims.conrec conrec_unet16_rectangles")
    assert "logreg-v3" in found[-1].measure and "few-label-v1, mean of 2 draws" in found[0].measure
    # The same command again trains and judges nothing, and prints the same.
    stamps = {path: path.stat().st_mtime_ns for path in out.glob("*_seed*/*.json")}
    assert main(command) == 0
    assert stamps == {path: path.stat().st_mtime_ns for path in out.glob("*_seed*/*.json")}
    printed = capsys.readouterr().out
    assert all(claim.table() in printed for claim in found)
    assert "| | 10% of labels | 25% of labels | 50% of labels | 100% of labels |" in printed
    mean = 100 * sum(found[1].arms["conrec"]) / 2
    assert re.search(rf"\| conrec \| \S+ \| {mean:.1f} \|", printed)


def test_scores_kept_beside_a_run_are_taken_up(finished):
    out, command = finished
    kept = json.loads((out / "conrec_seed0" / "labels_train_test_fixed_c.json").read_text())
    assert list(kept) == [str(fraction) for fraction in FRACTIONS]
    floor = out / "conrec_seed1" / "untrained_train_test_fixed_c.json"
    assert floor.exists() and not (out / "simclr_seed1" / floor.name).exists()
    (out / "conrec_seed0" / "labels_train_test_fixed_c.json").write_text(json.dumps(dict.fromkeys(kept, 0.125)))
    assert main(command) == 0
    assert read_claim(out / "claim_100pct_of_labels.json").arms["conrec"][0] == 0.125


def test_a_wrong_override_is_one_line_and_trains_nothing(tmp_path, capsys):
    out = tmp_path / "claim"
    assert main(["conrec_unet16_rectangles", "epoch=1", "--out", str(out)]) == 2
    assert "epochs" in capsys.readouterr().err and not out.exists()
