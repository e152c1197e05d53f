"""MS2L's strategies: ways to use labels beside or after the three tasks, over seeds, on one pair of splits.

    python -m benchmarks.claims.ms2l_strategies ms2l_bigru64_nucla data=data/nucla --out runs/ms2l_strategies

Compared, all with the network and views of the recipe: pretrained then a linear probe; pretrained then fine-tuned;
supervised from scratch (the untrained network under the same fine-tuning, learning rate chosen for itself); trained
jointly with labels; trained with moving weights; and the untrained network under a linear probe. Joint and moving
encoders are read out by the same linear probe. Everything with labels sees the training split alone. Differences are
against the supervised network, paired by seed, with 95 % t-intervals. Killed, the same command continues.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path

import numpy as np
import torch

from benchmarks.claims.ms2l import parts_of, probe
from benchmarks.claims.study import run_folder
from evaluation.floors import untrained
from evaluation.metrics import compare
from evaluation.protocols.finetune import FineTuner, FineTuneV2
from training.run import train
from zoo.checkpoint.loading import load
from zoo.checkpoint.results import Claim
from zoo.data.addresses import open_dataset
from zoo.encoder import Encoder
from zoo.errors import TrainingError, ZooError
from zoo.files import write_text

#: run -> overrides of the recipe.
RUNS = {"pretrained": [], "joint": ["method.strategy=joint"], "moving weights": ["method.strategy=moving"]}
SUPERVISED = "supervised from scratch"
#: arm -> (run whose network is taken, untrained again?, fine-tuned?); the floor first.
ARMS = {
    "untrained, linear": ("pretrained", True, False),
    SUPERVISED: ("pretrained", True, True),
    "pretrained, linear": ("pretrained", False, False),
    "pretrained, fine-tuned": ("pretrained", False, True),
    "joint, linear": ("joint", False, False),
    "moving weights, linear": ("moving weights", False, False),
}


def main(arguments: list[str] | None = None) -> int:
    """Train what is missing, measure, compare, print the table and write `claim.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--split", default="leak-free", help="official, leak-free or TRAIN/TEST (default leak-free)")
    parser.add_argument("--steps", type=int, default=400, help="of fine-tuning and of the supervised network")
    parser.add_argument("--lr", type=float, nargs="+", default=[0.03, 0.1, 0.3], help="grid of learning rates")
    given = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_intermixed_args(given)
    settings = FineTuneV2(steps=options.steps, lr_grid=tuple(options.lr))
    arms: dict[str, list[float]] = {arm: [] for arm in ARMS}
    for seed in options.seeds:
        for name, changes in RUNS.items():
            run = run_folder(options.out, name, seed)
            wanted = [*options.overrides, *changes, f"seed={seed}"]
            done = (run / "encoder" / "config.json").exists()
            try:
                if not done and not train(options.recipe, wanted, out=run).finished:
                    return 1
            except ZooError as error:
                print(f"error: {error}", file=sys.stderr)
                return 1 if isinstance(error, TrainingError) else 2
        for arm in ARMS:
            arms[arm].append(measured(options.out, arm, seed, options.split, settings)["top1"])
    training = load(f"local-dir:{run_folder(options.out, 'pretrained', options.seeds[0]) / 'encoder'}").config.training
    claim = Claim(
        title="MS²L's strategies against a supervised network",
        measure=f"top-1 accuracy, {options.split} split",
        setting=f"recipe {options.recipe}, {training.epochs:g} epochs; fine-tuning {settings.steps} steps of "
        f"{settings.batch_size}; {training.hardware}, {torch.get_num_threads()} thread",
        seeds=tuple(options.seeds),
        arms={arm: tuple(values) for arm, values in arms.items()},
        differences=tuple(
            d
            for other in ARMS
            if other != SUPERVISED
            for d in compare({SUPERVISED: arms[SUPERVISED], other: arms[other]})
        ),
        command=f"python -m benchmarks.claims.ms2l_strategies {shlex.join(given)}",
        code_commit=training.code_commit,
    )
    write_text(options.out / "claim.json", claim.to_json())
    print(f"{claim.measure}\n\n{claim.table()}\n")
    return 0


def measured(out: Path, arm: str, seed: int, split: str, settings: FineTuneV2) -> dict[str, float]:
    """`{"top1": 0..1, ...}` of one arm and seed, kept beside the run; a file of other settings is measured again."""
    run, again, tuned = ARMS[arm]
    wanted = {"split": split, **(settings.model_dump(mode="json") if tuned else {})}
    path = run_folder(out, run, seed) / f"{arm.replace(', ', '_').replace(' ', '_')}.json"
    if path.exists() and (kept := json.loads(path.read_text()))["settings"] == wanted:
        return kept
    encoder = load(f"local-dir:{run_folder(out, run, seed) / 'encoder'}")
    data = encoder.config.training.recipe["data"]
    if again:
        encoder = untrained(encoder, seed)
    found = (
        fine_tuned(encoder, data, split, settings, seed)
        if tuned
        else {"top1": probe(encoder, data["dataset"], data["root"], split)[split]}
    )
    write_text(path, json.dumps({"settings": wanted, **found}) + "\n")
    return found


def fine_tuned(encoder: Encoder, data: dict, split: str, settings: FineTuneV2, seed: int) -> dict[str, float]:
    """Top-1 after fine-tuning on the first split, and what was chosen on a held-out part of it."""
    train_part, test_part = (open_dataset(data["dataset"], part, root=data["root"]) for part in parts_of(split))
    outcome = FineTuner(settings, seed).tune(encoder, train_part, test_part)
    return {"top1": float((outcome.predicted == np.asarray(test_part.labels)).mean()), **outcome.chosen}


if __name__ == "__main__":
    sys.exit(main())
