"""Accuracy by the share of labels, from 1 to 100 per cent, of encoders beside their untrained networks.

    python -m benchmarks.claims.label_fractions data/cifar10 --encoders ssnas_cell_cifar10 simclr_airbench95_cifar10 \\
        --floors ssnas_cell_cifar10 --limit 4000 --out runs/label_fractions

Protocol few-label-v1 (frozen features, several draws of labels) for the shares, logreg-v3 for all labels. Each subject
is measured once and kept in OUT/NAME_SUBJECT.json. Writes OUT/report.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch

from benchmarks.records import publish
from evaluation.evaluate import evaluate
from evaluation.floors import untrained
from zoo.checkpoint.loading import load
from zoo.data.addresses import open_dataset
from zoo.errors import ZooError
from zoo.files import write_text

AMOUNTS = (0.01, 0.05, 0.1, 0.25, 0.5)
FLOOR = "untrained"


def curve(name: str, subject: str, options: argparse.Namespace) -> dict[str, list[float]]:
    """Share of labels -> top-1 and its interval, per cent."""
    path = options.out / f"{name.replace('/', '_')}_{subject}.json"
    if not path.exists():
        encoder = load(name)
        if subject == FLOOR:
            encoder = untrained(encoder)
        train, test = (open_dataset(options.dataset, split) for split in ("train", "test"))
        found = evaluate(
            encoder,
            train,
            test,
            protocols=["few_label", "logreg"],
            settings={"few_label": {"amounts": options.amounts}},
            floors=False,
            limit=options.limit,
        )
        rows = {str(row.settings.get("labels", "100 %")): row.metrics["top1"] for row in found.rows}
        kept = {share: [100 * v for v in (m.value, m.low, m.high)] for share, m in rows.items()}
        write_text(path, json.dumps(kept) + "\n")
    return json.loads(path.read_text())


def report(curves: dict[str, dict[str, list[float]]]) -> str:
    """Markdown: one line per share, one column per subject."""
    shares = list(next(iter(curves.values())))
    lines = ["| labels | " + " | ".join(curves) + " |", "|---|" + "---|" * len(curves)]
    for share in shares:
        cells = ["{:.1f} [{:.1f}, {:.1f}]".format(*points[share]) for points in curves.values()]
        lines.append(f"| {share} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Measure what is missing, print the table. Exit status: 0 done, 2 bad input."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("--encoders", nargs="+", required=True)
    parser.add_argument("--floors", nargs="*", default=[], help="encoders whose untrained network is measured too")
    parser.add_argument("--amounts", type=float, nargs="+", default=list(AMOUNTS), help="shares of each class")
    parser.add_argument("--limit", type=int, help="at most this many samples a split, stratified")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--records", help="also renew this section of RECORDS.md")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        curves = {name: curve(name, "encoder", options) for name in options.encoders}
        curves |= {f"{name}, {FLOOR}": curve(name, FLOOR, options) for name in options.floors}
    except ZooError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    publish(report(curves), options.out, options.records)
    return 0


if __name__ == "__main__":
    sys.exit(main())
