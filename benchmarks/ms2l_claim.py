"""MS2L's claim: one, two and all three tasks, trained alike over seeds, beside the untrained network.

    python -m benchmarks.ms2l_claim ms2l_bigru_nucla data=data/nucla epochs=20 --out runs/ms2l_claim

Each arm is the recipe with some tasks switched off, trained without labels; frozen features go through logreg-v1 on the
official split and on the leak-free one. Arms are compared with all three tasks seed by seed: mean difference and its
95 % t-interval over seeds. Killed, the same command continues; finished runs are not trained again.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import torch

from evaluation.floors import untrained
from evaluation.inputs import Features
from evaluation.probe import LogisticProbe
from training.__main__ import main as train
from training.run import write_text
from zoo.claims import Claim, compare
from zoo.data import open_dataset
from zoo.encoder import Encoder
from zoo.features import embed
from zoo.loading import load

TASKS = ("motion", "jigsaw", "contrastive")
#: The reference that every arm is compared with.
ALL = "+".join(TASKS)
#: arm -> overrides that switch the other tasks off.
ARMS = {
    "+".join(kept): [f"method.{task}=0" for task in TASKS if task not in kept]
    for count in (1, 2, 3)
    for kept in combinations(TASKS, count)
}
#: All three tasks with the released losses and no views of their own.
RELEASED = "released losses, no views"
ARMS[RELEASED] = [
    "method.augment=null",
    "method.temperature=0.9",
    "method.positives=mean",
    "method.self_similarity=minus_one",
    "method.motion_target=all",
]
FLOOR = "untrained"
#: arm -> seed -> split -> top-1 in 0..1.
Scores = dict[str, dict[int, dict[str, float]]]
#: what a column is called -> training and test split of the probe.
SPLITS = {"official": ("train", "test"), "leak-free": ("train-leakfree", "test-leakfree")}


def main(arguments: list[str] | None = None) -> int:
    """Train what is missing, probe, compare, print tables and write a claim for each split."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--splits", nargs="+", default=list(SPLITS), choices=[*SPLITS, "train/test"])
    given = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_intermixed_args(given)
    scores: Scores = {}
    # Seed by seed: stopped early, there is a whole table over fewer seeds.
    for seed in options.seeds:
        for arm in options.arms:
            run = options.out / f"{arm.replace('+', '_').replace(', ', '_').replace(' ', '_')}_seed{seed}"
            wanted = [options.recipe, *options.overrides, *ARMS[arm], f"seed={seed}", "--run", str(run)]
            if not (run / "encoder" / "config.json").exists() and (code := train(wanted)):
                return code
            scores.setdefault(arm, {})[seed] = cached(run, options.splits)
        scores.setdefault(FLOOR, {})[seed] = cached(run, options.splits, untrained_seed=seed)
        claims = write(options.out, options.recipe, scores, given)
    for claim in claims:
        print(f"{claim.measure}\n\n{claim.table()}\n")
    return 0


def write(folder: Path, recipe: str, scores: Scores, arguments: list[str]) -> list[Claim]:
    """`claim_SPLIT.json` for the card, one for each split."""
    run = next(folder.glob("*_seed*/encoder"))
    training = load(f"local-dir:{run}").config.training
    splits = list(next(iter(next(iter(scores.values())).values())))
    claims = []
    for split in splits:
        # The floor first and all three tasks last, so that differences read as what the rest gains.
        order = sorted(scores, key=lambda arm: (arm == ALL, arm != FLOOR))
        arms = {arm: tuple(by_seed[split] for by_seed in scores[arm].values()) for arm in order}
        seeds = tuple(next(iter(scores.values())))
        claim = Claim(
            title="MS²L's three tasks against one and two of them" if len(arms) > 2 else "several training seeds",
            measure=f"top-1 accuracy of logreg-v1 on frozen features, {split} split ({' to '.join(parts_of(split))})",
            setting=f"recipe {recipe}, {training.epochs:g} epochs, {training.hardware}, "
            f"{torch.get_num_threads()} thread",
            seeds=seeds,
            arms=arms,
            differences=tuple(d for d in compare(arms) if ALL in (d.arm, d.other)),
            command=f"python -m benchmarks.ms2l_claim {shlex.join(arguments)}",
            code_commit=training.code_commit,
        )
        write_text(folder / f"claim_{split.replace('/', '-')}.json", claim.to_json())
        claims.append(claim)
    return claims


def cached(run: Path, splits: list[str], untrained_seed: int | None = None) -> dict[str, float]:
    """Top-1 in 0..1 by split; kept beside the run."""
    path = run / f"{'probe' if untrained_seed is None else FLOOR}_{'_'.join(splits).replace('/', '-')}.json"
    if not path.exists():
        encoder = load(f"local-dir:{run / 'encoder'}")
        data = encoder.config.training.recipe["data"]
        if untrained_seed is not None:
            encoder = untrained(encoder, untrained_seed)
        path.write_text(json.dumps({name: probe(encoder, data, name) for name in splits}) + "\n")
    return json.loads(path.read_text())


def probe(encoder: Encoder, data: dict, name: str) -> float:
    """Top-1 of logreg-v1 on one pair of splits."""
    parts = []
    for split in parts_of(name):
        dataset = open_dataset(data["dataset"], split, root=data["root"])
        parts.append(Features(embed(encoder, dataset), np.asarray(dataset.labels)))
    return float((LogisticProbe().run(*parts).predicted == parts[1].labels).mean())


def parts_of(split: str) -> tuple[str, str]:
    """Training and test split behind a column's name."""
    train_part, test_part = SPLITS[split] if split in SPLITS else split.split("/")
    return train_part, test_part


if __name__ == "__main__":
    sys.exit(main())
