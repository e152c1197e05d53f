"""MS2L's claim: one, two and all three tasks, trained alike over seeds, beside the untrained network.

    python -m benchmarks.claims.ms2l ms2l_bigru64_nucla data=data/nucla epochs=20 --out runs/ms2l_claim

Each arm is the recipe with some tasks switched off, trained without labels; frozen features go through logreg-v3 on the
official split and on the leak-free one. Arms are compared with all three tasks seed by seed: mean difference and its
95 % t-interval over seeds. Killed, the same command continues; finished runs are not trained again. Writes
OUT/claim_SPLIT.json for the card, one for each split.
"""

from __future__ import annotations

import argparse
import sys
from itertools import combinations

from benchmarks.claims import study as claims
from benchmarks.claims.study import FLOOR
from evaluation.protocols.logistic import LogisticProbe
from training.recipe import Recipe
from zoo.data.addresses import open_dataset
from zoo.encoder import Encoder

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
#: what a column is called -> training and test split of the probe.
SPLITS = {"official": ("train", "test"), "leak-free": ("train-leakfree", "test-leakfree")}


class Study(claims.Study):
    """All sets of tasks, against all three."""

    module = "benchmarks.claims.ms2l"
    arms = ARMS

    def title(self, options: argparse.Namespace) -> str:
        return "MS²L's three tasks against one and two of them" if len(options.arms) > 1 else "several training seeds"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--splits", nargs="+", default=list(SPLITS), choices=[*SPLITS, "train/test"])

    def groups(self, options: argparse.Namespace) -> dict[str, list[str]]:
        # The floor first and all three tasks last, so that differences read as what the rest gains.
        return {"": sorted([FLOOR, *options.arms], key=lambda arm: (arm == ALL, arm != FLOOR))}

    def reference(self, group: str) -> str:
        return ALL

    def cache(self, options: argparse.Namespace, floor: bool) -> str:
        return f"{FLOOR if floor else 'probe'}_{'_'.join(options.splits).replace('/', '-')}_{LogisticProbe.name}.json"

    def judge(self, encoder: Encoder, recipe: Recipe, options: argparse.Namespace) -> claims.Scores:
        return {name: probe(encoder, recipe.data.dataset, recipe.data.root, name) for name in options.splits}

    def measure(self, column: str, recipe: Recipe, options: argparse.Namespace) -> str:
        return f"top-1 accuracy of logreg-v3 on frozen features, {column} split ({' to '.join(parts_of(column))})"


def parts_of(split: str) -> tuple[str, str]:
    """Training and test split behind a column's name."""
    train_part, test_part = SPLITS[split] if split in SPLITS else split.split("/")
    return train_part, test_part


def probe(encoder: Encoder, dataset: str, root: str | None, split: str) -> float:
    """Top-1 in 0..1 of logreg-v3 on frozen features, on one pair of splits."""
    parts = (open_dataset(dataset, part, root=root) for part in parts_of(split))
    train, test = (claims.features(encoder, part) for part in parts)
    return float((LogisticProbe().run(train, test).predicted == test.labels).mean())


def main(arguments: list[str] | None = None) -> int:
    """Exit status as `python -m training`."""
    return claims.run(Study(), __doc__, arguments)


if __name__ == "__main__":
    sys.exit(main())
