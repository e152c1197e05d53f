"""Device, precision and cores: decided here for training, extraction and evaluation alike."""

from __future__ import annotations

import os
from typing import Literal

import torch

from training.recipe import Recipe
from zoo.encoder import Encoder
from zoo.errors import ConfigError, InputError


def local_device(name: str = "auto") -> torch.device:
    """This process's device: `"auto"` is its own CUDA device if there is one, else the CPU.

    Raises:
        ConfigError: the device does not exist, or more processes than GPUs on this node.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"unknown device {name!r}: use auto, cpu, cuda or cuda:0 ({error})") from None
    if device.type != "cuda":
        return device
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    index = device.index if device.index is not None else _integer("LOCAL_RANK", "0")
    if index >= count:
        raise ConfigError(
            f"process {index} of this node has no GPU: {count} are visible; start at most {count} processes per node "
            "(torchrun --nproc-per-node), or use device=cpu"
        )
    return torch.device("cuda", index)


def _integer(name: str, default: str | None = None) -> int:
    text = os.environ.get(name, default)
    try:
        return int(text or "")
    except ValueError:
        raise ConfigError(f"environment variable {name}={text!r} must be a whole number; start with torchrun") from None


def choose_precision(recipe: Recipe, device: torch.device) -> torch.dtype | None:
    """The autocast dtype, or None for float32. `auto` is bf16 where the hardware multiplies it."""
    if recipe.precision == "fp32":
        return None
    if recipe.precision == "bf16":
        return torch.bfloat16
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else None
    return (
        torch.bfloat16
        if torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
        else None
    )


Precision = Literal["auto", "fp32", "bf16", "fp16"]
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def resolve_precision(precision: str, device: torch.device) -> str:
    """`"auto"` -> `"bf16"` where the hardware multiplies in bf16, else `"fp32"`; other names pass through.

    Raises:
        InputError: an unknown precision.
    """
    if precision != "auto":
        if precision not in _DTYPES:
            raise InputError(f"precision must be 'auto', 'fp32', 'bf16' or 'fp16', got {precision!r}")
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    # Without the instructions oneDNN emulates bf16, which is slower than fp32.
    native = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return "bf16" if device.type == "cpu" and native is not None and native() else "fp32"


def _device(encoder: Encoder, device: str | torch.device | None) -> torch.device:
    if device is not None:
        return check_device(device)
    own = next((p.device for p in encoder.parameters()), torch.device("cpu"))
    if own.type != "cpu" or not torch.cuda.is_available():
        return own
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())


def _workers(device: torch.device) -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    share = cores // int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    # On the CPU the forward pass keeps the cores busy: more readers would only fight with it.
    return max(1, share // 4) if device.type == "cpu" else max(1, min(16, share - 1))


def check_device(device: str | torch.device | None) -> torch.device:
    """The device, None being the CPU. Raises InputError if this machine has no such device."""
    try:
        place = torch.device("cpu" if device is None else device)
    except (RuntimeError, TypeError) as error:
        raise InputError(f"device {device!r} is not known to torch: {str(error).splitlines()[0]}") from None
    if place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count():
        raise InputError(
            f"device {str(place)!r}: torch sees {torch.cuda.device_count()} CUDA devices; use device='cpu'"
        )
    return place
