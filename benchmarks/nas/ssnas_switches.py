"""SSNAS's switches, each with its measured effect: the found cell's accuracy in the table of NAS-Bench-201.

    python -m benchmarks.nas.ssnas_switches data=data/cifar10 --out runs/ssnas_search

One short search of `ssnas_nb201_cifar10_cpu` per arm and seed; an arm differs from `contrastive` in one switch. What
is looked up (200-epoch test accuracy, mean over the benchmark's trainings) steers nothing. Arms that differ only after
the last step (`perturbation`, `skip cap 2`) start from the weights of `contrastive`. Killed, the same command goes on;
seeds come one after the other. Writes OUT/searches.json and OUT/searches.md.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from benchmarks.claims.study import run_folder
from benchmarks.nas.nasbench201 import TASKS, read_table
from benchmarks.records import renew
from evaluation.metrics import interval
from training.environment import code_commit
from training.loop import Trainer
from training.recipe import Recipe, read_recipe
from training.run import train
from training.run_folder import RunFolder
from training.search.history import GENOTYPE, read_history
from zoo.architectures.genotype import NB201Genotype, parse_genotype
from zoo.errors import ZooError
from zoo.files import write_text

RECIPE = "ssnas_nb201_cifar10_cpu"
#: arm -> what it changes in the recipe.
ARMS: dict[str, tuple[str, ...]] = {
    "contrastive": (),
    "labels": ("method.objective=labels",),
    "random labels": ("method.objective=random_labels",),
    "no alpha delay": ("method.alpha_delay=0.0",),
    "partial channels": ("encoder.partial=4", "encoder.edge_normalisation=true"),
    "beta regularisation": ("method.beta_regularisation=1.0",),
    "stop at 3 skips": ("method.early_stop_skips=3",),
    "stop by curvature": ("method.early_stop_curvature=1.3", "method.curvature_window=2"),
    "second order": ("method.order=2",),
    "bf16": ("precision=bf16",),
    "perturbation": ("method.selection=perturbation",),
    "skip cap 2": ("method.skip_cap=2",),
}
#: Arms whose searches are those of `contrastive`.
DERIVED = ("perturbation", "skip cap 2")


def accuracy_table() -> dict[str, tuple[float, ...]]:
    """Cell -> accuracies on `TASKS`, per cent."""
    cells, accuracies = read_table()
    return {cell: tuple(row) for cell, row in zip(cells, accuracies.tolist(), strict=True)}


def recipe_of(arm: str, seed: int, overrides: list[str]) -> Recipe:
    """The search of an arm. Float32 unless the arm says so: the same on every machine."""
    return read_recipe(RECIPE, ["precision=fp32", *overrides, *ARMS[arm], f"seed={seed}"])


def search(arm: str, seed: int, overrides: list[str], out: Path) -> NB201Genotype:
    """The cell that an arm finds, searched for at most once; `out/ARM_seedN/` keeps it.

    Raises:
        ZooError: a bad override. SystemExit: the search failed or was stopped; the same call goes on.
    """
    recipe, folder = recipe_of(arm, seed, overrides), run_folder(out, arm, seed)
    path = folder / GENOTYPE
    if not path.exists():
        with timed(folder):
            if arm in DERIVED:
                search("contrastive", seed, overrides, out)
                _derive_again(recipe, run_folder(out, "contrastive", seed), folder)
            else:
                given = ["precision=fp32", *overrides, *ARMS[arm], f"seed={seed}"]
                if not train(RECIPE, given, out=folder).finished:
                    sys.exit(1)
    found = parse_genotype(path.read_text(encoding="utf-8"))
    assert isinstance(found, NB201Genotype)
    return found


@contextmanager
def timed(folder: Path) -> Iterator[None]:
    """Keep the processor time of the run in `folder`; of one that is continued it is not known, and not kept."""
    started, fresh = time.process_time(), not folder.exists()
    yield
    if fresh:
        cost = {"processor_s": round(time.process_time() - started, 1)}
        write_text(folder / "cost.json", json.dumps(cost) + "\n")


def kept_cost(folder: Path) -> dict[str, float]:
    """`{"processor_s": ...}` that `timed` kept, or nothing."""
    path = folder / "cost.json"
    return json.loads(path.read_text()) if path.exists() else {}


def _derive_again(recipe: Recipe, source: Path, folder: Path) -> None:
    """Another derivation from the last state of a finished search."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copytree(source / "state", folder / "state", dirs_exist_ok=True)
    trainer = Trainer(recipe, RunFolder(folder), torch.device("cpu"))
    trainer.resume()
    trainer.method.export(trainer)


def record(arm: str, seed: int, found: NB201Genotype, out: Path, table: dict[str, tuple[float, ...]]) -> dict:
    """What is kept of one search."""
    history = read_history(run_folder(out, "contrastive" if arm in DERIVED else arm, seed))
    return {
        "arm": arm,
        "seed": seed,
        "cell": found.text(),
        **dict(zip(TASKS, table[found.text()], strict=True)),
        "skips": found.edges.count("skip_connect"),
        "epochs": found.search.get("epochs"),
        "entropy": found.search.get("entropy"),
        "stopped_early": found.search.get("stopped_early"),
        "curvatures": [r["curvature"] for r in history if "curvature" in r],
        **kept_cost(run_folder(out, arm, seed)),
    }


def markdown(records: list[dict]) -> str:
    """One line per arm: means with 95 % t-intervals over search seeds."""
    lines = [
        "| switch | seeds | C10 | C100 | ImageNet16-120 | skips | entropy | stopped early | processor s |",
        "|---|---:|---|---|---|---:|---:|---:|---:|",
    ]
    for arm in dict.fromkeys(r["arm"] for r in records):
        rows = [r for r in records if r["arm"] == arm]
        cells = [interval([r[task] for r in rows]).text() for task in TASKS]
        means = [sum(r[key] for r in rows) / len(rows) for key in ("skips", "entropy")]
        costs = [r["processor_s"] for r in rows if "processor_s" in r]
        stopped = sum(bool(r["stopped_early"]) for r in rows)
        numbers = f"{means[0]:.1f} | {means[1]:.2f} | {stopped} | {f'{sum(costs) / len(costs):.0f}' if costs else '–'}"
        lines.append(f"| {arm} | {len(rows)} | {' | '.join(cells)} | {numbers} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Search what is missing, look up, print. Exit status as `python -m training`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3])
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--records", action="store_true", help="also renew the section of RECORDS.md")
    given = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_intermixed_args(given)
    torch.set_num_threads(1)
    table = accuracy_table()
    try:
        for seed in options.seeds:
            for arm in options.arms:
                recipe_of(arm, seed, options.overrides)
    except ZooError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    records = []
    for seed in options.seeds:
        for arm in options.arms:
            found = search(arm, seed, options.overrides, options.out)
            records.append(record(arm, seed, found, options.out, table))
            print(f"{arm}, seed {seed}: {records[-1]['cifar10']:.2f} {found.text()}", flush=True)
            told = {"command": shlex.join(["python", "-m", "benchmarks.nas.ssnas_switches", *given])}
            told |= {"code_commit": code_commit(), "records": records}
            write_text(options.out / "searches.json", json.dumps(told, indent=1) + "\n")
            write_text(options.out / "searches.md", markdown(records) + "\n")
    print(markdown(records))
    if options.records:
        renew("ssnas-switches", markdown(records))
    return 0


if __name__ == "__main__":
    sys.exit(main())
