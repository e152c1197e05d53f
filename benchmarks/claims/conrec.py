"""ConRec's claim: three arms that differ in nothing else, over seeds, probed with few and with all labels.

    python -m benchmarks.claims.conrec conrec_unet16_rectangles --seeds 0 1 2 --out runs/claim_rectangles

Each arm is trained by its recipe with `key=value` overrides, and its features are probed on the test split: with a
tenth, a quarter and half of the training labels (few-label-v1, draws that all arms share) and with all of them, at the
same C throughout. Arms are compared seed by seed: mean difference with a 95 % t-interval over seeds. Killed, the same
command continues. Writes OUT/claim_10pct_of_labels.json and so on, one for each share of the labels.
"""

from __future__ import annotations

import argparse
import sys

from benchmarks.claims import study as claims
from evaluation.protocols.few_label import FewLabelProbe, FewLabelV1
from evaluation.protocols.logistic import LogisticProbe, LogRegV3
from training.recipe import Recipe
from zoo.data.addresses import open_dataset
from zoo.encoder import Encoder

#: From the least to the most, so that a difference reads as what the added part gains.
ARMS = {
    "simclr": ["method.reconstruction=0", "method.corrupt=null", "encoder.pool=average"],
    "simclr_attention": ["method.reconstruction=0", "method.corrupt=null"],
    "conrec": [],
}
FRACTIONS = (0.1, 0.25, 0.5, 1.0)


class Study(claims.Study):
    """SimCLR, SimCLR with attention pooling, ConRec."""

    module = "benchmarks.claims.conrec"
    arms = ARMS

    def title(self, options: argparse.Namespace) -> str:
        return "ConRec beside SimCLR with and without attention pooling"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--train-split", default="train", help="labels for the probe come from here")
        parser.add_argument("--test-split", default="test")
        parser.add_argument("--draws", type=int, default=5, help="of each fraction below 1")

    def chosen(self, options: argparse.Namespace) -> list[str]:
        return [arm for arm in ARMS if arm in options.arms]

    def cache(self, options: argparse.Namespace, floor: bool) -> str:
        return f"{claims.FLOOR if floor else 'labels'}_{options.train_split}_{options.test_split}_fixed_c.json"

    def judge(self, encoder: Encoder, recipe: Recipe, options: argparse.Namespace) -> claims.Scores:
        data = recipe.data
        splits = options.train_split, options.test_split
        train, test = (claims.features(encoder, open_dataset(data.dataset, s, root=data.root)) for s in splits)
        few = FewLabelV1(amounts=tuple(f for f in FRACTIONS if f < 1), draws=options.draws)
        outcomes = FewLabelProbe(few).outcomes(train, test)
        found = {
            str(amount): float((outcome.predicted == test.labels).mean())
            for amount, outcome in zip(few.amounts, outcomes, strict=True)
        }
        whole = LogisticProbe(LogRegV3(c_grid=(few.c,)))
        found["1.0"] = float((whole.run(train, test).predicted == test.labels).mean())
        return found

    def heading(self, column: str) -> str:
        return f"{float(column):.0%} of labels"

    def measure(self, column: str, recipe: Recipe, options: argparse.Namespace) -> str:
        c = FewLabelV1().c
        protocol = f"logreg-v3 at C = {c:g}" if float(column) == 1 else f"few-label-v1, mean of {options.draws} draws"
        data = recipe.data.dataset.rpartition("/")[2]
        return f"top-1 accuracy on {options.test_split} of {data}, {self.heading(column)} ({protocol})"


def main(arguments: list[str] | None = None) -> int:
    """Exit status as `python -m training`."""
    return claims.run(Study(), __doc__, arguments)


if __name__ == "__main__":
    sys.exit(main())
