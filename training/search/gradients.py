"""Gradients by the architecture parameters of a supernet, which are a buffer and never moved by the weights' optimizer.

DARTS, arXiv 1806.09055, section 2.3; the spread of beta-DARTS, arXiv 2203.01665.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from training import distributed
from training.search.supernet import Supernet
from zoo.errors import TrainingError

Autocast = Callable[[], contextlib.AbstractContextManager]


def by_alpha(
    encoder: Supernet, loss: Callable[[], Tensor], autocast: Autocast, weights: Sequence[Tensor] = ()
) -> list[Tensor]:
    """Gradients of `loss()` by alpha and by each of `weights`; alpha itself stays as it is."""
    alpha = encoder.alpha.detach().clone().requires_grad_()
    with autocast(), encoder.architecture(alpha):
        value = loss()
    return list(torch.autograd.grad(value, [alpha, *weights], allow_unused=True))


def by_weights(loss: Callable[[], Tensor], autocast: Autocast, weights: Sequence[Tensor]) -> list[Tensor | None]:
    """Gradients of `loss()` by each of `weights`; None where it has no part."""
    with autocast():
        value = loss()
    return list(torch.autograd.grad(value, weights, allow_unused=True))


def spread_by_alpha(encoder: Supernet) -> Tensor:
    """Gradient by alpha of the mean logsumexp of the operations' logits over all edges."""
    alpha = encoder.alpha.detach().clone().requires_grad_()
    logits, _ = encoder.space.split(alpha, encoder.edge_normalisation)
    return torch.autograd.grad(torch.cat(list(logits.values())).logsumexp(dim=1).mean(), alpha)[0]


def finite_mean(gradient: Tensor, step: int, order: int) -> Tensor:
    """The mean over processes of a gradient by alpha. Raises TrainingError if it is not finite."""
    gradient = distributed.all_reduce_mean(gradient)
    if not bool(torch.isfinite(gradient).all()):
        raise TrainingError(
            f"the gradient of the architecture parameters is not finite at step {step + 1}; the last good state is "
            "kept. Lower optim.lr, set precision=fp32" + (" or method.order=1" if order == 2 else "")
        )
    return gradient
