"""Extraction against the bare forward loop, and the memory of an extraction larger than memory.

    python benchmarks/speed/extract.py --threads 1                      # a minute on one free core
    python benchmarks/speed/extract.py --model resnet50 --stem imagenet --size 224 --samples 512 --batch-size 64
    python benchmarks/speed/extract.py --large 1000000                  # 1 M x 2048 to disk: 8 GB

The bare loop runs the same encoder in the same mode, precision, batch and threads on one ready-made batch: no
reading, no preprocessing, no result kept. All are timed in turn, `--repeats` times; the ratio is of the medians, by
the clock and, for a shared machine, by CPU time. Target: >= 0.95 from stored pixels. Peak memory of the large run is
measured in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from zoo.architectures import build
from zoo.device import resolve_precision
from zoo.encoder import Encoder
from zoo.features.extract import embed, extract
from zoo.preprocessing.image import ImageInput
from zoo.strict import Architecture

sys.path.insert(0, str(Path(__file__).parents[2]))
BARE = "bare forward"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Projection(Encoder):
    """Mean colour times a fixed matrix: next to no compute, so that memory and disk are what is measured."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features, self.input = num_features, ImageInput(size=(8, 8))
        self.matrix = torch.nn.Parameter(torch.linspace(-1, 1, 3 * num_features).reshape(3, num_features))

    def _features(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        return x

    def pool(self, features: Tensor, lengths: Tensor | None = None) -> Tensor:
        return features.mean((2, 3)) @ self.matrix

    def check_input(self, x: Tensor, lengths: Tensor | None) -> None:
        return


def bare_loop(encoder: Encoder, pixels: np.ndarray, batch_size: int, device: torch.device, precision: str) -> None:
    """The forward passes that extraction needs, and nothing else."""
    x = encoder.transform().normalise(torch.from_numpy(pixels[:batch_size]).to(device))
    tail = len(pixels) % batch_size
    reduced = torch.autocast(device.type, DTYPES[precision]) if precision != "fp32" else nullcontext()
    with torch.inference_mode(), reduced:
        for _ in range(len(pixels) // batch_size):
            out = encoder(x)
        if tail:
            out = encoder(x[:tail])
        out.cpu()  # waits for the device


@dataclass(frozen=True)
class Rate:
    """Images per second of the clock and per second of this process's CPU time, medians over turns."""

    wall: float
    cpu: float


def seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds of the clock and of CPU time."""
    start, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start, time.process_time() - cpu


def network(encoder: dict, size: int, device: torch.device) -> Encoder:
    """A random encoder, as a recipe's group `encoder` describes it, ready to extract."""
    arguments = {"family": "timm", **encoder}
    architecture = Architecture(family=arguments.pop("family"), arguments=arguments)
    encoder = build(architecture, ImageInput(size=(size, size)))
    encoder = encoder.eval().to(device, memory_format=torch.channels_last)
    encoder.strict_input = False
    return encoder


def rates(
    encoder: Encoder, samples: int, batch_size: int, device: torch.device, precision: str, repeats: int
) -> dict[str, Rate]:
    """Rates of the bare forward pass and of extraction from several sources, timed in turn."""
    side = encoder.input.size[0]
    pixels = np.random.default_rng(0).integers(0, 256, (samples, side, side, 3), dtype=np.uint8)
    images = [Image.fromarray(p) for p in pixels]
    larger = [image.resize((side * 5 // 4,) * 2) for image in images]
    options = {"batch_size": batch_size, "device": device, "precision": precision}
    with tempfile.TemporaryDirectory() as folder:
        kinds: dict[str, Callable[[], object]] = {
            BARE: lambda: bare_loop(encoder, pixels, batch_size, device, precision),
            "stored pixels": lambda: embed(encoder, pixels, **options),
            "stored pixels, table to .npy": lambda: extract(
                encoder, pixels, out=Path(folder) / "f.npy", resume=False, **options
            ),
            "PIL images": lambda: embed(encoder, images, **options),
            "PIL images, resized": lambda: embed(encoder, larger, **options),
        }
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in kinds}
        for turn in range(repeats + 1):
            for name, work in kinds.items():
                taken = seconds(work)
                if turn > 0:  # the first turn warms up
                    times[name].append(taken)
    middles = {name: [statistics.median(side) for side in zip(*values, strict=True)] for name, values in times.items()}
    return {name: Rate(samples / wall, samples / cpu) for name, (wall, cpu) in middles.items()}


def throughput(args: argparse.Namespace) -> None:
    device = torch.device(args.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    precision = resolve_precision(args.precision, device)
    encoder = network({"model": args.model, "stem": args.stem}, args.size, device)
    found = rates(encoder, args.samples, args.batch_size, device, precision, args.repeats)
    print(
        f"{args.model} ({args.stem} stem), {args.samples} images of {args.size} px, batch {args.batch_size}, "
        f"{precision}, {device.type}, {torch.get_num_threads()} threads; of the bare forward: by the clock, by CPU time"
    )
    bare = found[BARE]
    for name, rate in found.items():
        print(f"  {name:30} {rate.wall:9.0f} images/s   {rate.wall / bare.wall:5.3f}   {rate.cpu / bare.cpu:5.3f}")


def peak_bytes() -> int:
    """Peak resident memory of this program. `ru_maxrss` would count what its parent held when it forked."""
    status = Path("/proc/self/status")
    if status.exists():
        return 1024 * int(status.read_text().split("VmHWM:")[1].split()[0])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def large(samples: int, width: int) -> None:
    """Extract `samples` x `width` features to a .npy and print the growth of this process's peak memory."""
    encoder = Projection(width).eval()
    # One stored image seen from every row: the data take no memory, so what grows is the extraction.
    pixels = np.broadcast_to(np.arange(192, dtype=np.uint8).reshape(1, 8, 8, 3), (samples, 8, 8, 3))
    embed(encoder, pixels[:1024])
    before = peak_bytes()
    with tempfile.TemporaryDirectory(dir=".") as folder:
        taken, _ = seconds(lambda: extract(encoder, pixels, batch_size=1024, out=Path(folder) / "features.npy"))
        size = (Path(folder) / "features.npy").stat().st_size
    peak = peak_bytes()
    print(json.dumps({"file": size, "growth": peak - before, "peak": peak, "seconds": taken}))


def memory(samples: int, width: int) -> None:
    command = [sys.executable, __file__, "--measure-large", str(samples), str(width)]
    result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    print(
        f"{samples} x {width} float32 to .npy: file {result['file'] / 1e9:.2f} GB, peak memory grew by "
        f"{result['growth'] / 1e6:.0f} MB (to {result['peak'] / 1e6:.0f} MB), {result['seconds']:.1f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--stem", default="cifar", choices=["cifar", "imagenet"])
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--precision", default="auto", choices=["auto", *DTYPES])
    parser.add_argument("--device")
    parser.add_argument("--threads", type=int, help="torch threads; default: torch's own choice")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--large", type=int, default=20_000, help="rows of the out-of-core run; 0 leaves it out")
    parser.add_argument("--width", type=int, default=2048, help="features per row of the out-of-core run")
    parser.add_argument("--measure-large", type=int, nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.measure_large:
        return large(*args.measure_large)
    throughput(args)
    if args.large:
        memory(args.large, args.width)
    return None


if __name__ == "__main__":
    main()
