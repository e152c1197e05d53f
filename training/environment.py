"""Where a run took place: versions, hardware, code commit and command."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from training.recipe import Recipe
from zoo.architectures.single_pixel import strided_on_one_pixel
from zoo.encoder import Encoder
from zoo.errors import TrainingError
from zoo.preprocessing.image import ImageInput


def refuse_unwritten_gradients(encoder: Encoder, recipe: Recipe) -> None:
    """Refuse a network that shrinks the recipe's smallest views to one pixel before a convolution of stride 2.

    Raises:
        TrainingError: it does; names the layer and the ways out. See `strided_on_one_pixel`.
    """
    if not isinstance(recipe.input, ImageInput):
        return
    side = min(*recipe.input.size, recipe.smallest_view())
    if found := strided_on_one_pixel(encoder, side):
        raise TrainingError(
            f"views of {side} px reach {found[0]} as a single pixel, where bfloat16 on the CPU gives wrong gradients; "
            "set precision=fp32, encoder.stem=cifar, or larger views"
        )


def environment(command: str) -> dict[str, Any]:
    """Versions, hardware, code commit and command of this run."""
    return {
        "command": command,
        "code_commit": code_commit(),
        "versions": {"python": platform.python_version()}
        | {name: version(name) for name in ("torch", "timm", "numpy", "safetensors")},
        "hardware": hardware(),
        "platform": platform.platform(),
    }


def hardware() -> str:
    """The accelerator, or the processor and how many cores of it the run may use."""
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")
        ]
        model = names[0] if names else model
    return f"{os.cpu_count()} cores of {model}"


def code_commit() -> str:
    """The checkout's commit, with `-dirty` when files differ; "unknown" outside a checkout."""
    try:
        run = {"cwd": Path(__file__).parent, "capture_output": True, "text": True, "timeout": 10}
        commit = subprocess.run(["git", "rev-parse", "HEAD"], **run)
        changed = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no", "--", "zoo", "training"], **run
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    if commit.returncode:
        return "unknown"
    return commit.stdout.strip() + ("-dirty" if changed.stdout.strip() else "")


def command_line(*words: str) -> str:
    """`python -m training WORDS` as a person would type it; under torchrun the command of all processes."""
    arguments = shlex.join(words)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    starter = f"torchrun --nproc-per-node {world} -m" if world > 1 else "python -m"
    return f"{starter} training {arguments}".strip()
