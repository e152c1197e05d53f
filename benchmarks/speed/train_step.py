"""One SimCLR training step, ours against lightly's own pipeline, in one run on the same images.

    python -m benchmarks.speed.train_step [--model resnet18] [--size 32] [--batch 128] [--steps 6] [--threads 2]
    taskset -c 0 python -m benchmarks.speed.train_step --model airbench94 --size 16 --batch 256 --core-seconds

Both sides train the same network (a timm model with the CIFAR stem, or an airbench preset) with the same head widths,
loss temperature, optimiser and augmentation settings; images are stored at 32 px. Ours is a step of the training
loop: batch from the pixel cache, augmentation, forward, backward, update. lightly runs as its examples show it: PIL
images through `SimCLRTransform` in a DataLoader (the better of 0 and `threads` workers), one forward per view,
`NTXentLoss`. Rounds are interleaved; the median counts. Printed twice: both in the same precision, and each as a user
gets it by default (lightly: float32; ours: bf16 and channels last where the CPU has it). Beside them stands our
network on ready views, with and without head and loss: what a step could reach if all around the network cost
nothing. `--core-seconds` counts processor time of one thread instead of the clock, so that a busy machine disturbs
less; lightly then has no workers, whose time would not be counted. `benchmarks.speed.gpu` measures the same two
sides on an accelerator.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from training.batches import TrainingData
from training.loop import Trainer
from training.recipe import Recipe, parse_recipe
from training.run_folder import RunFolder
from zoo.architectures import build
from zoo.architectures.airbench import PRESETS


@dataclass(frozen=True)
class Case:
    """What both sides train: network, sides of views and of stored images in pixels, images per batch and in all.

    `model`: a timm model, or a preset of `zoo.architectures.airbench`, which takes no `stem` and `model_args`."""

    model: str
    stem: str
    size: int
    stored: int
    batch: int
    samples: int
    model_args: dict[str, Any] = field(default_factory=dict)

    @property
    def large(self) -> bool:
        """Whether images are augmented as on ImageNet, not as on CIFAR."""
        return self.size > 64

    @property
    def encoder(self) -> dict[str, Any]:
        """The recipe's encoder."""
        if self.model in PRESETS:
            return {"family": "airbench", "preset": self.model}
        return {"model": self.model, "stem": self.stem, "model_args": self.model_args}

    def recipe(self, precision: str, compile: bool = False) -> Recipe:
        """SimCLR with the optimiser that lightly's example takes, for ever."""
        return parse_recipe(
            {
                "name": "simclr_benchmark",
                "method": {"name": "simclr", "head": "paper", "augment": "imagenet" if self.large else "cifar"},
                "encoder": self.encoder,
                "input": {"size": [self.size, self.size]},
                "data": {
                    "dataset": f"synthetic:shapes?n={self.samples}&size={self.stored}",
                    "held_out": 0,
                    "store_size": self.stored,
                },
                "optim": {"name": "sgd", "lr": 0.03, "lr_scaling": "none"},
                "epochs": 1_000_000,
                "batch_size": self.batch,
                "precision": precision,
                "compile": compile,
                "monitor": None,
            },
            "benchmark",
        )


class Ours:
    """A run of the training loop."""

    def __init__(self, case: Case, precision: str, device: torch.device, compile: bool = False) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.trainer = Trainer(case.recipe(precision, compile), RunFolder(Path(self._folder.name)), device)
        self.trainer.method.train()

    def step(self, number: int) -> None:
        self.trainer._step()
        self.trainer.step += 1


class ReadyViews(Ours):
    """The same network on one batch of views made beforehand: forward, backward and update.

    With `bare`, the encoder alone, with the sum of its features as the loss.
    """

    def __init__(self, case: Case, precision: str, device: torch.device, bare: bool) -> None:
        super().__init__(case, precision, device)
        batch = self.trainer.batches.get(self.trainer._local_rows(0))
        with torch.no_grad():
            self.views = self.trainer.method.views(batch, torch.Generator(device).manual_seed(0))
        self.bare = torch.cat(self.views) if bare else None

    def step(self, number: int) -> None:
        trainer = self.trainer
        trainer.optimizer.zero_grad(set_to_none=True)
        with trainer.autocast():
            if self.bare is None:
                loss = trainer.method(self.views)["loss"]
            else:
                loss = trainer.method.encoder(self.bare).sum()
        loss.backward()
        trainer.optimizer.step()


class PilImages(torch.utils.data.Dataset):
    """Decoded images through lightly's transform, again and again: an epoch never ends within a measurement."""

    def __init__(self, pixels: np.ndarray, size: int, large: bool) -> None:
        from lightly.transforms import SimCLRTransform

        self.images = [Image.fromarray(p) for p in pixels]
        settings = {"cj_strength": 1.0, "gaussian_blur": 0.5} if large else {"cj_strength": 0.5, "gaussian_blur": 0.0}
        self.transform = SimCLRTransform(input_size=size, normalize=None, **settings)

    def __len__(self) -> int:
        return 10**7

    def __getitem__(self, index: int):
        return self.transform(self.images[index % len(self.images)])


class Lightly:
    """lightly's example on the same images; raises ImportError without lightly."""

    def __init__(self, case: Case, precision: str, device: torch.device, workers: int) -> None:
        from lightly.loss import NTXentLoss
        from lightly.models.modules import SimCLRProjectionHead

        recipe = case.recipe(precision)
        torch.manual_seed(0)
        encoder = build(recipe.architecture(), recipe.input)
        backbone = getattr(encoder, "backbone", encoder).to(memory_format=torch.contiguous_format)
        features = encoder.num_features
        head = SimCLRProjectionHead(features, features, 128, batch_norm=False)
        self.network = nn.Sequential(backbone, head).to(device).train()
        self.loss = NTXentLoss(temperature=0.5)
        self.optimizer = torch.optim.SGD(self.network.parameters(), lr=0.03, momentum=0.9, weight_decay=1e-4)
        pixels = TrainingData(recipe).array
        self.loader = torch.utils.data.DataLoader(
            PilImages(pixels[:], case.size, case.large),
            case.batch,
            sampler=torch.utils.data.RandomSampler(range(10**7), replacement=True, num_samples=10**7),
            drop_last=True,
            num_workers=workers,
            pin_memory=device.type == "cuda",
        )
        self.device, self.bf16 = device, precision == "bf16"
        self.batches = iter(self.loader)

    def step(self, number: int) -> None:
        views = [view.to(self.device, non_blocking=True) for view in next(self.batches)[:2]]
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16):
            z_a, z_b = (self.network(view) for view in views)
        loss = self.loss(z_a.float(), z_b.float())
        loss.backward()
        self.optimizer.step()


def compare(
    sides: dict[str, Any], steps: int, batch: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Views per second of `clock` for each side, medians over interleaved steps."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(steps + 1):
        for name, side in sides.items():
            started = clock()
            side.step(number)
            if number > 0:  # the first step warms up
                seconds[name].append(clock() - started)
    return {name: 2 * batch / statistics.median(values) for name, values in seconds.items()}


#: What is compared: title, our precision, lightly's.
COMPARISONS = {
    "fp32": ("same precision, float32", "fp32", "fp32"),
    "bf16": ("same precision, bf16", "bf16", "bf16"),
    "defaults": ("defaults", "auto", "fp32"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--size", type=int, default=32, help="side of the views in pixels")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--core-seconds", action="store_true", help="processor time of one thread, not the clock")
    parser.add_argument("--compare", nargs="+", choices=list(COMPARISONS), default=list(COMPARISONS))
    options = parser.parse_args()
    if options.core_seconds:
        options.threads = 1
    torch.set_num_threads(options.threads)
    cpu = torch.device("cpu")
    case = Case(options.model, "cifar", options.size, 32, options.batch, max(2000, 4 * options.batch))
    per = "core second" if options.core_seconds else f"second, {options.threads} threads"
    print(f"{options.model}, {options.size} px, batch {options.batch}; views per {per}")
    for title, ours, theirs in (COMPARISONS[name] for name in options.compare):
        sides: dict[str, Any] = {
            "ours": Ours(case, ours, cpu),
            "network with loss": ReadyViews(case, ours, cpu, bare=False),
            "bare network": ReadyViews(case, ours, cpu, bare=True),
        }
        workers = (0,) if options.core_seconds else (0, options.threads)
        sides |= {f"lightly, {w} workers": Lightly(case, theirs, cpu, w) for w in workers}
        clock = time.process_time if options.core_seconds else time.perf_counter
        speed = compare(sides, options.steps, options.batch, clock)
        best = max(v for k, v in speed.items() if k.startswith("lightly"))
        print(f"{title}: " + ", ".join(f"{k} {v:.0f}" for k, v in speed.items()))
        print(
            f"  our step reaches {speed['ours'] / speed['network with loss']:.2f} of the network with loss, "
            f"{speed['ours'] / speed['bare network']:.2f} of the bare network, {speed['ours'] / best:.2f} x lightly"
        )


if __name__ == "__main__":
    main()
