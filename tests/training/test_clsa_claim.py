"""The benchmark of CLSA's claim: three arms that differ in one thing, trained and judged once."""

from __future__ import annotations

import pytest
import yaml

from benchmarks.claims import clsa as clsa_claim
from benchmarks.claims import study as claims
from tests.training.test_clsa import run as clsa_run
from training.methods import method_class
from training.recipe import parse_recipe, read_recipe
from zoo.checkpoint.results import read_claim


def test_arms_differ_in_the_strong_views_alone():
    recipe = read_recipe("clsa_resnet10t_cifar10")
    moco, naive, clsa = (parse_recipe(clsa_claim.arm(recipe, name, 3), name).dump() for name in clsa_claim.ARMS)
    assert moco["seed"] == 3
    assert {k for k in clsa if naive[k] != clsa[k]} == {"method"}
    assert {k for k in clsa if moco[k] != clsa[k]} == {"method", "name"} and moco["name"] == "moco_resnet10t_cifar10"
    assert {k for k in clsa["method"] if naive["method"][k] != clsa["method"][k]} == {"strong_loss"}
    shared = moco["method"].keys() & clsa["method"].keys()
    assert {k for k in shared if moco["method"][k] != clsa["method"][k]} == {"name"}
    assert moco["method"].keys() - shared == {"symmetric", "views"}
    assert not moco["method"]["symmetric"] and not moco["method"]["views"]
    only = clsa["method"].keys() - shared
    assert only == {
        "weak",
        "strong",
        "strong_augment",
        "strong_loss",
        "alpha",
        "ddm_temperature",
        "ddm_weak_temperature",
    }
    assert issubclass(method_class("clsa").Config, method_class("moco").Config.__mro__[1])


@pytest.fixture(scope="module")
def recipe_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("claim")
    trainer = clsa_run(folder / "unused", epochs=1)
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(trainer.recipe.dump()))
    return path


def test_one_command_trains_judges_and_compares(recipe_file, tmp_path, capsys, monkeypatch):
    command = [str(recipe_file), "--seeds", "0", "1", "--held-out", "--out", str(tmp_path)]
    assert clsa_claim.main(command) == 0
    printed = capsys.readouterr().out
    claim = read_claim(tmp_path / "claim.json")
    assert claim.table() in printed and claim.seeds == (0, 1)
    assert list(claim.arms) == list(clsa_claim.TITLES.values()) and len(claim.differences) == 3
    assert "held-out training samples" in claim.measure and "--held-out" in claim.command
    # Everything is there: the same command trains and measures nothing.
    monkeypatch.setattr(claims, "train", None)
    monkeypatch.setattr(claims, "load", None)
    assert clsa_claim.main(command) == 0
    assert read_claim(tmp_path / "claim.json") == claim
    # What the benchmark kept before it had this frame: a bare number.
    (tmp_path / "moco_seed0" / "held_out_top1.json").write_text("0.25\n")
    assert clsa_claim.main(command) == 0
    assert read_claim(tmp_path / "claim.json").arms["MoCo v2"][0] == 0.25


@pytest.mark.parametrize(
    ("recipe", "said"), [("moco_resnet18_cifar10", "takes a recipe of clsa"), ("clsa_resnet18_cifar1", "did you")]
)
def test_a_recipe_of_another_method_is_refused(tmp_path, capsys, recipe, said):
    assert clsa_claim.main([recipe, "--out", str(tmp_path)]) == 2
    assert said in capsys.readouterr().err and not any(tmp_path.iterdir())
