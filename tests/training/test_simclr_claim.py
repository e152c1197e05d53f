"""The benchmark of SimCLR's claims: each arm changes one thing, equal arms train once, tables per group."""

from __future__ import annotations

import argparse

import pytest
import yaml

from benchmarks.claims.simclr import GROUPS, Study, main
from training.recipe import read_recipe
from zoo.checkpoint.results import read_claim

#: What an arm may change.
CHANGES = {"augmentation": "method", "head": "method", "temperature": "method", "batch": "batch_size"}


def recipe_of(arm: str):
    options = argparse.Namespace(recipe="simclr_resnet10t_cifar10", overrides=[])
    return Study().recipe(options, arm, 0).dump()


@pytest.mark.parametrize("group", [group for group in GROUPS if group != "labels"])
def test_an_arm_differs_from_its_reference_in_one_thing_and_the_reference_is_the_recipe(group):
    plain = read_recipe("simclr_resnet10t_cifar10", ["seed=0"]).dump()
    *others, reference = GROUPS[group]
    assert recipe_of(reference) == plain
    for arm in others:
        changed = {key for key, value in recipe_of(arm).items() if value != plain[key]}
        assert changed == {CHANGES.get(group, group)}
    if group in ("head", "temperature"):
        assert {
            key for arm in others for key, value in recipe_of(arm)["method"].items() if value != plain["method"][key]
        } == {group}


def test_augmentation_arms_draw_what_their_names_say():
    drawn = {arm: recipe_of(arm)["method"]["augment"] for arm in GROUPS["augmentation"]}
    for arm, config in drawn.items():
        assert (config["crop_scale"] != [1, 1]) == ("crop" in arm) and (config["flip_p"] > 0) == ("flip" in arm)
        assert (config["jitter_p"] > 0) == any(word in arm for word in ("colour", "jitter"))
        assert (config["greyscale_p"] > 0) == ("colour" in arm) and (config["blur_p"] > 0) == ("blur" in arm)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    path = tmp_path_factory.mktemp("simclr_claim") / "tiny.yaml"
    raw = read_recipe("simclr_resnet10t_cifar10", ["data=synthetic:shapes?n=96&size=16", "data.limit=null"]).dump()
    raw |= {"input": {"size": [16, 16]}, "batch_size": 32, "epochs": 1, "monitor": None}
    raw["precision"] = "fp32"  # bf16 on the CPU leaves weight gradients unwritten where a 1 x 1 map meets stride 2
    raw["encoder"]["model_args"] = {"channels": [8, 8, 16, 16], "stem_width": 8}
    path.write_text(yaml.safe_dump(raw))
    return path


def test_one_command_trains_equal_arms_once_and_writes_a_claim_for_each_table(tiny, tmp_path, capsys):
    command = [str(tiny), "--groups", "head", "temperature", "--arms", "no head", "MLP head", "temperature 0.5"]
    assert main([*command, "--seeds", "0", "1", "--draws", "2", "--out", str(tmp_path)]) == 0
    runs = {path.parent.parent.name for path in tmp_path.glob("*/encoder/config.json")}
    # MLP head, temperature 0.5: the recipe, which all groups share under the name of the first.
    assert runs == {f"{arm}_seed{seed}" for arm in ("crop_flip_colour", "no_head") for seed in (0, 1)}
    head, temperature = (read_claim(tmp_path / f"claim_{g}_all_labels.json") for g in ("head", "temperature"))
    assert list(head.arms) == ["untrained", "no head", "MLP head"]
    assert [(d.arm, d.other) for d in head.differences] == [("MLP head", "untrained"), ("MLP head", "no head")]
    assert head.arms["MLP head"] == temperature.arms["temperature 0.5"]
    assert "logreg-v3" in head.measure and head.title.endswith(": head")
    assert (tmp_path / "claim_head_1pct_of_labels.json").exists()
    assert "| | 1% of labels | 10% of labels | all labels |" in capsys.readouterr().out


def test_few_labels_are_fine_tuned_too(tiny, tmp_path):
    command = [str(tiny), "--groups", "labels", "--seeds", "0", "--draws", "2", "--limit", "64"]
    assert main([*command, "--out", str(tmp_path)]) == 0
    found = read_claim(tmp_path / "claim_labels_10pct_of_labels_fine-tuned.json")
    assert list(found.arms) == ["untrained", "the recipe"] and "fine-tuning" in found.measure
    assert all(0 <= value <= 1 for values in found.arms.values() for value in values)


def test_a_recipe_of_another_method_is_refused(tmp_path, capsys):
    assert main(["smoke_conrec", "--out", str(tmp_path / "x")]) == 2
    assert "takes a recipe of simclr" in capsys.readouterr().err
