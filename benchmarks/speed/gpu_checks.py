"""What `benchmarks.speed.gpu` checks before it believes a speed, and the ceilings of the machine it compares with."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchmarks.speed.train_step import Case, Ours
from training.augment.image import ImageAugment
from training.augment.parameters import PRESETS, sample
from training.augment.render import render_batched, render_grouped
from training.loop import build_method

#: Compiler for `torch.compile`: the real one, or, where seconds must do, the one that only traces.
INDUCTOR, TRACE_ONLY = "inductor", "aot_eager"


@dataclass(frozen=True)
class Check:
    """A measured difference, what is allowed, and whether less is better (`at_most`)."""

    name: str
    value: float
    allowed: float
    at_most: bool = True

    @property
    def passed(self) -> bool:
        """Within what is allowed; NaN is not."""
        return self.value <= self.allowed if self.at_most else self.value >= self.allowed


def synchronise(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def full_float32() -> Iterator[None]:
    """No TF32, which the training loop allows, so that float32 is float32."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


# -- correctness ------------------------------------------------------------------------------------


def checks(case: Case, device: torch.device, backend: str) -> list[Check]:
    """bf16 against fp32, compiled against eager, augmentation here against the CPU's, synchronisations of a step."""
    method = build_method(case.recipe("fp32"), device, case.samples, 100).train()
    generator = torch.Generator(device).manual_seed(0)
    # Blocks of colour and not noise: the two views of an image should resemble each other.
    coarse = torch.rand(case.batch, 3, 4, 4, generator=generator, device=device)
    images = nn.functional.interpolate(coarse, (case.stored, case.stored)).mul(255).to(torch.uint8)
    views = method.views({"images": images.contiguous(memory_format=torch.channels_last)}, generator)
    with full_float32():
        loss, gradient = loss_and_gradient(method, views, device, bf16=False)
        half_loss, half = loss_and_gradient(method, views, device, bf16=True)
        method.encoder.compile(backend=backend)
        compiled_loss, compiled = loss_and_gradient(method, views, device, bf16=False)
        fast_loss, fast = loss_and_gradient(method, views, device, bf16=True)
    found = [
        Check("bf16 against fp32: loss, relative difference", relative(half_loss, loss), 0.01),
        Check("bf16 against fp32: gradient, cosine", cosine(half, gradient), 0.98, at_most=False),
        Check(f"compiled ({backend}) against eager, fp32: loss, relative", relative(compiled_loss, loss), 1e-4),
        Check(f"compiled ({backend}) against eager, fp32: gradient, relative", relative(compiled, gradient), 1e-2),
        Check(f"compiled ({backend}) bf16 against fp32: loss, relative", relative(fast_loss, loss), 0.01),
        Check(f"compiled ({backend}) bf16 against fp32: gradient, cosine", cosine(fast, gradient), 0.98, at_most=False),
        Check("augmentation in batches, here, against the CPU's: largest difference of 1", augmentation(device), 4e-3),
    ]
    if device.type == "cuda":
        found.append(Check("host synchronisations in a training step", synchronisations(case, device), 0))
    return found


def loss_and_gradient(
    method: nn.Module, views: list[Tensor], device: torch.device, bf16: bool
) -> tuple[Tensor, Tensor]:
    """Loss and the gradient of all parameters as one vector, float64."""
    method.zero_grad(set_to_none=True)
    with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
        loss = method(views)["loss"]
    loss.backward()
    parts = [p.grad.double().flatten() for p in method.parameters() if p.grad is not None]
    return loss.detach().double(), torch.cat(parts)


def relative(found: Tensor, expected: Tensor) -> float:
    """Length of the difference over the length of what was expected."""
    return float((found - expected).norm() / expected.norm())


def cosine(a: Tensor, b: Tensor) -> float:
    return float(a @ b / (a.norm() * b.norm()))


def augmentation(device: torch.device) -> float:
    """Largest difference between views made in batches on `device` and group by group on the CPU."""
    config = PRESETS["imagenet"]
    images = torch.randint(0, 256, (32, 3, 40, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    drawn = sample(config, len(images), 40, 40, torch.Generator().manual_seed(1))
    expected = render_grouped(images, drawn, config, 32)
    there = type(drawn)(**{name: value.to(device) for name, value in vars(drawn).items()})
    return float((render_batched(images.to(device), there, config, 32).cpu() - expected).abs().max())


def synchronisations(case: Case, device: torch.device, steps: int = 4) -> float:
    """How often a step of the loop waits for the CUDA device."""
    ours = Ours(case, "auto", device)
    for number in range(3):
        ours.step(number)
    torch.cuda.synchronize(device)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            for number in range(steps):
                ours.step(number)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in caught) / steps


# -- ceilings ---------------------------------------------------------------------------------------


def ceilings(device: torch.device, tiny: bool) -> dict[str, float]:
    """Copy bandwidth on the device and to it, GB/s; bf16 matrix product, TFLOP/s."""
    elements, side = (1 << 20, 256) if tiny else (1 << 28, 8192)
    a, b = torch.empty(2, elements, device=device)
    host = torch.empty(elements, pin_memory=device.type == "cuda")
    x, y = torch.randn(2, side, side, device=device, dtype=torch.bfloat16)
    repeats = 3 if tiny else 20
    return {
        "copy GB/s (read and written)": 8 * elements / 1e9 / best(lambda: b.copy_(a), device, repeats),
        "host to device GB/s": 4 * elements / 1e9 / best(lambda: a.copy_(host, non_blocking=True), device, repeats),
        "bf16 matmul TFLOP/s": 2 * side**3 / 1e12 / best(lambda: x @ y, device, repeats),
    }


def best(work: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Least seconds of one call, after one that warms up."""
    taken = []
    for _ in range(repeats + 1):
        synchronise(device)
        start = time.perf_counter()
        work()
        synchronise(device)
        taken.append(time.perf_counter() - start)
    return min(taken[1:])


def augmentation_rates(case: Case, device: torch.device, backend: str) -> dict[str, float]:
    """Views per second of the augmentation alone, eager and through `torch.compile`."""
    images = torch.randint(0, 256, (case.batch, case.stored, case.stored, 3), dtype=torch.uint8, device=device)
    images, generator = images.permute(0, 3, 1, 2), torch.Generator(device).manual_seed(0)
    preset = PRESETS["imagenet" if case.large else "cifar"]
    kinds = {"eager": ImageAugment(preset, case.size)}
    if backend == INDUCTOR:
        kinds["compiled"] = ImageAugment(preset, case.size, compile=True)
    return {
        name: case.batch / best(lambda augment=augment: augment(images, generator), device, 5)
        for name, augment in kinds.items()
    }
