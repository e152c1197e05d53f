"""MS²L's claim: fewer tasks against all that a recipe trains, alike over seeds, beside the untrained network.

    python -m benchmarks.claims.ms2l ms2l_bigru64_nucla data=data/nucla epochs=20 --out runs/ms2l_claim

Each arm is the recipe with some tasks switched off, trained without labels; arms with a task that the recipe itself
leaves out are left out. Frozen features go through logreg-v3 and knn-v2 on the official split and on the leak-free one.
Arms are compared with the whole recipe seed by seed: mean difference and its 95 % t-interval over seeds. Killed, the
same command continues; finished runs are not trained again. Writes OUT/claim_COLUMN.json for the card, one for each
split and protocol.
"""

from __future__ import annotations

import argparse
import sys
from itertools import combinations

from benchmarks.claims import study as claims
from benchmarks.claims.study import FLOOR
from evaluation.protocols.knn import KNNProbe
from evaluation.protocols.logistic import LogisticProbe
from training.recipe import Recipe, read_recipe
from zoo.data.addresses import open_dataset
from zoo.encoder import Encoder

TASKS = ("motion", "jigsaw", "contrastive")
#: All three tasks: the reference of a recipe that trains them.
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
#: what a split is called -> training and test split of the probe.
SPLITS = {"official": ("train", "test"), "leak-free": ("train-leakfree", "test-leakfree")}
#: end of a column's name -> protocol.
PROTOCOLS = {"": LogisticProbe, ", neighbours": KNNProbe}


class Study(claims.Study):
    """Every set of the recipe's tasks, against all of them."""

    module = "benchmarks.claims.ms2l"
    arms = ARMS

    def title(self, options: argparse.Namespace) -> str:
        if len(options.arms) == 1:
            return "several training seeds"
        kept = tasks(options)
        if len(kept) == len(TASKS):
            return "MS²L's three tasks against one and two of them"
        return f"MS²L trained by {' and '.join(kept)} against fewer tasks"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--splits", nargs="+", default=list(SPLITS), choices=[*SPLITS, "train/test"])

    def possible(self, options: argparse.Namespace) -> list[str]:
        kept = set(tasks(options))
        return [arm for arm in ARMS if arm == RELEASED or set(arm.split("+")) <= kept]

    def groups(self, options: argparse.Namespace) -> dict[str, list[str]]:
        # The floor first and the whole recipe last, so that differences read as what the rest gains.
        last = self.reference("", options)
        return {"": sorted([FLOOR, *options.arms], key=lambda arm: (arm == last, arm != FLOOR))}

    def reference(self, group: str, options: argparse.Namespace) -> str:
        """The arm that is the recipe as it stands."""
        return "+".join(tasks(options))

    def cache(self, options: argparse.Namespace, floor: bool) -> str:
        protocols = "_".join(protocol.name for protocol in PROTOCOLS.values())
        return f"{FLOOR if floor else 'probe'}_{'_'.join(options.splits).replace('/', '-')}_{protocols}.json"

    def judge(self, encoder: Encoder, recipe: Recipe, options: argparse.Namespace) -> claims.Scores:
        scores: claims.Scores = {}
        for split in options.splits:
            scores |= probe(encoder, recipe.data.dataset, recipe.data.root, split)
        return scores

    def measure(self, column: str, recipe: Recipe, options: argparse.Namespace) -> str:
        split, protocol = split_and_protocol(column)
        parts = " to ".join(parts_of(split))
        return f"top-1 accuracy of {protocol.name} on frozen features, {split} split ({parts})"


def tasks(options: argparse.Namespace) -> list[str]:
    """The tasks that the recipe trains. Raises ZooError."""
    method = read_recipe(options.recipe, options.overrides).method_config()
    return [task for task in TASKS if getattr(method, task) > 0]


def split_and_protocol(column: str) -> tuple[str, type[LogisticProbe] | type[KNNProbe]]:
    """The two that a column's name stands for."""
    end = next(end for end in sorted(PROTOCOLS, key=len, reverse=True) if column.endswith(end))
    return column.removesuffix(end), PROTOCOLS[end]


def parts_of(split: str) -> tuple[str, str]:
    """Training and test split behind a split's name."""
    train_part, test_part = SPLITS[split] if split in SPLITS else split.split("/")
    return train_part, test_part


def probe(encoder: Encoder, dataset: str, root: str | None, split: str) -> claims.Scores:
    """Top-1 in 0..1 of each protocol on frozen features, on one pair of splits."""
    parts = (open_dataset(dataset, part, root=root) for part in parts_of(split))
    train, test = (claims.features(encoder, part) for part in parts)
    return {
        split + end: float((protocol().run(train, test).predicted == test.labels).mean())
        for end, protocol in PROTOCOLS.items()
    }


def main(arguments: list[str] | None = None) -> int:
    """Exit status as `python -m training`."""
    return claims.run(Study(), __doc__, arguments)


if __name__ == "__main__":
    sys.exit(main())
