"""Device, precision and cores: one rule for training, extraction and fine-tuning."""

from __future__ import annotations

import pytest
import torch

from tests.training.test_loop import tiny, trainer_for
from tests.zoo.feature_fixtures import Images, tiny_encoder
from zoo import device
from zoo.errors import InputError
from zoo.features.extract import extract

CPU = torch.device("cpu")


@pytest.mark.parametrize("native", [False, True])
def test_auto_trains_and_extracts_in_the_same_precision(native, tmp_path, monkeypatch):
    """Where bf16 is only emulated, nothing runs in it unless it is asked for by name."""
    monkeypatch.setattr(device, "multiplies_bf16", lambda place: native)
    wanted = "bf16" if native else "fp32"
    trainer = trainer_for(tmp_path / "run", tiny(precision="auto"))
    assert (trainer.dtype is torch.bfloat16) == native
    assert extract(tiny_encoder(), Images(4)).precision == wanted
    assert device.resolve_precision("auto", CPU) == wanted
    assert device.resolve_precision("bf16", CPU) == "bf16" and device.autocast_dtype("fp32", CPU) is None


@pytest.mark.parametrize(("allowed", "native"), [("AVX2", False), ("avx512_core", False), ("DEFAULT", True)])
def test_bf16_is_not_chosen_where_the_environment_forbids_its_kernels(allowed, native, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", allowed)
    assert device.resolve_precision("auto", CPU) == ("bf16" if native else "fp32")


def test_a_precision_that_does_not_exist():
    with pytest.raises(InputError, match=r"'auto', 'fp32', 'bf16' or 'fp16', got 'fp8'"):
        device.autocast_dtype("fp8", CPU)


def test_cores_are_shared_among_the_processes_of_a_node(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(8)), raising=False)
    assert device.cores() == 8 and device.workers_beside(CPU) == 2
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert device.cores() == 2 and device.workers() == 2 and device.workers_beside(CPU) == 1
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "16")
    assert device.cores() == 1


def test_the_command_line_needs_the_cores_without_torch():
    import subprocess
    import sys

    script = "import sys, zoo.device; zoo.device.cores(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], timeout=600).returncode == 0
