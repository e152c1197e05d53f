"""Is the searched cell better than a random one? Cells retrained by SimCLR at matched parameters, probed linearly.

    python -m benchmarks.claims.ssnas data=data/cifar10 --out runs/ssnas_claim

Arms: random cells; every edge a 3x3 convolution; every edge a separable one (DARTS space); the cell of the published
`ssnas_cell_cifar10`; the cells that short searches find by NT-Xent, by labels, and by labels drawn at random, with the
same budget (`benchmarks.nas.ssnas_switches`, whose folder OUT/searches is). Each network gets the width that brings its
parameters nearest to one number for all, chosen where the given cells miss it least; then `simclr_cell_cifar10_cpu`
trains it, and its last epoch is judged by logreg-v3 and knn-v2: fitted on part of train, tested on the test split. No
setting is chosen on test. Intervals are of Student's t over cells (random, searched) or over training seeds (named).
Killed, the same command goes on; the order is such that a run cut short has some of every arm that needs no search.
Writes OUT/results.json and OUT/report.md.
"""

from __future__ import annotations

import argparse
import functools
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.nas.ranking import rank_correlation
from benchmarks.nas.ssnas_switches import accuracy_table, kept_cost, search, timed
from benchmarks.records import publish
from evaluation.evaluate import evaluate
from evaluation.floors import untrained
from evaluation.metrics import interval, unpaired
from training.environment import code_commit, hardware
from training.recipe import read_recipe
from training.run import train
from zoo.architectures import build
from zoo.architectures.genotype import NB201_OPS, DartsGenotype, NB201Genotype, genotype_hash, parse_genotype
from zoo.checkpoint.catalog import config as published_config
from zoo.checkpoint.loading import load
from zoo.data.addresses import open_dataset
from zoo.encoder import Encoder
from zoo.errors import ZooError
from zoo.files import write_text
from zoo.preprocessing.image import ImageInput
from zoo.strict import Architecture

RECIPE, PUBLISHED = "simclr_cell_cifar10_cpu", "ssnas_cell_cifar10"
#: Widths C that a network may take, and the parameters that all are brought near to, as a range.
WIDTHS, TARGETS = range(6, 25), range(70_000, 100_000, 500)
#: Cells that DARTS networks stack.
DARTS_DEPTHS = (3, 4, 5, 6, 7, 8)
SEARCHED = ("contrastive", "labels", "random labels")
_SEP = tuple(("sep_conv_3x3", source) for _ in range(4) for source in (0, 1))
ALL_SEP = DartsGenotype(normal=_SEP, reduce=_SEP)


def random_cells(count: int, seed: int = 0) -> list[NB201Genotype]:
    """Distinct cells, each operation drawn uniformly; cells that cut the output off from the input are drawn anew."""
    generator, out = np.random.default_rng(seed), []
    while len(out) < count:
        cell = NB201Genotype(edges=tuple(NB201_OPS[i] for i in generator.integers(0, len(NB201_OPS), 6)))
        if connected(cell) and cell not in out:
            out.append(cell)
    return out


def connected(cell: NB201Genotype) -> bool:
    """Whether anything passes from the input to the output."""
    a, b, c, d, e, f = (op != "none" for op in cell.edges)  # 0-1, 0-2, 1-2, 0-3, 1-3, 2-3
    return d or (a and e) or ((b or (a and c)) and f)


def parameters(genotype: NB201Genotype | DartsGenotype, width: int, depth: int) -> int:
    """Parameters of the network, counted without allocating it."""
    arguments = {"genotype": genotype, "width": width, "depth": depth}
    with torch.device("meta"):
        network = build(Architecture(family="cell_network", arguments=arguments), ImageInput(size=(16, 16)))
    return sum(p.numel() for p in network.parameters())


def sizes(genotype: NB201Genotype | DartsGenotype) -> dict[tuple[int, int], int]:
    """(width, depth) -> parameters, of all networks that a cell may become."""
    return _sizes(genotype.text())


@functools.cache
def _sizes(text: str) -> dict[tuple[int, int], int]:
    genotype = parse_genotype(text)
    if isinstance(genotype, NB201Genotype):
        return {(width, 1): parameters(genotype, width, 1) for width in WIDTHS}
    return {(width, depth): parameters(genotype, width, depth) for depth in DARTS_DEPTHS for width in range(8, 25, 2)}


def nearest(known: dict[tuple[int, int], int], target: int) -> tuple[int, int]:
    """The width and depth whose parameters miss `target` least."""
    return min(known, key=lambda size: abs(known[size] - target))


def common_target(cells: Sequence[NB201Genotype | DartsGenotype]) -> int:
    """The number of parameters that all cells come nearest to: the smallest worst miss."""
    tables = [sizes(cell) for cell in cells]
    worst = {t: max(abs(known[nearest(known, t)] / t - 1) for known in tables) for t in TARGETS}
    return min(worst, key=worst.__getitem__)


def retrained(
    genotype: NB201Genotype | DartsGenotype, size: tuple[int, int], seed: int, options: argparse.Namespace
) -> dict:
    """Accuracies of the cell's network trained with `seed`; kept beside the run, which is trained at most once."""
    folder = options.out / "cells" / f"{genotype_hash(genotype)}_{size[0]}x{size[1]}_seed{seed}"
    path = folder / "judged.json"
    if not path.exists():
        given = [f"encoder.width={size[0]}", f"encoder.depth={size[1]}", f"seed={seed}", *options.overrides]
        given += options.retrain
        if not (folder / "encoder" / "config.json").exists():
            bare = genotype.model_copy(update={"search": {}})
            with timed(folder):
                if not train(RECIPE, [f"encoder.genotype={bare.text()}", *given], out=folder).finished:
                    sys.exit(1)
        scores = judge(load(f"local-dir:{folder / 'encoder'}"), folder, options)
        write_text(path, json.dumps({**scores, **kept_cost(folder)}) + "\n")
    floor = folder / "untrained.json"
    if not floor.exists():
        network = untrained(load(f"local-dir:{folder / 'encoder'}"), seed)
        write_text(floor, json.dumps({"untrained": judge(network, folder, options)["logreg-v3"]}) + "\n")
    return json.loads(path.read_text()) | json.loads(floor.read_text())


def judge(encoder: Encoder, folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """Top-1 on test by protocol, per cent; fitted on the data that the run in `folder` trained on."""
    data = read_recipe(str(folder / "recipe.yaml")).data
    fit, test = (open_dataset(data.dataset, split, root=data.root) for split in (data.split, "test"))
    found = evaluate(encoder, fit, test, protocols=["logreg", "knn"], floors=False, limit=options.probe)
    return {row.protocol: 100 * row.metrics["top1"].value for row in found.rows}


def collect(options: argparse.Namespace) -> tuple[list[dict], int]:
    """One record per retrained network, written to OUT/results.json after each."""
    found = parse_genotype(published_config(PUBLISHED).architecture.arguments["genotype"])
    conv = parse_genotype("nb201_all_conv3x3")
    random = random_cells(options.random)
    target = common_target([*random, conv, found, ALL_SEP])
    named = [("all 3x3 convolutions", conv), ("published cell", found)]
    jobs = [("random cells", cell, 0) for cell in random]
    jobs[2:2] = [(arm, cell, 0) for arm, cell in named]
    jobs += [(arm, cell, seed) for seed in range(1, options.trainings) for arm, cell in named]
    jobs += [("all separable 3x3 (DARTS space)", ALL_SEP, seed) for seed in range(options.separable)]
    truth = accuracy_table()
    records: list[dict] = []

    def run(arm: str, cell: NB201Genotype | DartsGenotype, seed: int, search_seed: int | None = None) -> None:
        known = sizes(cell)
        size = nearest(known, target)
        record = {"arm": arm, "cell": cell.text(), "search_seed": search_seed, "seed": seed, "width": size[0]}
        record |= {"depth": size[1], "parameters": known[size], **retrained(cell, size, seed, options)}
        if isinstance(cell, NB201Genotype):
            record |= {"parameters_at_width_16": parameters(cell, 16, 5), "nasbench201_cifar10": truth[cell.text()][0]}
        records.append(record)
        print(f"{arm}, seed {seed}: {record['logreg-v3']:.2f} {record['cell']}", flush=True)
        told = {"command": shlex.join(["python", "-m", "benchmarks.claims.ssnas", *options.given])}
        told |= {"code_commit": code_commit(), "hardware": hardware(), "target_parameters": target}
        write_text(options.out / "results.json", json.dumps(told | {"records": records}, indent=1) + "\n")

    for arm, cell, seed in jobs:
        run(arm, cell, seed)
    for seed in range(options.searches):
        for objective in SEARCHED:
            # The same initial weights' seed for all: what differs is the cell.
            cell = search(objective, seed, options.overrides, options.out / "searches")
            run(f"searched by {objective}", cell, 0, seed)
    return records, target


def report(records: list[dict], target: int) -> str:
    """Markdown: the arms, their differences from random cells, and what predicts the accuracy of a cell."""
    arms = {arm: [r for r in records if r["arm"] == arm] for arm in dict.fromkeys(r["arm"] for r in records)}
    lines = [
        "| arm | cells | networks | parameters | logreg-v3 | minus random | untrained, logreg-v3 | knn-v2 | "
        "NAS-Bench-201, C10 |",
        "|---|---:|---:|---:|---|---|---|---|---:|",
    ]
    for arm, rows in arms.items():
        counts = [r["parameters"] for r in rows]
        logreg, knn, floor = ([r[k] for r in rows] for k in ("logreg-v3", "knn-v2", "untrained"))
        known = [r["nasbench201_cifar10"] for r in rows if "nasbench201_cifar10" in r]
        against = "–"
        if arm != "random cells" and "random cells" in arms:
            d = unpaired(logreg, [r["logreg-v3"] for r in arms["random cells"]])
            against = f"{d.mean:+.2f}" + ("" if d.low is None else f" [{d.low:+.2f}, {d.high:+.2f}]")
        span = f"{min(counts):,}" if min(counts) == max(counts) else f"{min(counts):,} to {max(counts):,}"
        lines.append(
            f"| {arm} | {len({r['cell'] for r in rows})} | {len(rows)} | {span} | {interval(logreg).text()} | "
            f"{against} | {interval(floor).text()} | {interval(knn).text()} | "
            f"{f'{np.mean(known):.2f}' if known else '–'} |"
        )
    worst = max(abs(r["parameters"] / target - 1) for r in records)
    lines += ["", f"All parameters lie within {100 * worst:.1f} % of {target:,}."]
    cells = {r["cell"]: r for r in records if "nasbench201_cifar10" in r and r["seed"] == 0}
    if len(cells) >= 5:
        accuracy = np.array([r["logreg-v3"] for r in cells.values()])
        lines += [
            "",
            f"What orders the {len(cells)} distinct cells by logreg-v3 (Spearman, 95 % bootstrap over cells):",
            "",
        ]
        for key, told in (
            ("parameters_at_width_16", "parameters at equal width (the proxy)"),
            ("parameters", "what is left of differences in parameters after matching"),
            ("untrained", "accuracy of the same network untrained"),
            ("nasbench201_cifar10", "accuracy in NAS-Bench-201, trained with labels at equal width"),
        ):
            rho = rank_correlation(np.array([r[key] for r in cells.values()], float), accuracy).spearman
            lines.append(f"- {told}: {rho[0]:+.2f} [{rho[1]:+.2f}, {rho[2]:+.2f}]")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Train what is missing, judge, print. Exit status as `python -m training`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="of both recipes, as in data=data/cifar10")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--retrain", nargs="*", default=[], metavar="key=value", help="of the retraining alone")
    parser.add_argument("--random", type=int, default=8, help="random cells")
    parser.add_argument("--trainings", type=int, default=3, help="training seeds of the named cells")
    parser.add_argument("--searches", type=int, default=4, help="search seeds of each objective")
    parser.add_argument("--separable", type=int, default=1, help="training seeds of the slow separable network")
    parser.add_argument("--probe", type=int, default=4000, help="samples that the probes see of each split")
    parser.add_argument("--report", action="store_true", help="print the tables of OUT/results.json; train nothing")
    parser.add_argument("--records", action="store_true", help="also renew the section of RECORDS.md")
    options = parser.parse_intermixed_args(arguments)
    options.given = sys.argv[1:] if arguments is None else list(arguments)
    torch.set_num_threads(1)
    try:
        if options.report:
            kept = json.loads((options.out / "results.json").read_text(encoding="utf-8"))
            records, target = kept["records"], kept["target_parameters"]
        else:
            read_recipe(RECIPE, [*options.overrides, *options.retrain])
            options.out.mkdir(parents=True, exist_ok=True)
            records, target = collect(options)
    except (ZooError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    publish(report(records, target), options.out, "ssnas-claim" if options.records else None)
    return 0


if __name__ == "__main__":
    sys.exit(main())
