"""`--plan`: what it prints agrees with what a run then does, and nothing is trained or left behind."""

from __future__ import annotations

import pytest
import torch

from training.__main__ import main
from training.plan import plan, static_plan
from training.recipe import read_recipe
from zoo import cli

TINY = [
    "data.dataset=synthetic:shapes?n=160&size=16",
    "input.size=[16,16]",
    "batch_size=32",
    "epochs=3",
    "monitor=null",
    "precision=fp32",
]


def planned(*overrides: str):
    return plan(read_recipe("smoke", [*TINY, *overrides]), torch.device("cpu"))


def test_counts_are_those_of_the_run():
    numbers = planned()
    assert (numbers["training_samples"], numbers["held_out_samples"]) == (128, 32)
    assert numbers["steps"] == 3 * 128 // 32 and numbers["samples_seen"] == numbers["steps"] * 32
    assert numbers["trained_parameters"] > numbers["encoder_parameters"] > 100_000
    assert numbers["hours"] == pytest.approx(numbers["seconds_per_step"] * numbers["steps"] / 3600)
    assert numbers["peak_memory_bytes"] > 4 * numbers["trained_parameters"]


def test_small_views_cost_less_arithmetic():
    """Each stage of a progressive schedule counts at its own size."""
    large = planned()["flops_total"]
    mixed = planned("view_sizes=[{until: 0.5, size: 8}, {until: 1.0, size: 16}]")["flops_total"]
    small = planned("view_sizes=[{until: 1.0, size: 8}]")["flops_total"]
    assert mixed == pytest.approx((small + large) / 2, rel=1e-6) and small < 0.6 * large


@pytest.mark.parametrize(
    ("method", "few", "many"),
    [
        ("simclr", "method.views=[{count: 2}]", "method.views=[{count: 4}]"),
        ("moco", "method.views=[]", "method.views=[{count: 2}]"),
        ("clsa", "method.strong=[{}]", "method.strong=[{}, {count: 2}]"),
    ],
)
def test_every_view_counts(method, few, many):
    """Two further views of the usual size add the forward and backward passes of two views."""
    chosen = f"method={method}", *([] if method == "simclr" else ["method.queue_size=64", "method.bn_groups=1"])
    fewer, more = (planned(*chosen, views)["flops_total"] for views in (few, many))
    two = planned("method=simclr")["flops_total"]
    assert more - fewer == pytest.approx(two, rel=0.02)


def test_the_command_prints_a_table_and_leaves_no_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["smoke", "--plan", "--device", "cpu", *TINY]) == 0
    out = capsys.readouterr().out
    assert "time to expect" in out and "peak memory" in out and "TFLOP" in out
    assert not list(tmp_path.iterdir())


def test_samples_given_by_hand_agree_with_the_run(capsys):
    recipe = read_recipe("smoke", TINY)
    by_hand, measured = static_plan(recipe, torch.device("cpu"), samples=128), planned()
    assert {key: measured[key] for key in by_hand} == by_hand and by_hand["steps"] == 12
    assert cli.main(["plan", "smoke", "--samples", "128", "data=no/such/folder", "batch_size=32"]) == 0
    assert "samples seen" in capsys.readouterr().out
    assert cli.main(["plan", "smoke", "--samples", "8", "batch_size=32"]) == 2
    assert "--samples 8 is fewer than batch_size=32" in capsys.readouterr().err


def test_a_plan_says_why_it_did_not_measure(capsys):
    assert cli.main(["plan", "smoke", "data=no/such/folder", "--device", "cpu"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "parameters, encoder" in out and "not measured" in out and "no/such/folder" in out and "--samples" in out
