"""Pictures of cells: states as boxes, operations as labelled arrows."""

from __future__ import annotations

import os
from pathlib import Path

from zoo.architectures.genotype import NB201_EDGES, DartsGenotype, NB201Genotype

#: (label, colour) of each operation.
_LOOKS = {
    "none": ("none", "#bbbbbb"),
    "skip_connect": ("skip", "#7f7f7f"),
    "max_pool_3x3": ("max 3x3", "#e08214"),
    "avg_pool_3x3": ("avg 3x3", "#c9a227"),
    "sep_conv_3x3": ("sep 3x3", "#2166ac"),
    "sep_conv_5x5": ("sep 5x5", "#4393c3"),
    "dil_conv_3x3": ("dil 3x3", "#1b7837"),
    "dil_conv_5x5": ("dil 5x5", "#5aae61"),
    "nor_conv_1x1": ("conv 1x1", "#4393c3"),
    "nor_conv_3x3": ("conv 3x3", "#2166ac"),
}


def draw_cell(genotype: DartsGenotype | NB201Genotype, path: Path, title: str = "") -> None:
    """Write a PNG of the cell, or of the normal and the reduction cell, at `path`; never half-written."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    panels = _panels(genotype)
    figure, axes = plt.subplots(len(panels), 1, figsize=(10, 4 * len(panels)), squeeze=False)
    for axis, (name, (positions, labels, edges)) in zip(axes.flat, panels.items(), strict=True):
        _panel(axis, positions, labels, edges)
        axis.set_title(name, loc="left", fontsize=11)
    figure.suptitle(title, fontsize=12)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp.png")
    figure.savefig(temporary, dpi=90)
    plt.close(figure)
    os.replace(temporary, path)


Panel = tuple[dict[int, tuple[float, float]], dict[int, str], list[tuple[int, int, str]]]


def _panels(genotype: DartsGenotype | NB201Genotype) -> dict[str, Panel]:
    if isinstance(genotype, NB201Genotype):
        positions = {0: (0.0, 0.0), 1: (1.0, 1.0), 2: (2.0, -1.0), 3: (3.0, 0.0)}
        labels = {0: "input", 1: "1", 2: "2", 3: "output"}
        return {
            "cell": (positions, labels, [(j, i, op) for op, (i, j) in zip(genotype.edges, NB201_EDGES, strict=True)])
        }
    positions = {
        0: (0.0, 1.0),
        1: (0.0, -1.0),
        2: (1.4, 1.9),
        3: (2.4, -1.9),
        4: (3.4, 0.8),
        5: (4.3, -0.8),
        6: (5.4, 0.0),
    }
    labels = {0: "c(k-2)", 1: "c(k-1)", 6: "output"} | {n: str(n - 2) for n in range(2, 6)}
    out = {}
    for name, pairs, concat in (
        ("normal", genotype.normal, genotype.normal_concat),
        ("reduction", genotype.reduce, genotype.reduce_concat),
    ):
        edges = [(source, 2 + k // 2, op) for k, (op, source) in enumerate(pairs)]
        out[name] = (positions, labels, edges + [(n, 6, "") for n in concat])
    return out


def _panel(axis, positions, labels, edges) -> None:
    for number, (source, target, op) in enumerate(edges):
        label, colour = _LOOKS.get(op, ("", "#dddddd"))
        (x0, y0), (x1, y1) = positions[source], positions[target]
        bend = 0.0 if not op else 0.12 * (1 if number % 2 else -1)
        style = {"arrowstyle": "-|>", "color": colour, "linewidth": 1.8 if op else 1.0, "shrinkA": 15, "shrinkB": 15}
        style["linestyle"] = ":" if op == "none" else "-"
        axis.annotate(
            "", xy=(x1, y1), xytext=(x0, y0), arrowprops={**style, "connectionstyle": f"arc3,rad={bend}"}, zorder=1
        )
        if label:
            at = 0.34 + 0.1 * (number % 3)  # nearer to the start, where arrows have not met yet
            x, y = x0 + at * (x1 - x0), y0 + at * (y1 - y0)
            x, y = x + 0.5 * bend * (y1 - y0), y - 0.5 * bend * (x1 - x0)
            box = {"boxstyle": "round,pad=0.15", "facecolor": "white", "edgecolor": "none", "alpha": 0.85}
            axis.text(x, y, label, color=colour, fontsize=9, ha="center", va="center", bbox=box, zorder=2)
    for state, (x, y) in positions.items():
        box = {"boxstyle": "round,pad=0.35", "facecolor": "#f2f2f2", "edgecolor": "#555555"}
        axis.text(x, y, labels[state], ha="center", va="center", fontsize=10, bbox=box, zorder=3)
    xs, ys = zip(*positions.values(), strict=True)
    axis.set_xlim(min(xs) - 0.5, max(xs) + 0.5)
    axis.set_ylim(min(ys) - 0.6, max(ys) + 0.6)
    axis.axis("off")
