"""The settings of a search, beside those of the contrastive loss that it uses."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from training.methods.base import Context
from training.search.supernet import Supernet
from zoo.encoder import Encoder
from zoo.errors import ConfigError
from zoo.strict import Strict


class SearchSettings(Strict):
    """What moves the architecture parameters alpha, when the search ends, and how the cell is chosen."""

    objective: Literal["contrastive", "labels", "random_labels"] = Field(
        default="contrastive",
        description="What moves the weights w and alpha: NT-Xent or, as controls, cross-entropy with the true labels "
        "or with labels drawn at random once (RLNAS, arXiv 2101.11834). All else is the same.",
    )
    order: Literal[1, 2] = Field(
        default=1, description="1, or 2 to differentiate through one step of w (DARTS, arXiv 1806.09055, section 2.3)."
    )
    alpha_lr: float = Field(default=3e-4, gt=0, description="Learning rate of alpha's Adam.")
    alpha_betas: tuple[float, float] = Field(default=(0.5, 0.999), description="Betas of alpha's Adam.")
    alpha_weight_decay: float = Field(default=1e-3, ge=0, description="L2 decay of alpha's Adam.")
    alpha_delay: float = Field(
        default=0.0, ge=0, lt=1, description="Fraction of the search in which alpha stands still."
    )
    beta_regularisation: float = Field(
        default=0.0,
        ge=0,
        description="Final weight of the mean logsumexp of alpha over edges, which rises from 0 (beta-DARTS, "
        "arXiv 2203.01665).",
    )
    skip_cap: int | None = Field(
        default=None, ge=0, description="At most this many skip connections in the derived normal cell."
    )
    early_stop_skips: int | None = Field(
        default=None,
        ge=1,
        description="End once the normal cell, not capped, holds this many skip connections, and return the "
        "architecture of the epoch before (DARTS+, arXiv 1909.06035).",
    )
    early_stop_curvature: float | None = Field(
        default=None,
        gt=1,
        description="End once the largest eigenvalue of the Hessian by alpha, averaged over curvature_window epochs, "
        "exceeds this many times its mean curvature_window - 1 epochs earlier, and return the architecture of that "
        "epoch (arXiv 1909.09656, which takes 1.3 and 5).",
    )
    curvature_window: int = Field(default=5, ge=2, description="Epochs over which the curvature is averaged.")
    selection: Literal["alpha", "perturbation"] = Field(
        default="alpha",
        description="Choose operations by alpha, or by what the removal of each costs (DARTS-PT, arXiv 2108.04392).",
    )
    selection_batches: int = Field(
        default=4, ge=1, description="Batches of half B on which the cost of a removal is measured."
    )


def check_search(encoder: Encoder, config: SearchSettings, context: Context) -> None:
    """Refuse what a search cannot do. Raises ConfigError."""
    if not isinstance(encoder, Supernet):
        raise ConfigError(
            "method ssnas searches a supernet; set encoder.family=cell_supernet (a found genotype is trained by "
            "another method, as in method=simclr encoder.genotype=FILE.json)"
        )
    if config.objective != "contrastive" and context.classes is None:
        raise ConfigError(f"method.objective={config.objective} trains with labels, but the data has none")
    if context.accumulate != 1:
        raise ConfigError("method ssnas takes accumulate=1: one pass on each half is one step")
    if config.order == 2 and context.optimizer != "sgd":
        raise ConfigError("method.order=2 looks ahead by a step of SGD; set optim.name=sgd or method.order=1")
    if config.early_stop_curvature is not None and context.processes > 1:
        raise ConfigError("method.early_stop_curvature differentiates twice, which takes one process")
