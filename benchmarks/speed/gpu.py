"""What an accelerator gives us, in one call: is it right, what could it do, what do we get of it, what does lightly.

    python -m benchmarks.speed.gpu                        # one GPU; on one its checks and ceilings have run, see LOG.md
    python -m benchmarks.speed.gpu --device cpu --tiny    # the same code in seconds; its numbers mean nothing

Checks come first (bf16 against fp32, compiled against eager, augmentation against the CPU's, host synchronisations),
then ceilings (copies, bf16 matrix product), then views per second and peak memory of SimCLR with ResNet-18 and
airbench94 at 32 px and ResNet-50 at 224 px: the model only, on one synthetic batch that lies on the device; our whole
step, which is the training loop itself from the pixel cache to the logged loss; and lightly's pipeline with the same
network, batch and optimiser, in its own float32 and in bf16 (`pip install 'lightly>=1.5'`; skipped if absent). Last,
feature extraction and loading. Writes benchmarks/results/gpu.json and gpu.md: all numbers, and the ratios against their
targets.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from benchmarks.speed import extract, load
from benchmarks.speed.gpu_checks import INDUCTOR, TRACE_ONLY, augmentation_rates, ceilings, checks, synchronise
from benchmarks.speed.gpu_report import show
from benchmarks.speed.train_step import Case, Lightly, Ours
from training.environment import code_commit, hardware
from zoo.device import resolve_precision
from zoo.files import write_text

CASES = {
    "ResNet-18, 32 px": Case("resnet18", "cifar", 32, 32, 512, 50_000),
    "airbench94, 32 px": Case("airbench94", "cifar", 32, 32, 2_048, 16_384),
    "ResNet-50, 224 px": Case("resnet50", "imagenet", 224, 256, 128, 2_048),
}
_NARROW = {"channels": [8, 8, 16, 16]}
TINY = {
    "tiny ResNet, 16 px": Case("resnet10t", "cifar", 16, 16, 16, 64, _NARROW),
    "airbench94, 16 px": Case("airbench94", "", 16, 16, 16, 64),
    "tiny ResNet, 72 px": Case("resnet10t", "imagenet", 72, 82, 8, 32, _NARROW | {"stem_width": 8}),
}
ROUNDS = 3


class Enough(Exception):
    """A measurement has run for long enough."""


def model_only(ours: Ours, seconds: float, warmup: int) -> float:
    """Steps per second of forward, backward and update on one ready batch of views."""
    trainer = ours.trainer
    batch = trainer.batches.get(trainer._local_rows(0))
    with torch.no_grad():
        views = trainer.method.views(batch, torch.Generator(trainer.device).manual_seed(0))

    def step() -> None:
        trainer.optimizer.zero_grad(set_to_none=True)
        with trainer.autocast():
            loss = trainer.method(views)["loss"]
        loss.backward()
        trainer.optimizer.step()

    return steps_per_second(step, trainer.device, seconds, warmup)


def steps_per_second(step: Callable[[], Any], device: torch.device, seconds: float, warmup: int) -> float:
    """Steps per second once warm; the device has finished them all when the clock stops."""
    for _ in range(warmup):
        step()
    synchronise(device)
    start, count = time.perf_counter(), 0
    while not count or time.perf_counter() - start < seconds:
        step()
        count += 1
    synchronise(device)
    return count / (time.perf_counter() - start)


def whole_step(ours: Ours, seconds: float, warmup: int) -> float:
    """Steps per second of the training loop, logging included."""
    trainer = ours.trainer
    first, started, found = trainer.step, 0.0, 0.0

    def watch(step: int) -> None:
        nonlocal started, found
        done = step - first - warmup
        if done == 0:
            synchronise(trainer.device)
            started = time.perf_counter()
        elif done > 0 and time.perf_counter() - started >= seconds:
            synchronise(trainer.device)
            found = done / (time.perf_counter() - started)
            raise Enough

    with contextlib.suppress(Enough):
        trainer.run(on_step=watch)
    return found


def measured(views: int, device: torch.device, kinds: dict[str, Callable[[], float]], rounds: int) -> dict[str, Any]:
    """Views per second, medians over rounds in turn, and peak memory in GiB (None on the CPU)."""
    found: dict[str, list[float]] = {name: [] for name in kinds}
    peaks: dict[str, float | None] = dict.fromkeys(kinds)
    for _ in range(rounds):
        for name, rate in kinds.items():
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            found[name].append(views * rate())
            if device.type == "cuda":
                peaks[name] = torch.cuda.max_memory_allocated(device) / 2**30
    return {name: {"views_per_s": statistics.median(rates), "peak_gib": peaks[name]} for name, rates in found.items()}


def sides(case: Case, device: torch.device, options: argparse.Namespace) -> dict[str, Any]:
    """All rows of one case; a side that fails, such as for want of memory, has an `error` and the rest goes on."""
    views, seconds, warmup = 2 * case.batch, options.seconds, options.warmup
    rows: dict[str, Any] = {}

    def both(compile: bool, title: str) -> dict[str, Any]:
        ours = Ours(case, "auto", device, compile=compile)
        kinds = {
            f"model only, {title}": lambda: model_only(ours, seconds, warmup),
            f"whole step, {title}": lambda: whole_step(ours, seconds, warmup),
        }
        return measured(views, device, kinds, ROUNDS)

    def theirs(precision: str, title: str) -> dict[str, Any]:
        side = Lightly(case, precision, device, options.workers)
        # Past what the workers have made ahead while the network was warming up.
        warm = max(warmup, 2 * options.workers + 2)
        kinds = {title: lambda: steps_per_second(lambda: side.step(0), device, 3 * seconds, warm)}
        return measured(views, device, kinds, 1)

    attempts: dict[str, Callable[[], dict[str, Any]]] = {"eager": lambda: both(False, "eager")}
    if options.backend == INDUCTOR:
        attempts["compiled"] = lambda: both(True, "compiled")
    if find_spec("lightly") is not None and not options.no_lightly:
        attempts["lightly, bf16"] = lambda: theirs("bf16", "lightly, bf16")
        attempts["lightly, fp32"] = lambda: theirs("fp32", "lightly, fp32 (its default)")
    for name, attempt in attempts.items():
        print(f"  {name} ...", file=sys.stderr, flush=True)
        try:
            rows |= attempt()
        except torch.cuda.OutOfMemoryError:
            rows[name] = {"error": "does not fit the device's memory"}
        except RuntimeError as error:  # a worker of the DataLoader without shared memory, a compiler that is not there
            rows[name] = {"error": f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"}
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return rows


def extraction(case: Case, device: torch.device, options: argparse.Namespace) -> dict[str, float]:
    """Images per second of the bare forward pass and of extraction."""
    encoder = extract.network(case.encoder, case.size, device)
    samples = 64 if options.tiny else 16_384 if case.size <= 64 else 4_096
    precision = resolve_precision("auto", device)
    found = extract.rates(encoder, samples, 32 if options.tiny else 256, device, precision, 1 if options.tiny else 3)
    return {name: rate.wall for name, rate in found.items()}


def loading(tiny: bool) -> dict[str, float]:
    """Milliseconds of a cached load."""
    with tempfile.TemporaryDirectory() as folder:
        return load.load_times(load.random_checkpoint(Path(folder) / "checkpoint"), 2 if tiny else 9)


def gather(cases: dict[str, Case], device: torch.device, options: argparse.Namespace, path: Path) -> dict[str, Any]:
    """Everything, in the order of the docstring; what is there so far is in `path` after every part."""
    found: dict[str, Any] = {
        "device": hardware() if device.type == "cuda" else f"{device.type}: {hardware()}",
        "tiny": options.tiny,
        "torch": torch.__version__,
        "code_commit": code_commit(),
        "workers": options.workers,
        "lightly": find_spec("lightly") is not None,
        "checks": [],
        "ceilings": {},
        "cases": {},
    }

    def keep(what: str) -> None:
        print(f"{what}: done", file=sys.stderr, flush=True)
        write_text(path, json.dumps(found, indent=1) + "\n")

    for check in checks(next(iter(cases.values())), device, options.backend):
        found["checks"].append({**vars(check), "passed": check.passed})
    keep("checks")
    found["ceilings"] = ceilings(device, options.tiny)
    keep("ceilings")
    for name, case in cases.items():
        measured = found["cases"][name] = {"batch": case.batch, "rows": sides(case, device, options)}
        keep(f"{name}, steps")
        measured["augmentation_views_per_s"] = augmentation_rates(case, device, options.backend)
        measured["extraction_images_per_s"] = extraction(case, device, options)
        keep(name)
    found["load"] = loading(options.tiny)
    keep("load")
    return found


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0, 1 if a check or one of our sides failed, 2 for bad input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small networks and short runs, to try the script")
    parser.add_argument("--cases", nargs="+", metavar="CASE", help=f"of {', '.join(CASES)}")
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--no-lightly", action="store_true")
    parser.add_argument("--workers", type=int, help="of lightly's DataLoader; default: all cores")
    parser.add_argument("--seconds", type=float, help="of each measurement")
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/gpu.json, tiny: runs/gpu_tiny.json")
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("error: no CUDA device here; try the script with --device cpu --tiny", file=sys.stderr)
        return 2
    options.seconds = options.seconds or (0.05 if options.tiny else 4.0)
    options.warmup = 1 if options.tiny else 10
    options.workers = (0 if options.tiny else os.cpu_count() or 1) if options.workers is None else options.workers
    options.backend = TRACE_ONLY if options.tiny or options.no_compile else INDUCTOR
    known = TINY if options.tiny else CASES
    if unknown := set(options.cases or known) - set(known):
        print(f"error: no case {sorted(unknown)[0]!r} here; it is one of {', '.join(known)}", file=sys.stderr)
        return 2
    path = options.out or (
        Path("runs/gpu_tiny.json") if options.tiny else Path(__file__).parents[1] / "results" / "gpu.json"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    found = gather({name: known[name] for name in options.cases or known}, device, options, path)
    text = show(found)
    write_text(path.with_suffix(".md"), text)
    print(text)
    failed = [title for case in found["cases"].values() for title in case["rows"] if title in ("eager", "compiled")]
    return 0 if all(check["passed"] for check in found["checks"]) and not failed else 1


if __name__ == "__main__":
    sys.exit(main())
