"""CLSA's claim: MoCo v2, strong views used naively, and CLSA under one recipe, over seeds, compared in pairs.

    python -m benchmarks.claims.clsa clsa_resnet10t_cifar10 data=data/cifar10 --seeds 0 1 2 --out runs/clsa_claim

A seed fixes initial weights and the order of the data for all three. Frozen features of the last epoch are probed by
protocol logreg-v3: fitted on the whole train split, tested on the test split. With `--held-out` the test split is not
touched: the probe is fitted on the part that was trained on and tested on the part that the recipe holds out, which is
how settings are chosen. Killed, the same command goes on. Writes OUT/claim.json and prints the table.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np

from benchmarks.claims import study as claims
from evaluation.protocols.logistic import LogisticProbe
from training.batches import TrainingData
from training.methods import method_class
from training.recipe import Recipe, parse_recipe, read_recipe
from zoo.checkpoint.config import Training
from zoo.data.addresses import open_dataset
from zoo.encoder import Encoder
from zoo.errors import ConfigError

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


class Study(claims.Study):
    """The three arms; they differ in the method's settings, so `arm` makes them and not overrides."""

    module = "benchmarks.claims.clsa"
    arms = dict.fromkeys(ARMS, ())
    titles = TITLES
    floor = False

    def title(self, options: argparse.Namespace) -> str:
        return "Strong views through DDM, beside MoCo v2 and strong views used naively"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        about = "judge on held-out training samples: choose settings so"
        parser.add_argument("--held-out", action="store_true", help=about)

    def recipe(self, options: argparse.Namespace, name: str, seed: int) -> Recipe:
        recipe = read_recipe(options.recipe, options.overrides)
        if recipe.method["name"] != "clsa":
            raise ConfigError(f"{options.recipe} trains {recipe.method['name']}; the claim takes a recipe of clsa")
        return parse_recipe(arm(recipe, name, seed), options.recipe)

    def cache(self, options: argparse.Namespace, floor: bool) -> str:
        return "held_out_top1.json" if options.held_out else "test_top1.json"

    def judge(self, encoder: Encoder, recipe: Recipe, options: argparse.Namespace) -> claims.Scores:
        data = recipe.data
        if options.held_out:
            parts = TrainingData(recipe)
            fit, test = (parts.dataset.subset(np.sort(part)) for part in (parts.train, parts.held))
        else:
            fit, test = (open_dataset(data.dataset, split, root=data.root) for split in (data.split, "test"))
        train, judged = claims.features(encoder, fit), claims.features(encoder, test)
        return {"top1": float((LogisticProbe().run(train, judged).predicted == judged.labels).mean())}

    def heading(self, column: str) -> str:
        return ""

    def measure(self, column: str, recipe: Recipe, options: argparse.Namespace) -> str:
        part = "held-out training samples" if options.held_out else "the test split"
        return f"top-1 accuracy on {part} of {recipe.data.dataset.rpartition('/')[2]}, logreg-v3"

    def setting(self, recipe: Recipe, training: Training, options: argparse.Namespace) -> str:
        seen = f"{training.samples_seen:,} samples seen"
        return f"{recipe.encoder['model']}, {seen}, batch {recipe.batch_size}, {training.hardware}"


def main(arguments: list[str] | None = None) -> int:
    """Exit status as `python -m training`."""
    return claims.run(Study(), __doc__, arguments)


if __name__ == "__main__":
    sys.exit(main())
