"""ConRec's claim: three arms that differ in nothing else, over seeds, probed with few and with all labels.

    python -m benchmarks.conrec_claim conrec_unet16_rectangles --seeds 0 1 2 --out runs/claim_rectangles

Each arm is trained by its recipe with `key=value` overrides, its features are probed on the test split with a tenth, a
quarter and half of the training labels (few-label-v1, draws that all arms share) and all of them (logreg-v1), and arms
are compared seed by seed: mean difference with a 95 % t-interval over seeds. Killed, the same command continues.
"""

from __future__ import annotations

import argparse
import json
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import torch

from evaluation.few_label import FewLabelProbe
from evaluation.floors import untrained
from evaluation.inputs import Features
from evaluation.probe import LogisticProbe
from evaluation.protocol import FewLabelV1
from training.__main__ import main as train
from zoo.claims import compare
from zoo.data import open_dataset
from zoo.encoder import Encoder
from zoo.features import embed
from zoo.loading import load

ARMS = {
    "conrec": [],
    "simclr_attention": ["method.reconstruction=0", "method.corrupt=null"],
    "simclr": ["method.reconstruction=0", "method.corrupt=null", "encoder.pool=average"],
}
#: The first arm's network with random weights.
FLOOR = "untrained"
FRACTIONS = (0.1, 0.25, 0.5, 1.0)


def main() -> int:
    """Train what is missing, probe, compare, print a table and write `claim.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--train-split", default="train", help="labels for the probe come from here")
    parser.add_argument("--test-split", default="test")
    parser.add_argument("--draws", type=int, default=5, help="of each fraction below 1")
    options = parser.parse_args()
    scores: dict[str, dict[str, dict[str, float]]] = {arm: {} for arm in options.arms}
    for seed in options.seeds:
        for arm in options.arms:
            run = options.out / f"{arm}_seed{seed}"
            if not (run / "encoder" / "config.json").exists():
                wanted = [*options.overrides, *ARMS[arm], f"seed={seed}"]
                if train([options.recipe, *wanted, "--run", str(run), "--device", "cpu"]):
                    return 1
            scores[arm][str(seed)] = cached(run, options)
        floor = options.out / f"{options.arms[0]}_seed{seed}"
        scores.setdefault(FLOOR, {})[str(seed)] = cached(floor, options, seed)
    found = {
        "command": f"python -m benchmarks.conrec_claim {' '.join(sys.argv[1:])}",
        "threads": torch.get_num_threads(),
        "scores": scores,
        "differences": differences(scores, options.seeds),
    }
    (options.out / "claim.json").write_text(json.dumps(found, indent=1) + "\n")
    print(table(found))
    return 0


def cached(run: Path, options: argparse.Namespace, untrained_seed: int | None = None) -> dict[str, float]:
    """Test accuracy by fraction of labels; kept beside the run."""
    what = "few_label" if untrained_seed is None else FLOOR
    path = run / f"{what}_{options.train_split}_{options.test_split}.json"
    if not path.exists():
        encoder = load(f"local-dir:{run / 'encoder'}")
        data = encoder.config.training.recipe["data"]
        if untrained_seed is not None:
            encoder = untrained(encoder, untrained_seed)
        path.write_text(json.dumps(probe(encoder, data, options)) + "\n")
    return json.loads(path.read_text())


def probe(encoder: Encoder, data: dict, options: argparse.Namespace) -> dict[str, float]:
    """Top-1 in 0..1 on the test split, by fraction of the training labels; the mean over draws."""
    parts = []
    for split in (options.train_split, options.test_split):
        dataset = open_dataset(data["dataset"], split, root=data["root"])
        parts.append(Features(embed(encoder, dataset), np.asarray(dataset.labels)))
    amounts = FewLabelProbe(FewLabelV1(amounts=tuple(f for f in FRACTIONS if f < 1), draws=options.draws)).run(*parts)
    found = {str(o.amount): float((o.predicted == parts[1].labels).mean()) for o in amounts}
    found["1.0"] = float((LogisticProbe().run(*parts).predicted == parts[1].labels).mean())
    return found


def differences(scores: dict, seeds: list[int]) -> dict[str, dict[str, dict[str, float]]]:
    """`"a - b"` -> fraction -> mean difference over seeds and its 95 % t-interval."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    for a, b in combinations(scores, 2):
        for fraction in map(str, FRACTIONS):
            (d,) = compare({arm: [scores[arm][str(s)][fraction] for s in seeds] for arm in (b, a)})
            low, high = (float("nan") if side is None else side for side in (d.low, d.high))
            found.setdefault(f"{a} - {b}", {})[fraction] = {"mean": d.mean, "low": low, "high": high}
    return found


def table(found: dict) -> str:
    """Markdown: mean over seeds by arm, then the paired differences, in percent."""
    header = (
        "| | " + " | ".join(f"{float(f):.0%} of labels" for f in FRACTIONS) + " |\n|---|" + "---:|" * len(FRACTIONS)
    )
    lines = [header]
    for arm, by_seed in found["scores"].items():
        cells = [100 * np.mean([s[str(f)] for s in by_seed.values()]) for f in FRACTIONS]
        lines.append(f"| {arm} | " + " | ".join(f"{c:.1f}" for c in cells) + " |")
    for pair, by_fraction in found["differences"].items():
        cells = [
            "{mean:+.1f} [{low:+.1f}, {high:+.1f}]".format(**{k: 100 * v for k, v in d.items()})
            for d in by_fraction.values()
        ]
        lines.append(f"| {pair} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
