"""SimCLR's own claims: composed augmentations, a non-linear head, temperature, larger batches, longer training.

    python -m benchmarks.claims.simclr simclr_resnet10t_cifar10 data=data/cifar10 --out runs/simclr_claim
    python -m benchmarks.claims.simclr simclr_resnet10t_cifar10 data=data/cifar10 --out runs/labels --groups labels

(Chen et al. 2020, arXiv 2002.05709, sections 3 to 5.) Every arm is the recipe with one thing changed; arms that come
out as the same recipe are trained once. Frozen features are probed on the test split with 1 % and 10 % of the labels
(few-label-v1) and all of them (logreg-v3); `--groups labels` sets the recipe as it is beside the untrained network, by
fine-tuning too. One table per group and share of labels, each arm against the group's reference, paired by seed.
Killed, the same command goes on.
"""

from __future__ import annotations

import argparse
import sys

from benchmarks.claims import study as claims
from evaluation.evaluate import limited
from evaluation.protocols.few_label import FewLabelProbe, FewLabelV1, draw_labels
from evaluation.protocols.finetune import FineTuner, FineTuneV2
from evaluation.protocols.logistic import LogisticProbe
from training.recipe import Recipe, read_recipe
from zoo.data.addresses import open_dataset
from zoo.data.base import Dataset
from zoo.encoder import Encoder
from zoo.errors import ConfigError

NO_CROP = ["method.augment.crop_scale=[1, 1]", "method.augment.crop_ratio=[1, 1]", "method.augment.flip_p=0"]
NO_COLOUR = ["method.augment.jitter_p=0", "method.augment.greyscale_p=0"]
NO_BLUR = ["method.augment.blur_p=0"]
AS_IS = "the recipe"
#: Group -> arm -> overrides; the last arm of the first three is what SimCLR uses on CIFAR-10.
GROUPS: dict[str, dict[str, list[str]]] = {
    "augmentation": {
        "crop and flip": [*NO_COLOUR, *NO_BLUR],
        "colour": [*NO_CROP, *NO_BLUR],
        "crop, flip, jitter": ["method.augment.greyscale_p=0", *NO_BLUR],
        "crop, flip, colour, blur": ["method.augment.blur_p=0.5"],
        "crop, flip, colour": NO_BLUR,
    },
    "head": {"no head": ["method.head=none"], "linear head": ["method.head=linear"], "MLP head": ["method.head=paper"]},
    "temperature": {f"temperature {t:g}": [f"method.temperature={t}"] for t in (0.1, 1.0, 0.5)},
    "batch": {"a quarter of the batch": [], "twice the batch": [], "the batch": []},
    "epochs": {"half the epochs": [], "twice the epochs": [], "the epochs": []},
    "labels": {AS_IS: []},
}
#: Arms that scale a setting of the recipe.
SCALED = {
    "a quarter of the batch": ("batch_size", 0.25),
    "twice the batch": ("batch_size", 2),
    "half the epochs": ("epochs", 0.5),
    "twice the epochs": ("epochs", 2),
}
FRACTIONS = (0.01, 0.1)
ALL = "all labels"


class Study(claims.Study):
    """All groups; a group's last arm is its reference."""

    module = "benchmarks.claims.simclr"
    arms = {arm: overrides for group in GROUPS.values() for arm, overrides in group.items()}

    def __init__(self) -> None:
        self.titles: dict[str, str] = {}

    def title(self, options: argparse.Namespace) -> str:
        return "what SimCLR is made of"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        ablations = [group for group in GROUPS if group != "labels"]
        parser.add_argument("--groups", nargs="+", default=ablations, choices=list(GROUPS))
        parser.add_argument("--limit", type=int, help="at most this many samples of each split for the probes")
        parser.add_argument("--draws", type=int, default=5, help="of each share of the labels")

    def recipe(self, options: argparse.Namespace, arm: str, seed: int) -> Recipe:
        plain = read_recipe(options.recipe, options.overrides)
        if plain.method["name"] != "simclr":
            raise ConfigError(f"{options.recipe} trains {plain.method['name']}; the claim takes a recipe of simclr")
        overrides = list(self.arms[arm])
        if arm in SCALED:
            key, factor = SCALED[arm]
            overrides.append(f"{key}={max(1, round(getattr(plain, key) * factor))}")
        made = read_recipe(options.recipe, [*options.overrides, *overrides, f"seed={seed}"])
        if arm in GROUPS["batch"]:
            self.titles[arm] = f"batch {made.batch_size}"
        if arm in GROUPS["epochs"]:
            self.titles[arm] = f"{made.epochs} epoch{'s' * (made.epochs != 1)}"
        return made

    def chosen(self, options: argparse.Namespace) -> list[str]:
        return [arm for group in options.groups for arm in GROUPS[group] if arm in options.arms]

    def groups(self, options: argparse.Namespace) -> dict[str, list[str]]:
        return {group: [claims.FLOOR, *(a for a in GROUPS[group] if a in options.arms)] for group in options.groups}

    def reference(self, group: str, options: argparse.Namespace) -> str:
        return list(GROUPS[group])[-1]

    def cache(self, options: argparse.Namespace, floor: bool) -> str:
        kind = claims.FLOOR if floor else "probe"
        return f"{kind}{'_finetuned' if _finetunes(options) else ''}_{options.limit or 'all'}_{options.draws}.json"

    def judge(self, encoder: Encoder, recipe: Recipe, options: argparse.Namespace) -> claims.Scores:
        data = recipe.data
        splits = (open_dataset(data.dataset, split, root=data.root) for split in (data.split, "test"))
        train, test = (limited(split, options.limit) for split in splits)
        known, asked = claims.features(encoder, train), claims.features(encoder, test)
        few = FewLabelProbe(FewLabelV1(amounts=FRACTIONS, draws=options.draws)).outcomes(known, asked)
        found = {
            _share(fraction): float((outcome.predicted == asked.labels).mean())
            for fraction, outcome in zip(FRACTIONS, few, strict=True)
        }
        found[ALL] = float((LogisticProbe().run(known, asked).predicted == asked.labels).mean())
        return found | (finetuned(encoder, train, test) if _finetunes(options) else {})

    def measure(self, column: str, recipe: Recipe, options: argparse.Namespace) -> str:
        protocol = f"few-label-v1, mean of {options.draws} draws"
        if column == ALL:
            protocol = "logreg-v3"
        elif column.endswith("fine-tuned"):
            protocol = "SimCLR's few-label fine-tuning, one draw"
        data = recipe.data.dataset.rpartition("/")[2]
        size = f" ({options.limit:,} training and test samples)" if options.limit else ""
        return f"top-1 accuracy on the test split of {data}{size}, {column} ({protocol})"


def finetuned(encoder: Encoder, train: Dataset, test: Dataset) -> claims.Scores:
    """The whole network trained on few labels: appendix B.5's 60 epochs of 1 % and 30 of 10 %, SGD with Nesterov
    momentum, learning rate 0.05 per 256 samples and no weight decay; the batch is small, as the data are."""
    found = {}
    for fraction, epochs in zip(FRACTIONS, (60, 30), strict=True):
        rows, _ = draw_labels(train.labels, fraction, seed=0, draw=0)
        batch = min(64, len(rows))
        settings = FineTuneV2(epochs=epochs, batch_size=batch, lr_grid=(0.05 * batch / 256,))
        outcome = FineTuner(settings).tune(encoder, train.subset(rows), test)
        found[f"{_share(fraction)}, fine-tuned"] = float((outcome.predicted == test.labels).mean())
    return found


def _share(fraction: float) -> str:
    return f"{fraction:.0%} of labels"


def _finetunes(options: argparse.Namespace) -> bool:
    return options.groups == ["labels"]


def main(arguments: list[str] | None = None) -> int:
    """Exit status as `python -m training`."""
    return claims.run(Study(), __doc__, arguments)


if __name__ == "__main__":
    sys.exit(main())
