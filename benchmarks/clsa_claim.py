"""CLSA's claim: MoCo v2, strong views used naively, and CLSA under one recipe, over seeds, compared in pairs.

    python -m benchmarks.clsa_claim clsa_resnet10t_cifar10 data=data/cifar10 --seeds 0 1 2 --out runs/clsa_claim

A seed fixes initial weights and the order of the data for all three. Frozen features of the last epoch are probed by
protocol logreg-v1: fitted on the whole train split, tested on the test split. With `--held-out` the test split is not
touched: the probe is fitted on the part that was trained on and tested on the part that the recipe holds out, which is
how settings are chosen. Differences are taken seed by seed; their 95 % intervals are of Student's t over seeds. Killed,
the same command goes on. Writes OUT/claim.json, which `zoo publish --claim` takes, and prints the table.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path

import numpy as np
import yaml

from evaluation import evaluate
from training.__main__ import main as train
from training.batches import TrainingData
from training.methods import method_class
from training.recipe import Recipe, read_recipe
from training.run import code_commit, hardware
from zoo.claims import Claim, compare
from zoo.config import read_config
from zoo.data import open_dataset
from zoo.errors import ConfigError, ZooError
from zoo.loading import load

ARMS = ("moco", "naive", "clsa")
#: How a table calls them.
TITLES = {"moco": "MoCo v2", "naive": "strong views in the contrastive loss", "clsa": "CLSA"}


def arm(recipe: Recipe, name: str, seed: int) -> dict:
    """One arm: MoCo v2 keeps every setting that it knows, naive differs by the loss of the strong views."""
    raw = recipe.dump() | {"seed": seed}
    if name == "naive":
        raw["method"] = raw["method"] | {"strong_loss": "contrastive"}
    if name == "moco":
        known = method_class("moco").Config.model_fields
        raw["name"] = f"moco_{recipe.name.removeprefix('clsa_')}"
        raw["method"] = {"name": "moco"} | {key: value for key, value in raw["method"].items() if key in known}
    return raw


def accuracy(run: Path, held_out: bool) -> float:
    """Top-1 in 0..1 of the run's encoder, kept in a file beside it."""
    path = run / ("held_out_top1.json" if held_out else "test_top1.json")
    if not path.exists():
        encoder = load(f"local-dir:{run / 'encoder'}")
        recipe = read_recipe(str(run / "recipe.yaml"))
        data = recipe.data
        if held_out:
            parts = TrainingData(recipe)
            fit, judge = (parts.dataset.subset(np.sort(part)) for part in (parts.train, parts.held))
        else:
            fit, judge = (open_dataset(data.dataset, split, root=data.root) for split in (data.split, "test"))
        found = evaluate(encoder, fit, judge, protocols=["logreg"], floors=False)
        path.write_text(json.dumps(found.rows[0].metrics["top1"].value) + "\n")
    return float(json.loads(path.read_text()))


def main(arguments: list[str] | None = None) -> int:
    """Train what is missing, probe, compare. Exit status as `python -m training`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=ARMS)
    parser.add_argument(
        "--held-out", action="store_true", help="judge on held-out training samples: choose settings so"
    )
    options = parser.parse_args(arguments)
    try:
        recipe = read_recipe(options.recipe, options.overrides)
        if recipe.method["name"] != "clsa":
            raise ConfigError(f"{options.recipe} trains {recipe.method['name']}; the claim takes a recipe of clsa")
    except ZooError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    runs = {(name, seed): options.out / f"{name}_seed{seed}" for seed in options.seeds for name in options.arms}
    for (name, seed), run in runs.items():
        if not (run / "encoder" / "config.json").exists():
            written = options.out / f"{name}_seed{seed}.yaml"
            written.write_text(yaml.safe_dump(arm(recipe, name, seed), sort_keys=False))
            if status := train([str(written), "--run", str(run)]):
                return status
    scores: dict[str, list[float]] = {name: [] for name in options.arms}
    for (name, seed), run in runs.items():
        scores[name].append(accuracy(run, options.held_out))
        print(f"{name}, seed {seed}: {100 * scores[name][-1]:.2f} %", flush=True)
    seen = read_config(next(iter(runs.values())) / "encoder").training.samples_seen
    part = "held-out training samples" if options.held_out else "the test split"
    claim = Claim(
        title="Strong views through DDM, beside MoCo v2 and strong views used naively",
        measure=f"top-1 accuracy on {part} of {recipe.data.dataset.rpartition('/')[2]}, logreg-v1",
        setting=f"{recipe.encoder['model']}, {seen:,} samples seen, batch {recipe.batch_size}, {hardware()}",
        seeds=tuple(options.seeds),
        arms={TITLES[name]: tuple(values) for name, values in scores.items()},
        differences=compare({TITLES[name]: values for name, values in scores.items()}),
        command=shlex.join(["python", "-m", "benchmarks.clsa_claim", *(arguments or sys.argv[1:])]),
        code_commit=code_commit(),
    )
    (options.out / "claim.json").write_text(claim.to_json())
    print(claim.table())
    return 0


if __name__ == "__main__":
    sys.exit(main())
