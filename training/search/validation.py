"""What a search measures on half B apart from its steps: the curvature of the loss, and the cost of removals."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from training import distributed
from training.methods.base import Run
from training.search.curvature import largest_eigenvalue
from training.search.perturbation import select_by_perturbation

if TYPE_CHECKING:
    from training.methods.ssnas import SSNAS


@torch.no_grad()
def validation_views(method: SSNAS, run: Run, count: int) -> list[list[Tensor]]:
    """What `method.views` makes of the first `count` batches of half B: the same ones whenever it is asked."""
    out = []
    for number, batch in enumerate(run.first_batches(1, count)):
        seed = number * run.recipe.batch_size + distributed.rank()
        generator = torch.Generator(method.encoder.alpha.device).manual_seed(seed)
        doubled = {name: torch.cat([value, value]) for name, value in batch.items()}
        out.append(method.views(doubled, generator)["b"])
    return out


def curvature(method: SSNAS, run: Run, epoch: int) -> float:
    """Largest eigenvalue of the Hessian by alpha of the objective on the first batch of half B."""
    (views,) = validation_views(method, run, 1)

    def loss(alpha: Tensor) -> Tensor:  # without autocast: bf16 would drown the second derivative
        with method.encoder.architecture(alpha):
            return method.objective(views)["loss"]

    with torch.enable_grad():
        return largest_eigenvalue(loss, method.encoder.alpha, torch.Generator().manual_seed(epoch))


@torch.no_grad()
def selected_alpha(method: SSNAS, run: Run) -> Tensor:
    """alpha, or what the selection by perturbation makes of it, as `method.config.selection` asks."""
    encoder = method.encoder
    if method.config.selection == "alpha":
        return encoder.alpha
    batches = validation_views(method, run, method.config.selection_batches)
    method.train()  # batch statistics, as in the search

    def loss(alpha: Tensor) -> float:
        with run.autocast(), encoder.architecture(alpha):
            values = torch.stack([method.objective(views)["loss"].float() for views in batches])
        return float(distributed.all_reduce_mean(values.mean()))

    generator = torch.Generator().manual_seed(method.seed)
    return select_by_perturbation(encoder.space, encoder.alpha, encoder.edge_normalisation, loss, generator)
