"""The benchmark of an accelerator, tried on the CPU: it checks, measures, judges and writes; on a GPU it passes."""

from __future__ import annotations

import argparse
import json
import math

import pytest
import torch

from benchmarks.speed import gpu, gpu_checks
from benchmarks.speed.gpu_report import show, targets


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    path = tmp_path_factory.mktemp("gpu") / "found.json"
    command = ["--device", "cpu", "--tiny", "--no-lightly", "--cases", "tiny ResNet, 16 px", "--out", str(path)]
    assert gpu.main(command) == 0
    return path


def test_one_call_checks_measures_and_writes(report):
    found = json.loads(report.read_text())
    assert all(check["passed"] for check in found["checks"]) and len(found["checks"]) == 7
    # bf16 rounds: were the two the same, the check would compare nothing.
    assert found["checks"][0]["value"] > 0 and found["checks"][1]["value"] < 1 - 1e-6
    (case,) = found["cases"].values()
    assert set(case["rows"]) == {"model only, eager", "whole step, eager"}
    rates = [row["views_per_s"] for row in case["rows"].values()]
    rates += [*case["extraction_images_per_s"].values(), *found["ceilings"].values(), found["load"]["load_ms"]]
    assert all(math.isfinite(rate) and rate > 0 for rate in rates)
    text = report.with_suffix(".md").read_text()
    assert "these numbers show that the script works" in text and "not judged" in text and "MISSED" not in text


def test_targets_are_judged_by_their_own_direction(report):
    found = json.loads(report.read_text()) | {"tiny": False}
    case = next(iter(found["cases"].values()))
    case["rows"] = {
        "model only, eager": {"views_per_s": 100.0, "peak_gib": 2.0},
        "whole step, eager": {"views_per_s": 80.0, "peak_gib": 2.5},
        "model only, compiled": {"views_per_s": 125.0, "peak_gib": 2.0},
        "whole step, compiled": {"views_per_s": 120.0, "peak_gib": 2.5},
        "lightly, bf16": {"views_per_s": 20.0, "peak_gib": 3.0},
        "lightly, fp32": {"error": "does not fit the device's memory"},
    }
    found["cases"] = {"ResNet-18, 32 px": case}
    found["load"]["ms_per_20_mb"] = 60.0
    ratios = {title: value for title, value, _, _ in targets(found)}
    assert ratios["ResNet-18, 32 px: whole step, eager / model only"] == 0.8
    assert ratios["ResNet-18, 32 px: our best whole step / lightly, bf16"] == 6.0
    assert ratios["ResNet-18, 32 px: 200 epochs of CIFAR-10 at this speed, minutes"] == pytest.approx(2e7 / 120 / 60)
    lines = {line.split(" | ")[0][2:]: line for line in show(found).splitlines() if line.startswith("| ")}
    assert lines["ResNet-18, 32 px: whole step, eager / model only"].endswith("MISSED |")
    assert lines["ResNet-18, 32 px: whole step, compiled / model only"].endswith("| met |")
    assert lines["cached load, ms per 20 MB"].endswith("MISSED |") and "2.50 |" in lines["whole step, eager"]
    assert "does not fit" in lines["lightly, fp32"]


def test_a_check_fails_where_the_numbers_do_not_fit():
    assert not gpu_checks.Check("x", 0.02, 0.01).passed and gpu_checks.Check("x", 0.02, 0.01, at_most=False).passed
    assert (
        not gpu_checks.Check("x", math.nan, 1).passed and not gpu_checks.Check("x", math.nan, 1, at_most=False).passed
    )
    a = torch.tensor([3.0, 4.0])
    assert gpu_checks.relative(2 * a, a) == 1 and gpu_checks.cosine(a, -a) == -1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_how_to_try_the_script(capsys):
    assert gpu.main([]) == 2
    assert "--device cpu --tiny" in capsys.readouterr().err


def test_an_unknown_case_is_refused_and_a_failing_side_leaves_the_others(capsys, monkeypatch):
    assert gpu.main(["--device", "cpu", "--tiny", "--cases", "ResNet-18, 32 px"]) == 2
    assert "it is one of tiny ResNet, 16 px" in capsys.readouterr().err

    def broken(*arguments, **options):
        raise RuntimeError("DataLoader worker (pid 1) is killed by signal: Bus error.\nmore")

    monkeypatch.setattr(gpu, "Lightly", broken)
    monkeypatch.setattr(gpu, "find_spec", lambda name: object())
    options = argparse.Namespace(seconds=0.01, warmup=0, workers=0, backend=gpu_checks.TRACE_ONLY, no_lightly=False)
    rows = gpu.sides(gpu.TINY["tiny ResNet, 16 px"], torch.device("cpu"), options)
    assert rows["lightly, bf16"] == {"error": "RuntimeError: DataLoader worker (pid 1) is killed by signal: Bus error."}
    assert rows["whole step, eager"]["views_per_s"] > 0


@pytest.mark.gpu
def test_on_a_gpu_everything_checks_out(tmp_path):
    path = tmp_path / "found.json"
    assert gpu.main(["--cases", "ResNet-18, 32 px", "--seconds", "1", "--out", str(path)]) == 0
    found = json.loads(path.read_text())
    rows = found["cases"]["ResNet-18, 32 px"]["rows"]
    assert {"whole step, eager", "whole step, compiled", "model only, compiled"} <= set(rows)
    assert all(row["peak_gib"] > 0 for row in rows.values())
