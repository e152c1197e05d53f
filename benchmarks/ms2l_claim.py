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
#: what a column is called -> training and test split of the probe.
SPLITS = {"official": ("train", "test"), "leak-free": ("train-leakfree", "test-leakfree")}


def main(arguments: list[str] | None = None) -> int:
    """Train what is missing, probe, compare, print a table and write `claim.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--splits", nargs="+", default=list(SPLITS), choices=[*SPLITS, "train/test"])
    given = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_intermixed_args(given)
    scores: dict[str, dict[str, dict[str, float]]] = {}
    # Seed by seed: stopped early, there is a whole table over fewer seeds.
    for seed in options.seeds:
        for arm in options.arms:
            run = options.out / f"{arm.replace('+', '_').replace(', ', '_').replace(' ', '_')}_seed{seed}"
            wanted = [options.recipe, *options.overrides, *ARMS[arm], f"seed={seed}", "--run", str(run)]
            if not (run / "encoder" / "config.json").exists() and (code := train(wanted)):
                return code
            scores.setdefault(arm, {})[str(seed)] = cached(run, options.splits)
        scores.setdefault(FLOOR, {})[str(seed)] = cached(run, options.splits, untrained_seed=seed)
        write(options.out, scores, given)
    print(table(scores))
    return 0


def write(folder: Path, scores: dict, arguments: list[str]) -> None:
    """`claim.json`: command, scores by arm and seed, paired differences."""
    found = {
        "command": f"python -m benchmarks.ms2l_claim {shlex.join(arguments)}",
        "threads": torch.get_num_threads(),
        "scores": scores,
        "differences": differences(scores),
    }
    (folder / "claim.json").write_text(json.dumps(found, indent=1) + "\n")


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
    for split in SPLITS.get(name, name.split("/")):
        dataset = open_dataset(data["dataset"], split, root=data["root"])
        parts.append(Features(embed(encoder, dataset), np.asarray(dataset.labels)))
    return float((LogisticProbe().run(*parts).predicted == parts[1].labels).mean())


def differences(scores: dict) -> dict[str, dict[str, dict[str, float]]]:
    """Arm -> split -> mean difference of `ALL` minus the arm over seeds, with its 95 % t-interval."""
    from scipy import stats

    found: dict[str, dict[str, dict[str, float]]] = {}
    for arm in scores if ALL in scores else ():
        if arm == ALL:
            continue
        seeds = sorted(set(scores[ALL]) & set(scores[arm]))
        for split in scores[ALL][seeds[0]]:
            d = np.array([scores[ALL][s][split] - scores[arm][s][split] for s in seeds])
            half = stats.t.ppf(0.975, len(d) - 1) * d.std(ddof=1) / np.sqrt(len(d)) if len(d) > 1 else float("nan")
            entry = {"mean": float(d.mean()), "low": float(d.mean() - half), "high": float(d.mean() + half)}
            found.setdefault(arm, {})[split] = entry
    return found


def table(scores: dict) -> str:
    """Markdown: mean over seeds by arm and split, and how far all three tasks lie above it, in percent."""
    apart = differences(scores)
    splits = list(next(iter(next(iter(scores.values())).values())))
    columns = [cell for split in splits for cell in (split, f"all three minus this, {split}")]
    lines = ["| tasks | seeds | " + " | ".join(columns) + " |", "|---|---:|" + "---:|" * len(columns)]
    for arm, by_seed in scores.items():
        cells = []
        for split in splits:
            values = [100 * s[split] for s in by_seed.values()]
            spread = f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
            cells.append(f"{np.mean(values):.1f}{spread}")
            d = apart.get(arm, {}).get(split)
            cells.append(
                "{mean:+.1f} [{low:+.1f}, {high:+.1f}]".format(**{k: 100 * v for k, v in d.items()}) if d else "–"
            )
        lines.append(f"| {arm} | {len(by_seed)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
