"""Label-free scores against the 200-epoch truth of NAS-Bench-201 (Dong, Yang, 2020, arXiv 2001.00326).

    python benchmarks/nas/nasbench201.py zero     # scores of untrained networks of the benchmark's size; resumable
    python benchmarks/nas/nasbench201.py short    # scores of short trainings of small networks; resumable
    python benchmarks/nas/nasbench201.py report   # the tables of RECORDS.md

The scores know cells, images and (for the control alone) labels, not the table's accuracies, with one exception that is
stated: to see how a score orders good cells, `--top` more cells are drawn from the best tenth of the table; they are
reported apart. `report` reads the table. `synflow + naswot` and `all parts` are mean ranks of label-free parts;
`chosen` is the subset of parts that ranks one half of the random cells best, tested on the other half, both ways.
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

from benchmarks.nas.ranking import rank_correlation, rank_of
from training.augment.image import ImageAugment
from training.augment.parameters import PRESETS
from training.search.short_training import short_contrastive, short_supervised
from training.search.zero_cost import contrastive_gradient, naswot, synflow
from zoo.architectures import build
from zoo.architectures.genotype import parse_genotype
from zoo.data.addresses import open_dataset
from zoo.data.stores.pixels import pixel_view
from zoo.preprocessing.image import ImageInput
from zoo.strict import Architecture

sys.path.insert(0, str(Path(__file__).parents[2]))
ROOT = Path(__file__).parents[2]
TABLE = ROOT / "data" / "nasbench201.csv"
RESULTS = ROOT / "benchmarks" / "results"
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
    plain = torch.from_numpy(np.ascontiguousarray(pixels[rows[chosen[:PAIRS]]])).permute(0, 3, 1, 2).float() / 255
    return {
        "plain": (plain - plain.mean((0, 2, 3), keepdim=True)) / plain.std((0, 2, 3), keepdim=True),
        "views": stacked[:STEPS],
        "labels": labels[:STEPS],
        "unseen": stacked[STEPS:],
        "unseen_labels": labels[STEPS:],
    }


def network(cell: str, width: int, depth: int, side: int):
    """The cell's network from the same initial random state for all cells."""
    torch.manual_seed(SEED)
    architecture = Architecture(family="cell_network", arguments={"genotype": cell, "width": width, "depth": depth})
    encoder = build(architecture, ImageInput(size=(side, side)))
    encoder.strict_input = False
    return encoder


def score_zero(cell: str, data: dict[str, torch.Tensor]) -> dict[str, float]:
    """The network of the benchmark, 16 channels and 5 cells per stage at 32 px, untrained."""
    started = time.process_time()
    fresh = network(cell, 16, 5, 32)
    edges = parse_genotype(cell).edges
    found = {
        "parameters": 9 * edges.count("nor_conv_3x3") + edges.count("nor_conv_1x1"),
        "synflow": synflow(fresh, (32, 32)),
        "naswot": naswot(fresh, data["plain"]),
        "contrastive_gradient": contrastive_gradient(network(cell, 8, 1, SIDE), data["views"][0], TEMPERATURE),
    }
    return found | {"zero_s": time.process_time() - started}


def score_short(cell: str, data: dict[str, torch.Tensor]) -> dict[str, float]:
    """8 channels, one cell per stage, 16 px, trained for `STEPS` steps: contrastively, and with labels as a control."""
    started = time.process_time()
    short = short_contrastive(network(cell, 8, 1, SIDE), data["views"], data["unseen"], TEMPERATURE)
    short["s"] = time.process_time() - started
    control = short_supervised(
        network(cell, 8, 1, SIDE), data["views"], data["labels"], data["unseen"], data["unseen_labels"]
    )
    return {f"ssl_{k}": v for k, v in short.items()} | {f"label_{k}": v for k, v in control.items()}


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
    path = Path(options.results) / f"nasbench201_{options.what}.jsonl"
    done = {r["cell"] for r in read_scores(path)}
    data = batches(options.images)
    compute = {"zero": score_zero, "short": score_short}[options.what]
    for number, (cell, group) in enumerate(wanted):
        if cell in done:
            continue
        found = compute(cell, data)
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
    """Print Markdown tables: of the whole table's cells and of its best tenth, for the three data sets."""
    cells, accuracies = read_table()
    truth_of = dict(zip(cells, accuracies, strict=True))
    zero, short = (read_scores(Path(options.results) / f"nasbench201_{what}.jsonl") for what in ("zero", "short"))
    trained = {r["cell"]: r for r in short}
    both = [{**r, **trained[r["cell"]]} for r in zero if r["cell"] in trained]
    for group, title in (("random", "random cells of the whole table"), ("top", "cells of the best tenth, CIFAR-10")):
        for records, kind in ((zero, "untrained networks"), (both, "with short trainings")):
            rows = [r for r in records if r["group"] == group]
            if len(rows) >= 10:
                print(f"\n### {len(rows)} {title}: {kind}\n")
                _table(
                    rows, np.array([truth_of[r["cell"]] for r in rows]), choose=group == "random" and records is both
                )
    zero_s, ssl_s = np.mean([r["zero_s"] for r in zero]), np.mean([r["ssl_s"] for r in both])
    print(f"\nProcessor time a cell: untrained {zero_s:.1f} s, short contrastive training {ssl_s:.1f} s.")


def _table(rows: list[dict], truth: np.ndarray, choose: bool) -> None:
    """One line per score."""
    names = [k for k in rows[0] if k not in ("cell", "group") and not k.endswith("_s")]
    table = {k: _finite(np.array([r[k] for r in rows], float)) for k in names}
    table["synflow + naswot"] = combined(table, ("synflow", "naswot"))
    chosen = []
    if set(PARTS) <= set(table):
        table["all parts"] = combined(table, PARTS)
        if choose:
            half = np.random.default_rng(SEED + 2).permutation(len(rows)) % 2 == 1
            table["chosen"], chosen = chosen_across(table, truth[:, 0], half)
    print("| score | C10 rho | C10 tau | C100 rho | ImageNet16-120 rho |\n|---|---|---|---|---|")
    for name, score in table.items():
        c10, c100, im = (rank_correlation(score, truth[:, t]) for t in range(3))
        cell = "{0[0]:.2f} [{0[1]:.2f}, {0[2]:.2f}]".format
        print(f"| {name} | {cell(c10.spearman)} | {cell(c10.kendall)} | {cell(c100.spearman)} | {cell(im.spearman)} |")
    if chosen:
        print("\nChosen on one half, tested on the other: " + "; ".join(" + ".join(c) for c in chosen) + ".")


def _finite(values: np.ndarray) -> np.ndarray:
    """NaN (a training that diverged) ranks last."""
    return np.where(np.isnan(values), -np.inf, values)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["zero", "short", "report"])
    parser.add_argument("--results", default=str(RESULTS), help="folder of the scores")
    parser.add_argument("--images", default=str(ROOT / "data" / "cifar10"))
    parser.add_argument("--random", type=int, default=120)
    parser.add_argument("--top", type=int, default=40)
    parser.add_argument("--part", type=int, default=0, help="this process's share, 0-based")
    parser.add_argument("--parts", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    (report if options.what == "report" else score)(options)


if __name__ == "__main__":
    main()
