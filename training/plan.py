"""`--plan`: what a recipe would cost, from its own first steps, without training."""

from __future__ import annotations

import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from training.loop import Trainer
from training.recipe import Recipe
from training.run import RunFolder, hardware

MEASURED_STEPS = 3


def plan(recipe: Recipe, device: torch.device) -> dict[str, Any]:
    """Parameters, FLOPs, memory, samples, steps and a time estimate.

    Takes a few real steps on the recipe's own data at each view size and throws them away.

    Returns:
        counts as int, `flops_per_step` (multiply and add counted separately, forward and backward),
        `peak_memory_bytes`, `seconds_per_step` and `hours` measured on this machine.
    """
    with tempfile.TemporaryDirectory() as scratch:
        trainer = Trainer(recipe, RunFolder(Path(scratch) / "plan"), device)
        trainer.method.train()
        stages = _stages(recipe, trainer.total_steps)
        seconds = flops = 0.0
        for first, last in stages:
            with FlopCounterMode(display=False) as counter:
                trainer.step = first
                trainer._step()
            per_step = _measure(trainer, first)
            seconds += per_step * (last - first)
            flops += counter.get_total_flops() * (last - first)
    steps = trainer.total_steps
    return {
        "recipe": recipe.name,
        "hardware": hardware(),
        "encoder_parameters": sum(p.numel() for p in trainer.method.encoder.parameters()),
        "trained_parameters": sum(p.numel() for p in trainer.method.parameters() if p.requires_grad),
        "training_samples": len(trainer.data.train),
        "held_out_samples": len(trainer.data.held),
        "batch_size": recipe.batch_size,
        "steps": steps,
        "samples_seen": steps * recipe.batch_size,
        "precision": str(trainer.dtype or torch.float32).removeprefix("torch."),
        "flops_per_step": int(flops / steps),
        "flops_total": int(flops),
        "peak_memory_bytes": _peak_memory(device),
        "seconds_per_step": seconds / steps,
        "hours": seconds / 3600,
    }


def _stages(recipe: Recipe, total: int) -> list[tuple[int, int]]:
    ends = [min(total, -int(-v.until * total // 1)) for v in recipe.view_sizes] or [total]
    return [(a, b) for a, b in zip([0, *ends], ends, strict=False) if b > a]


def _measure(trainer: Trainer, step: int) -> float:
    _synchronize(trainer.device)
    started = time.perf_counter()
    for _ in range(MEASURED_STEPS):
        trainer.step = step
        trainer._step()
    _synchronize(trainer.device)
    return (time.perf_counter() - started) / MEASURED_STEPS


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def show(numbers: dict[str, Any]) -> None:
    """Print a plan as a table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"Plan of {numbers['recipe']}", show_header=False)
    for key, value in numbers.items():
        if key == "recipe":
            continue
        if isinstance(value, int):
            text = f"{value:,}" if abs(value) < 10**9 else f"{value:.3g}"
        else:
            text = f"{value:.3g}" if isinstance(value, float) else str(value)
        unit = {"peak_memory_bytes": f"{numbers['peak_memory_bytes'] / 1e9:.2f} GB"}.get(key, text)
        table.add_row(key.replace("_", " "), unit)
    Console().print(table)
