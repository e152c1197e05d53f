"""Label-free search in NAS-Bench-201 by scores of untrained networks, and what those scores are worth.

    python -m benchmarks.nas.nasbench201_search --out runs/nasbench201_search

Each seed draws `--pool` cells, scores all by logarithmic synaptic flow, keeps the best tenth, and takes the cell with
the best mean rank of that score and of rank growth (`training.search.zero_cost`) among them. Only then is the table
read. Beside it, from the same pool: a random cell (expected value), the most parameters, each part alone, and the best
cell there is. The two parts were chosen by their correlation with the table on 600 cells (`explored`). Those cells are
in no pool and in no table here: `--fresh` others, and as many of the best tenth, say what the score is worth. Images
are CIFAR-10's, without labels. Killed, the same command goes on. Writes OUT/scores.jsonl and OUT/report.md.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.nas.nasbench201 import ROOT, TASKS, batches, draw, network, read_scores, read_table
from benchmarks.nas.ranking import rank_correlation, rank_of
from benchmarks.records import publish
from evaluation.metrics import interval
from training.search.zero_cost import log_synflow, naswot, rank_growth, synflow
from zoo.architectures.genotype import parse_genotype

#: Share of a pool that the first score keeps.
KEPT = 0.1
ALL_CONV = parse_genotype("nb201_all_conv3x3").text()
TITLES = {
    "parameters": "parameters", "synflow": "synaptic flow", "naswot": "activation patterns",
    "log_synflow": "log synaptic flow", "rank_growth": "rank growth",
}  # fmt: skip
BOTH = ("log_synflow", "rank_growth")


def explored(cells: list[str], truth: np.ndarray) -> set[str]:
    """The cells on which scores were tried out: in `nasbench201.py`, 240 random and 200 good ones."""
    order, limit = np.random.default_rng(77).permutation(len(cells)), np.quantile(truth[:, 0], 0.9)
    seen = {cells[i] for i in order[:240]}
    seen |= {cells[i] for i in [i for i in order[240:] if truth[i, 0] >= limit][:200]}
    return seen | {cell for cell, _ in draw(cells, truth, 120, 40)}


class Scores:
    """Scores by cell and name, each computed once and kept in a file."""

    def __init__(self, path: Path, images: torch.Tensor) -> None:
        self.path, self.images = path, images
        self.known: dict[str, dict[str, float]] = {}
        for record in read_scores(path):
            self.known.setdefault(record.pop("cell"), {}).update(record)

    def get(self, cell: str, name: str) -> float:
        """The score; a network that passes nothing has -inf."""
        kept = self.known.setdefault(cell, {})
        if name not in kept:
            started = time.process_time()
            value = float(f"{self._compute(cell, name):.6g}")
            kept |= {name: value, f"{name}_s": round(time.process_time() - started, 4)}
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps({"cell": cell, name: value, f"{name}_s": kept[f"{name}_s"]}) + "\n")
        return kept[name]

    def _compute(self, cell: str, name: str) -> float:
        edges = parse_genotype(cell).edges
        if name == "parameters":
            return 9 * edges.count("nor_conv_3x3") + edges.count("nor_conv_1x1")
        if name == "rank_growth":  # needs the benchmark's own depth
            return rank_growth(network(cell, 16, 5, 16), self.images)
        net = network(cell, 16, 1, 16)
        if name == "naswot":
            return naswot(net, self.images)
        return {"synflow": synflow, "log_synflow": log_synflow}[name](net, (8, 8))

    def column(self, cells: list[str], name: str) -> np.ndarray:
        """`(cells,)`."""
        return np.array([self.get(cell, name) for cell in cells])

    def seconds(self, name: str) -> float:
        """Mean processor time of one score."""
        return float(np.mean([kept[f"{name}_s"] for kept in self.known.values() if f"{name}_s" in kept]))


def chosen(pool: list[str], scores: Scores) -> dict[str, str]:
    """Arm -> the cell that it takes of the pool. No accuracy is known here."""
    first = scores.column(pool, "log_synflow")
    kept = [pool[i] for i in np.argsort(-first, kind="stable")[: max(2, round(KEPT * len(pool)))]]
    ranks = {name: rank_of(scores.column(kept, name)) for name in (*BOTH, "naswot")}
    flow = ranks["log_synflow"]
    return {
        "log synaptic flow + rank growth": kept[int(np.argmax(flow + ranks["rank_growth"]))],
        "log synaptic flow": kept[int(np.argmax(flow))],
        "rank growth of the kept tenth": kept[int(np.argmax(ranks["rank_growth"]))],
        "log synaptic flow + activation patterns": kept[int(np.argmax(flow + ranks["naswot"]))],
    }


def searches(options: argparse.Namespace, scores: Scores, free: list[str], truth: dict) -> str:
    """Markdown: what each arm finds, mean over seeds."""
    found: dict[str, list[np.ndarray]] = {}
    cells: dict[str, list[str]] = {}
    for seed in range(options.seeds):
        picked = np.random.default_rng(1000 + seed).choice(len(free), min(options.pool, len(free)), replace=False)
        pool = [free[i] for i in picked]
        arms = chosen(pool, scores)
        accuracies = np.array([truth[cell] for cell in pool])
        parameters = scores.column(pool, "parameters")
        for arm, cell in arms.items():
            found.setdefault(arm, []).append(truth[cell])
            cells.setdefault(arm, []).append(cell)
        # Cells of equally many parameters are equally likely to be taken.
        found.setdefault("most parameters", []).append(accuracies[parameters == parameters.max()].mean(0))
        found.setdefault("random cell", []).append(accuracies.mean(0))
        found.setdefault("best of the pool on CIFAR-10", []).append(accuracies[accuracies[:, 0].argmax()])
        print(f"seed {seed}: " + "; ".join(f"{a} {truth[c][0]:.2f}" for a, c in arms.items()), flush=True)
    lines = ["| chosen by | seeds | C10 | C100 | ImageNet16-120 |", "|---|---:|---|---|---|"]
    for arm, rows in found.items():
        texts = [interval([row[task] for row in rows]).text() for task in range(3)]
        lines.append(f"| {arm} | {len(rows)} | {' | '.join(texts)} |")
    lines.append("| every edge a 3x3 convolution, no search | – | " + " | ".join(f"{v:.2f}" for v in truth[ALL_CONV]))
    lines[-1] += " |"
    first = next(iter(cells))
    lines += ["", f"Cells found by {first}:", "", *(f"- `{cell}` {truth[cell][0]:.2f}" for cell in cells[first])]
    return "\n".join(lines)


def worth(cells: list[str], scores: Scores, truth: dict) -> str:
    """Markdown: rank correlations with 95 % bootstrap intervals over cells."""
    accuracies = np.array([truth[cell] for cell in cells])
    columns = {title: scores.column(cells, name) for name, title in TITLES.items()}
    both = [rank_of(columns[TITLES[name]]) for name in BOTH]
    columns["log synaptic flow + rank growth"] = both[0] + both[1]
    lines = ["| score | C10 rho | C10 tau | C100 rho | ImageNet16-120 rho |", "|---|---|---|---|---|"]
    for title, values in columns.items():
        c10, c100, im = (rank_correlation(values, accuracies[:, t]) for t in range(len(TASKS)))
        cell = "{0[0]:.2f} [{0[1]:.2f}, {0[2]:.2f}]".format
        lines.append(
            f"| {title} | {cell(c10.spearman)} | {cell(c10.kendall)} | {cell(c100.spearman)} | {cell(im.spearman)} |"
        )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Score what is missing, choose, look up, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--images", default=str(ROOT / "data" / "cifar10"))
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--pool", type=int, default=1000, help="cells that a seed draws")
    parser.add_argument("--fresh", type=int, default=100, help="cells of each kind that judge the scores")
    parser.add_argument("--records", action="store_true", help="also renew the section of RECORDS.md")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    cells, accuracies = read_table()
    truth = dict(zip(cells, accuracies, strict=True))
    seen = explored(cells, accuracies)
    free = [cell for cell in cells if cell not in seen]
    images = F.interpolate(batches(options.images)["plain"][:32], 16, mode="area")
    scores = Scores(options.out / "scores.jsonl", images)
    parts = ["#### Found cells", searches(options, scores, free, truth)]
    order, limit = np.random.default_rng(2000).permutation(len(free)), np.quantile(accuracies[:, 0], 0.9)
    drawn = [free[i] for i in order[: options.fresh]]
    good = [free[i] for i in order[options.fresh :] if truth[free[i]][0] >= limit][: options.fresh]
    for title, group in (("random cells", drawn), ("cells of the best tenth on CIFAR-10", good)):
        parts += [f"#### {len(group)} {title}, none of them explored", worth(group, scores, truth)]
    costs = ", ".join(f"{TITLES[name]} {scores.seconds(name):.3f}" for name in (*BOTH, "naswot"))
    parts.append(f"Processor seconds a cell: {costs}.")
    publish("\n\n".join(parts), options.out, "nasbench201-search" if options.records else None)
    return 0


if __name__ == "__main__":
    sys.exit(main())
