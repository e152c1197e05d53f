"""Which operation to keep by what its removal costs: Wang et al., 2021, arXiv 2108.04392 (DARTS-PT).

An operation's architecture parameter need not tell its strength; the rise of the supernet's validation loss without it
does. Here the loss is the search's own, contrastive or not. Nothing is trained between two decisions.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from training.search.derive import Space
from zoo.architectures.genotype import NODES

#: What a chosen operation's logit is raised by: the others keep their order at a weight of 1e-13 and less.
DECIDED = 30.0


def select_by_perturbation(
    space: Space, alpha: Tensor, edge_normalisation: bool, loss: Callable[[Tensor], float], generator: torch.Generator
) -> Tensor:
    """Architecture parameters with one decided operation per edge, whose derivation is the selected cell.

    Edges are decided in random order: the operation whose removal (its weight shared by the others) raises the loss
    most stays alone. In the DARTS space each node then keeps the two inputs that it misses most. `none` is never kept.

    Args:
        loss: architecture parameters -> validation loss, always on the same batches and views.
    """
    alpha = alpha.detach().clone()
    tables, _ = space.split(alpha, edge_normalisation)  # views into alpha
    none = space.ops.index("none")
    everywhere = [(cell, edge) for cell in space.cells for edge in range(len(space.edges))]
    for position in torch.randperm(len(everywhere), generator=generator).tolist():
        row = tables[everywhere[position][0]][everywhere[position][1]]
        kept, costs = row.clone(), {}
        for op in range(len(space.ops)):
            if op != none:
                row[op] = -torch.inf
                costs[op] = loss(alpha)
                row.copy_(kept)
        row[max(costs, key=costs.__getitem__)] = float(kept.max()) + DECIDED
    if space.name == "darts":
        for cell in space.cells:
            for node in range(2, NODES + 2):
                _keep_two(tables[cell], [e for e, (to, _) in enumerate(space.edges) if to == node], none, alpha, loss)
    return alpha


def _keep_two(table: Tensor, edges: list[int], none: int, alpha: Tensor, loss: Callable[[Tensor], float]) -> None:
    costs = {}
    for edge in edges:
        kept = table[edge].clone()
        table[edge, none] = float(kept.max()) + DECIDED
        costs[edge] = loss(alpha)
        table[edge] = kept
    for edge in sorted(costs, key=costs.__getitem__)[: len(edges) - 2]:
        table[edge, none] = float(table[edge].max()) + DECIDED
