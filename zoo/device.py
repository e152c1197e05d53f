"""Device, precision and cores: decided here for training, extraction and evaluation alike."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from zoo.errors import ConfigError, InputError

if TYPE_CHECKING:  # torch is imported where it is used: data and the command line need the cores only
    import torch
    from torch import nn

Precision = Literal["auto", "fp32", "bf16", "fp16"]
_DTYPES = {"bf16": "bfloat16", "fp16": "float16"}


def check_device(device: str | torch.device | None) -> torch.device:
    """The device, None being the CPU. Raises InputError if this machine has no such device."""
    import torch

    try:
        place = torch.device("cpu" if device is None else device)
    except (RuntimeError, TypeError) as error:
        raise InputError(f"device {device!r} is not known to torch: {str(error).splitlines()[0]}") from None
    if place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count():
        raise InputError(
            f"device {str(place)!r}: torch sees {torch.cuda.device_count()} CUDA devices; use device='cpu'"
        )
    return place


def device_for(network: nn.Module, device: str | torch.device | None) -> torch.device:
    """Where to run a network: `device` if given, else where it lies, else this process's GPU if there is one.

    Raises:
        InputError: no such device.
    """
    import torch

    if device is not None:
        return check_device(device)
    own = next((p.device for p in network.parameters()), torch.device("cpu"))
    if own.type != "cpu" or not torch.cuda.is_available():
        return own
    return torch.device("cuda", whole_number("LOCAL_RANK", "0") % torch.cuda.device_count())


def local_device(name: str = "auto") -> torch.device:
    """The device that this process trains on: `"auto"` is its own CUDA device if there is one, else the CPU.

    Raises:
        ConfigError: the device does not exist, or more processes than GPUs on this node.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"unknown device {name!r}: use auto, cpu, cuda or cuda:0 ({error})") from None
    if device.type != "cuda":
        return device
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    index = device.index if device.index is not None else whole_number("LOCAL_RANK", "0")
    if index >= count:
        raise ConfigError(
            f"process {index} of this node has no GPU: {count} are visible; start at most {count} processes per node "
            "(torchrun --nproc-per-node), or use device=cpu"
        )
    return torch.device("cuda", index)


def whole_number(variable: str, default: str | None = None) -> int:
    """An environment variable that torchrun sets, as an int. Raises ConfigError."""
    text = os.environ.get(variable, default)
    try:
        return int(text or "")
    except ValueError:
        raise ConfigError(
            f"environment variable {variable}={text!r} must be a whole number; start with torchrun"
        ) from None


def multiplies_bf16(device: torch.device) -> bool:
    """Whether the hardware has bfloat16 instructions. Without them bf16 is emulated, which is slower than fp32."""
    import torch

    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    native = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return device.type == "cpu" and native is not None and bool(native()) and not _kernels_without_bf16()


def _kernels_without_bf16() -> bool:
    """Whether the environment keeps oneDNN, which multiplies for torch, from the CPU's bfloat16 instructions.

    `ONEDNN_MAX_CPU_ISA=AVX2` shows what an older CPU would do; bf16 would take seven times as long as fp32 there.
    """
    allowed = os.environ.get("ONEDNN_MAX_CPU_ISA", os.environ.get("DNNL_MAX_CPU_ISA", "")).upper()
    return allowed in ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX512_CORE", "AVX512_CORE_VNNI")


def resolve_precision(precision: str, device: torch.device) -> str:
    """`"auto"` -> `"bf16"` where the hardware multiplies in bf16, else `"fp32"`; other names pass through.

    Raises:
        InputError: an unknown precision.
    """
    if precision == "auto":
        return "bf16" if multiplies_bf16(device) else "fp32"
    if precision not in ("fp32", *_DTYPES):
        raise InputError(f"precision must be 'auto', 'fp32', 'bf16' or 'fp16', got {precision!r}")
    return precision


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """What `torch.autocast` multiplies in at a precision; None for fp32, which needs no autocast.

    Raises:
        InputError: an unknown precision.
    """
    import torch

    name = _DTYPES.get(resolve_precision(precision, device))
    return None if name is None else getattr(torch, name)


def cores() -> int:
    """The processor cores that this process may use; with torchrun its share of them."""
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, found // whole_number("LOCAL_WORLD_SIZE", "1"))


def workers() -> int:
    """Threads for reading and decoding while nothing else runs: one per core, at most 16."""
    return min(16, cores())


def workers_beside(device: torch.device) -> int:
    """Threads for reading and decoding while a network runs on `device`."""
    # On the CPU the forward pass keeps the cores busy: more readers would only fight with it.
    return max(1, cores() // 4) if device.type == "cpu" else max(1, min(16, cores() - 1))


#: Below this many seconds per sample, threads cost more (handing over the interpreter lock) than they bring.
WORTH_THREADS = 4e-4


def chunks_in_order(work: Callable[[range], Any], total: int, chunk: int = 64) -> Iterator[Any]:
    """`work(range)` over consecutive ranges of 0..total, results in order and few of them waiting.

    Runs in threads, since reading, decoding and hashing release the interpreter lock, unless the
    first range shows that the samples are tiny.
    """
    ranges = [range(start, min(start + chunk, total)) for start in range(0, total, chunk)]
    started = time.perf_counter()
    first = work(ranges[0])
    tiny = time.perf_counter() - started < WORTH_THREADS * len(ranges[0])
    yield first
    if tiny or workers() == 1:
        yield from map(work, ranges[1:])
    else:
        yield from _threaded(work, ranges[1:])


def _threaded(work: Callable[[range], Any], ranges: list[range]) -> Iterator[Any]:
    from concurrent.futures import ThreadPoolExecutor

    count = workers()
    with ThreadPoolExecutor(count) as pool:
        pending: deque[Any] = deque()
        try:
            for piece in ranges:
                pending.append(pool.submit(work, piece))
                # A bounded window: a disk slower than the decoders must not fill the memory.
                if len(pending) > 2 * count:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()


@contextmanager
def plain_torch() -> Iterator[None]:
    """Whatever is built inside is float32 on the CPU and can be trained, in whatever state the caller left torch."""
    import torch

    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.inference_mode(False), torch.enable_grad(), torch.device("cpu"):
            yield
    finally:
        torch.set_default_dtype(dtype)
