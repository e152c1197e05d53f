"""Whole runs under torchrun, as a person starts them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def torchrun(folder: Path, *words: str) -> subprocess.CompletedProcess:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, "-m", "training", "smoke", "--device", "cpu", "monitor=null", "data.limit=400", *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run([*command, "--out", str(folder)], env=environment, capture_output=True, text=True, cwd=ROOT)


@pytest.mark.slow
def test_saves_that_a_clock_finds_due_break_nothing(tmp_path):
    """Each process used to ask its own clock, and the collectives of one met those of the other."""
    done = torchrun(tmp_path / "run", "epochs=2", "save_minutes=0.0001")
    assert done.returncode == 0, done.stderr[-800:]
    assert json.loads((tmp_path / "run" / "encoder" / "config.json").read_text())["training"]["epochs"] == 2


@pytest.mark.slow
def test_a_time_limit_ends_without_a_traceback_and_the_run_goes_on(tmp_path):
    stopped = torchrun(tmp_path / "run", "epochs=2", "--minutes", "0")
    assert stopped.returncode == 0 and "Traceback" not in stopped.stderr, stopped.stderr[-800:]
    assert "time limit reached" in stopped.stderr and (tmp_path / "run" / "state" / "last.pt").exists()
    assert not (tmp_path / "run" / "encoder").exists()
    assert torchrun(tmp_path / "run", "epochs=2").returncode == 0
    assert (tmp_path / "run" / "encoder" / "config.json").exists()
