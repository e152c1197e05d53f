"""`zoo plan`: what a recipe would cost, without training: by arithmetic alone, or from its own first steps."""

from __future__ import annotations

import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from training.environment import hardware
from training.init import resolve_init
from training.loop import Trainer, build_method
from training.methods import method_class
from training.recipe import Recipe
from training.run_folder import RunFolder
from zoo.console import duration
from zoo.device import autocast_dtype
from zoo.errors import DataError

MEASURED_STEPS = 3


def static_plan(recipe: Recipe, device: torch.device, samples: int | None = None) -> dict[str, Any]:
    """What is known without the data: parameters, batch size, precision, and with `samples` the number of steps.

    Args:
        samples: how many training samples to plan for; None leaves out what depends on them.

    Returns:
        the keys of `plan` that need no measurement.

    Raises:
        DataError: `samples` is smaller than the batch size.
    """
    recipe = resolve_init(recipe)
    if samples is not None and samples < recipe.batch_size:
        raise DataError(f"--samples {samples} is fewer than batch_size={recipe.batch_size}; lower batch_size")
    share = samples // 2 if samples is not None and method_class(recipe.method["name"]).halves else samples
    steps = None if share is None else share // recipe.batch_size * recipe.epochs
    # A queue or a schedule may ask for the number of samples; parameters do not depend on it.
    method = build_method(recipe, torch.device("cpu"), samples or 2 * recipe.batch_size, steps or 1, classes=2)
    dtype = autocast_dtype(recipe.precision, device)
    figures = {
        "recipe": recipe.name,
        "hardware": hardware(),
        "encoder_parameters": sum(p.numel() for p in method.encoder.parameters()),
        "trained_parameters": sum(p.numel() for p in method.parameters() if p.requires_grad),
        "batch_size": recipe.batch_size,
        "epochs": recipe.epochs,
        "precision": str(dtype or torch.float32).removeprefix("torch."),
    }
    if steps is not None:
        figures |= {"training_samples": samples, "steps": steps, "samples_seen": steps * recipe.batch_size}
    return figures


def plan(recipe: Recipe, device: torch.device) -> dict[str, Any]:
    """Parameters, FLOPs, memory, samples, steps and a time estimate.

    Takes a few real steps on the recipe's own data at each view size and throws them away.

    Returns:
        counts as int, `flops_per_step` (multiply and add counted separately, forward and backward),
        `peak_memory_bytes`, `seconds_per_step` and `hours` measured on this machine.
    """
    recipe = resolve_init(recipe)
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
        "epochs": recipe.epochs,
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
    for key, (label, form) in _ROWS.items():
        if key in numbers:
            table.add_row(label, form(numbers[key]))
    Console(highlight=False).print(table)


def _flops(count: int) -> str:
    return f"{count / 1e12:,.3g} TFLOP"


#: number -> how the table names and prints it.
_ROWS: dict[str, tuple[str, Callable[[Any], str]]] = {
    "hardware": ("hardware", str),
    "encoder_parameters": ("parameters, encoder", "{:,}".format),
    "trained_parameters": ("parameters, trained", "{:,}".format),
    "training_samples": ("training samples", "{:,}".format),
    "held_out_samples": ("held-out samples", "{:,}".format),
    "epochs": ("epochs", "{:,}".format),
    "batch_size": ("batch size", "{:,}".format),
    "steps": ("steps", "{:,}".format),
    "samples_seen": ("samples seen", "{:,}".format),
    "precision": ("precision", str),
    "flops_per_step": ("arithmetic a step", _flops),
    "flops_total": ("arithmetic in all", _flops),
    "peak_memory_bytes": ("peak memory", lambda n: f"{n / 1e9:.2f} GB"),
    "seconds_per_step": ("measured here, a step", lambda s: f"{s:.3g} s"),
    "hours": ("time to expect here", lambda hours: duration(3600 * hours)),
}
