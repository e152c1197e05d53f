"""Label-free scores against the 200-epoch truth of NAS-Bench-201 (Dong, Yang, 2020, arXiv 2001.00326).

    python benchmarks/nasbench201.py score --images data/cifar10     # resumable: kill it, run it again
    python benchmarks/nasbench201.py report                          # the tables of RECORDS.md

`score` knows cells, images and (for the control alone) labels, not the table's accuracies, with one exception that is
stated: to see how a score orders good cells, `--top` more cells are drawn from the best tenth of the table; they are
reported apart. `report` reads the table. Combinations: `all parts` is the mean rank of every label-free part, fixed
beforehand; `chosen` is the best subset of parts on one half of the random cells, tested on the other half, both ways.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from itertools import combinations
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from evaluation.ranking import rank_correlation, rank_of
from training.augment.image import PRESETS, ImageAugment
from training.search.short_training import short_contrastive, short_supervised
from training.search.zero_cost import contrastive_gradient, naswot, synflow
from zoo.architectures import build
from zoo.architectures.genotype import parse_genotype
from zoo.config import Architecture, ImageInput
from zoo.data import open_dataset
from zoo.data.cache import pixel_view

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "data" / "nasbench201.csv"
SCORES = ROOT / "benchmarks" / "results" / "nasbench201_scores.jsonl"
TASKS = ("cifar10", "cifar100", "ImageNet16-120")
SIDE, PAIRS, STEPS, UNSEEN, TEMPERATURE, SEED = 16, 64, 60, 8, 0.2, 0
#: The parts of the label-free score, in the order in which they are computed.
PARTS = ("synflow", "naswot", "contrastive_gradient", "ssl_speed", "ssl_unseen", "ssl_angle")


def read_table() -> tuple[list[str], np.ndarray]:
    """Cells, and their test accuracies in per cent `(cells, 3)`: CIFAR-10, CIFAR-100, ImageNet16-120."""
    with open(TABLE, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [r["architecture"] for r in rows], np.array([[float(r[t]) for t in TASKS] for r in rows])


def draw(cells: list[str], truth: np.ndarray, random: int, top: int) -> list[tuple[str, str]]:
    """(cell, group): `random` cells of the whole table, then `top` others of its best tenth on CIFAR-10."""
    order = np.random.default_rng(SEED).permutation(len(cells))
    chosen = order[:random]
    limit = np.quantile(truth[:, 0], 0.9)
    good = [i for i in order[random:] if truth[i, 0] >= limit][:top]
    groups = [(cells[i], "random") for i in chosen] + [(cells[i], "top") for i in good]
    # Mixed, so that a run that is cut short has some of each.
    return [groups[i] for i in np.random.default_rng(SEED + 1).permutation(len(groups))]


def batches(images: str) -> dict[str, torch.Tensor]:
    """The views that every cell sees: training steps and unseen images, with labels for the control."""
    dataset = open_dataset(images, "train")
    pixels, rows = pixel_view(dataset, 32)
    rows = np.arange(len(dataset)) if rows is None else rows
    chosen = np.random.default_rng(SEED).permutation(len(dataset))[: (STEPS + UNSEEN) * PAIRS]
    augment = ImageAugment(PRESETS["cifar"], SIDE)
    generator = torch.Generator().manual_seed(SEED)
    views = []
    for part in chosen.reshape(-1, PAIRS):
        batch = torch.from_numpy(np.ascontiguousarray(pixels[rows[part]])).permute(0, 3, 1, 2)
        views.append(torch.stack([augment(batch, generator) for _ in range(2)]))
    labels = torch.from_numpy(np.asarray(dataset.labels)[chosen].reshape(-1, PAIRS)).long()
    stacked = torch.stack(views)
    return {
        "views": stacked[:STEPS],
        "labels": labels[:STEPS],
        "unseen": stacked[STEPS:],
        "unseen_labels": labels[STEPS:],
    }


def network(cell: str):
    """The cell's network at 8 channels, one cell per stage, 16 px: the same initial random state for all cells."""
    torch.manual_seed(SEED)
    architecture = Architecture(family="cell_network", arguments={"genotype": cell, "width": 8, "depth": 1})
    encoder = build(architecture, ImageInput(size=(SIDE, SIDE)))
    encoder.strict_input = False
    return encoder


def score_cell(cell: str, data: dict[str, torch.Tensor], labelled: bool) -> dict[str, float]:
    """All parts for one cell, and what each took in seconds of this process."""
    edges = parse_genotype(cell).edges
    found: dict[str, float] = {"parameters": 9 * edges.count("nor_conv_3x3") + edges.count("nor_conv_1x1")}
    started = time.process_time()
    fresh = network(cell)
    found["synflow"] = synflow(fresh, (SIDE, SIDE))
    found["naswot"] = naswot(fresh, data["views"][0, 0])
    found["contrastive_gradient"] = contrastive_gradient(fresh, data["views"][0], TEMPERATURE)
    found["zero_cost_s"] = time.process_time() - started
    started = time.process_time()
    short = short_contrastive(network(cell), data["views"], data["unseen"], TEMPERATURE)
    found |= {f"ssl_{k}": v for k, v in short.items()}
    found["ssl_s"] = time.process_time() - started
    if labelled:
        control = short_supervised(network(cell), data["views"], data["labels"], data["unseen"], data["unseen_labels"])
        found |= {f"label_{k}": v for k, v in control.items()}
    return found


def read_scores(path: Path) -> list[dict]:
    """Complete records of a scores file."""
    if not path.exists():
        return []
    lines = path.read_text().splitlines()
    return [json.loads(line) for line in lines if line.endswith("}")]


def score(options: argparse.Namespace) -> None:
    """Append one record per cell that has none yet."""
    cells, truth = read_table()
    wanted = draw(cells, truth, options.random, options.top)[options.part :: options.parts]
    path = Path(options.scores)
    path = path.with_name(f"{path.stem}_{options.part}{path.suffix}") if options.parts > 1 else path
    done = {r["cell"] for r in read_scores(path)}
    data = batches(options.images)
    for number, (cell, group) in enumerate(wanted):
        if cell in done:
            continue
        found = score_cell(cell, data, labelled=not options.no_labels)
        record = {"cell": cell, "group": group} | {k: float(f"{v:.6g}") for k, v in found.items()}
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        print(f"{number + 1}/{len(wanted)} {cell}", flush=True)


# -- report ------------------------------------------------------------------------------------------


def combined(table: dict[str, np.ndarray], parts: tuple[str, ...]) -> np.ndarray:
    """Mean rank over parts, within the cells given."""
    return np.mean([rank_of(table[p]) for p in parts], axis=0)


def chosen_across(table: dict[str, np.ndarray], truth: np.ndarray, half: np.ndarray) -> tuple[np.ndarray, list]:
    """Each half scored by the subset of parts that ranks the other half best; scores are ranks within a half."""
    out, names = np.empty(len(truth)), []
    for side in (False, True):
        fit, test = half == side, half != side
        subsets = [s for n in range(1, len(PARTS) + 1) for s in combinations(PARTS, n)]
        local = {p: table[p][fit] for p in PARTS}
        best = max(subsets, key=lambda s: rank_correlation(combined(local, s), truth[fit], 1).spearman[0])
        out[test] = combined({p: table[p][test] for p in PARTS}, best)
        names.append(best)
    return out, names


def report(options: argparse.Namespace) -> None:
    """Print Markdown tables: overall and within the best tenth, for the three data sets."""
    cells, accuracies = read_table()
    truth_of = dict(zip(cells, accuracies, strict=True))
    records = read_scores(Path(options.scores))
    for group, title in (("random", "random cells of the whole table"), ("top", "cells of the best tenth, CIFAR-10")):
        rows = [r for r in records if r["group"] == group]
        if len(rows) < 10:
            continue
        truth = np.array([truth_of[r["cell"]] for r in rows])
        names = [k for k in rows[0] if k not in ("cell", "group") and not k.endswith("_s")]
        table = {k: _finite(np.array([r[k] for r in rows], float)) for k in names if all(k in r for r in rows)}
        lines = [*names, "all parts"]
        table["all parts"] = combined(table, PARTS)
        chosen = None
        if group == "random":
            half = np.random.default_rng(SEED + 2).permutation(len(rows)) % 2 == 1
            table["chosen"], chosen = chosen_across(table, truth[:, 0], half)
            lines.append("chosen")
        print(f"\n{len(rows)} {title}\n\n| score | C10 rho | C10 tau | C100 rho | ImageNet16-120 rho |")
        print("|---|---|---|---|---|")
        for name in [n for n in lines if n in table]:
            c10, c100, im = (rank_correlation(table[name], truth[:, t]) for t in range(3))
            cell = "{0[0]:.2f} [{0[1]:.2f}, {0[2]:.2f}]".format
            print(
                f"| {name} | {cell(c10.spearman)} | {cell(c10.kendall)} | {cell(c100.spearman)} | {cell(im.spearman)} |"
            )
        if chosen:
            print("\nchosen on one half, tested on the other: " + "; ".join(" + ".join(c) for c in chosen))
    cost = [r["zero_cost_s"] for r in records], [r["ssl_s"] for r in records]
    zero, short = (float(np.mean(c)) for c in cost)
    print(f"\nprocessor time a cell: zero-cost {zero:.2f} s, short contrastive training {short:.1f} s")


def _finite(values: np.ndarray) -> np.ndarray:
    """NaN (a training that diverged) ranks last."""
    return np.where(np.isnan(values), -np.inf, values)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["score", "report"])
    parser.add_argument("--scores", default=str(SCORES))
    parser.add_argument("--images", default=str(ROOT / "data" / "cifar10"))
    parser.add_argument("--random", type=int, default=120)
    parser.add_argument("--top", type=int, default=40)
    parser.add_argument("--no-labels", action="store_true", help="leave the label-driven control out")
    parser.add_argument("--part", type=int, default=0, help="this process's share, 0-based")
    parser.add_argument("--parts", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    {"score": score, "report": report}[options.what](options)


if __name__ == "__main__":
    main()
