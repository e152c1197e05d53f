"""Every smoke recipe trains an epoch: with one thread and two, with the kernels of this CPU and those of AVX2."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from training.recipe import available_recipes

ROOT = Path(__file__).parents[2]
SMOKE = [name for name in available_recipes() if name.startswith("smoke")]


@pytest.mark.slow
@pytest.mark.parametrize("kernels", ["own", "avx2"])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", SMOKE)
def test_a_smoke_recipe_trains(name, threads, kernels, tmp_path):
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT)}
    if kernels == "avx2":
        environment |= {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
    command = [sys.executable, "-m", "training", name, "epochs=1", "--out", str(tmp_path / "run"), "--device", "cpu"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-500:]
    assert any((tmp_path / "run" / end).exists() for end in ("encoder/config.json", "genotype.json"))


def test_the_smoke_recipes_are_there():
    assert len(SMOKE) >= 4
