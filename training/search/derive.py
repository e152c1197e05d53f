"""The two cell spaces, and from architecture parameters to a genotype."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.architectures.genotype import DARTS_OPS, NB201_EDGES, NB201_OPS, NODES, DartsGenotype, NB201Genotype


@dataclass(frozen=True)
class Space:
    """A cell space: `ops` per edge; `edges` (to, from); `cells`, each with its own table of parameters."""

    name: str
    ops: tuple[str, ...]
    edges: tuple[tuple[int, int], ...]
    cells: tuple[str, ...]

    def size(self, edge_normalisation: bool) -> int:
        """How many architecture parameters there are."""
        return len(self.cells) * len(self.edges) * (len(self.ops) + edge_normalisation)

    def split(self, alpha: Tensor, edge_normalisation: bool) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The vector -> cell name to operation logits `(edges, ops)`, and to edge logits `(edges,)` (empty without
        edge normalisation)."""
        count, ops = len(self.edges), len(self.ops)
        parts = alpha.view(len(self.cells), -1)
        logits = {cell: parts[i, : count * ops].view(count, ops) for i, cell in enumerate(self.cells)}
        edges = {cell: parts[i, count * ops :] for i, cell in enumerate(self.cells)} if edge_normalisation else {}
        return logits, edges

    def weights(self, alpha: Tensor, edge_normalisation: bool) -> dict[str, Tensor]:
        """Cell name -> mixing weights `(edges, ops)`: softmax over operations, times softmax over a node's edges."""
        logits, edges = self.split(alpha, edge_normalisation)
        out = {cell: table.softmax(dim=1) for cell, table in logits.items()}
        for cell, values in edges.items():
            shares = torch.empty_like(values)
            for node in sorted({to for to, _ in self.edges}):
                rows = [e for e, (to, _) in enumerate(self.edges) if to == node]
                shares = shares.index_copy(0, torch.tensor(rows, device=values.device), values[rows].softmax(0))
            out[cell] = out[cell] * shares[:, None]
        return out


SPACES = {
    "darts": Space(
        "darts",
        DARTS_OPS,
        tuple((node + 2, source) for node in range(NODES) for source in range(node + 2)),
        ("normal", "reduce"),
    ),
    "nb201": Space("nb201", NB201_OPS, NB201_EDGES, ("cell",)),
}


def derive(space: Space, weights: dict[str, Tensor], skip_cap: int | None = None) -> DartsGenotype | NB201Genotype:
    """The discrete cell: DARTS, arXiv 1806.09055, section 2.4.

    DARTS keeps, per node, the two edges whose best operation weighs most; NAS-Bench-201 keeps every edge's best.
    `none` is never chosen.

    Args:
        weights: cell name -> `(edges, ops)` mixing weights.
        skip_cap: at most this many skip connections in the normal (or only) cell; the lightest give way to the
            next best operation (P-DARTS, arXiv 1904.12760, section 3.3).
    """
    tables = {cell: table.detach().double().cpu().clone() for cell, table in weights.items()}
    none, skip = space.ops.index("none"), space.ops.index("skip_connect")
    for table in tables.values():
        table[:, none] = -1.0
    capped = tables[space.cells[0]]
    while True:
        chosen = {cell: _choose(space, table) for cell, table in tables.items()}
        skips = [edge for edge, op in chosen[space.cells[0]] if op == skip]
        if skip_cap is None or len(skips) <= skip_cap:
            break
        lightest = min(skips, key=lambda edge: float(capped[edge, skip]))
        capped[lightest, skip] = -1.0
    if space.name == "nb201":
        return NB201Genotype(edges=tuple(space.ops[op] for _, op in chosen["cell"]))
    pairs = {
        cell: tuple((space.ops[op], space.edges[edge][1]) for edge, op in picked) for cell, picked in chosen.items()
    }
    return DartsGenotype(normal=pairs["normal"], reduce=pairs["reduce"])


def _choose(space: Space, table: Tensor) -> list[tuple[int, int]]:
    """(edge, operation) of the kept edges, by node and then by input."""
    strength, best = table.max(dim=1)
    if space.name == "nb201":
        return [(edge, int(best[edge])) for edge in range(len(space.edges))]
    kept = []
    for node in range(2, NODES + 2):
        rows = [e for e, (to, _) in enumerate(space.edges) if to == node]
        kept += sorted(sorted(rows, key=lambda e: -float(strength[e]))[:2])
    return [(edge, int(best[edge])) for edge in kept]


def entropy(space: Space, alpha: Tensor, edge_normalisation: bool = False) -> Tensor:
    """Mean entropy of the softmax over operations, over log(number of operations), a scalar: 1 undecided, 0 decided."""
    logits, _ = space.split(alpha.detach().float(), edge_normalisation)
    p = torch.cat(list(logits.values())).softmax(dim=1)
    return -(p * p.clamp_min(1e-30).log()).sum(1).mean() / math.log(len(space.ops))


def skips(genotype: DartsGenotype | NB201Genotype) -> int:
    """Skip connections of the normal (or only) cell."""
    ops = genotype.edges if isinstance(genotype, NB201Genotype) else [op for op, _ in genotype.normal]
    return list(ops).count("skip_connect")
