"""One SimCLR training step, ours against lightly's own pipeline, in one run on the same images.

    python benchmarks/train_step.py [--model resnet18] [--batch 128] [--steps 6] [--threads 2]

Both sides train the same timm network with the CIFAR stem and the same head widths, loss
temperature, optimiser and augmentation settings. lightly runs as its examples show it: PIL images
through `SimCLRTransform` in a DataLoader (the better of 0 and `threads` workers), one forward per
view, `NTXentLoss`. Ours starts from the decoded uint8 array. Rounds are interleaved; the median
counts. Printed twice: both in the same precision, and each as a user gets it by default (lightly:
float32; ours: bf16 and channels last where the CPU has it).
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import torch
from lightly.loss import NTXentLoss
from lightly.models.modules import SimCLRProjectionHead
from lightly.transforms import SimCLRTransform
from PIL import Image
from torch import nn

from training.loop import choose_precision
from training.methods import Context
from training.methods.simclr import SimCLR
from training.optim import build_optimizer
from training.recipe import parse_recipe
from zoo.architectures import build
from zoo.config import Architecture, ImageInput


def encoder(model: str) -> nn.Module:
    torch.manual_seed(0)
    return build(Architecture(family="timm", arguments={"model": model, "stem": "cifar"}), ImageInput())


class Ours:
    def __init__(self, model: str, pixels: np.ndarray, batch: int, precision: str) -> None:
        self.pixels, self.batch = torch.from_numpy(pixels), batch
        recipe = parse_recipe(
            {
                "name": "benchmark",
                "method": {"name": "simclr", "head": "paper"},
                "encoder": {"model": model, "stem": "cifar"},
                "data": "none",
                "optim": {"name": "sgd", "lr": 0.06},
                "epochs": 1,
                "batch_size": batch,
                "precision": precision,
            },
            "benchmark",
        )
        context = Context(image_size=32, global_batch=batch, total_steps=100, samples=len(pixels))
        self.method = SimCLR(encoder(model), recipe.method_config(), context).train()
        self.optimizer = build_optimizer(self.method, recipe.optim, batch)
        self.dtype = choose_precision(recipe, torch.device("cpu"))

    def step(self, number: int) -> None:
        rows = torch.randint(len(self.pixels), (self.batch,))
        images = self.pixels[rows].permute(0, 3, 1, 2)
        views = self.method.views({"images": images}, torch.Generator().manual_seed(number))
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.dtype is not None):
            loss = self.method(views)["loss"]
        loss.backward()
        self.optimizer.step()


class PilImages(torch.utils.data.Dataset):
    def __init__(self, pixels: np.ndarray) -> None:
        self.images = [Image.fromarray(p) for p in pixels]
        self.transform = SimCLRTransform(input_size=32, cj_strength=0.5, gaussian_blur=0.0, normalize=None)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int):
        return self.transform(self.images[index])


class Lightly:
    def __init__(self, model: str, pixels: np.ndarray, batch: int, precision: str, workers: int) -> None:
        self.backbone = encoder(model).backbone.to(memory_format=torch.contiguous_format).train()
        features = self.backbone.num_features
        self.head = SimCLRProjectionHead(features, features, 128, batch_norm=False)
        self.loss = NTXentLoss(temperature=0.5)
        parameters = [*self.backbone.parameters(), *self.head.parameters()]
        self.optimizer = torch.optim.SGD(parameters, lr=0.03, momentum=0.9, weight_decay=1e-4)
        self.loader = torch.utils.data.DataLoader(
            PilImages(pixels), batch, shuffle=True, drop_last=True, num_workers=workers, persistent_workers=workers > 0
        )
        self.bf16 = precision == "bf16"
        self.batches = iter(self.loader)

    def step(self, number: int) -> None:
        try:
            views = next(self.batches)
        except StopIteration:
            self.batches = iter(self.loader)
            views = next(self.batches)
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.bf16):
            z_a, z_b = (self.head(self.backbone(view)) for view in views[:2])
        loss = self.loss(z_a.float(), z_b.float())
        loss.backward()
        self.optimizer.step()


def compare(sides: dict[str, object], steps: int, batch: int) -> dict[str, float]:
    """Views per second of each side, medians over interleaved steps."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(steps + 1):
        for name, side in sides.items():
            started = time.perf_counter()
            side.step(number)
            if number > 0:  # the first step warms up
                seconds[name].append(time.perf_counter() - started)
    return {name: 2 * batch / statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    pixels = np.random.default_rng(0).integers(0, 256, (max(2000, 4 * options.batch), 32, 32, 3), dtype=np.uint8)
    arguments = (options.model, pixels, options.batch)
    print(f"{options.model}, 32 px, batch {options.batch}, {options.threads} threads; views/s")
    for title, ours, theirs in (
        ("same precision, float32", "fp32", "fp32"),
        ("same precision, bf16", "bf16", "bf16"),
        ("defaults", "auto", "fp32"),
    ):
        sides = {"ours": Ours(*arguments, ours)}
        sides |= {f"lightly, {w} workers": Lightly(*arguments, theirs, w) for w in (0, options.threads)}
        speed = compare(sides, options.steps, options.batch)
        best = max(v for k, v in speed.items() if k != "ours")
        print(
            f"{title}: " + ", ".join(f"{k} {v:.0f}" for k, v in speed.items()) + f"; ratio {speed['ours'] / best:.2f}"
        )


if __name__ == "__main__":
    main()
