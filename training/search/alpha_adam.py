"""Adam for the architecture parameters, which are a buffer and not a parameter."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class AlphaAdam(nn.Module):
    """Adam (arXiv 1412.6980) with L2 decay on one vector; its moments are buffers, and so part of a method's state.

    Args:
        alpha: gives shape and device. lr, betas, weight_decay: as in `torch.optim.Adam`.
    """

    def __init__(self, alpha: Tensor, lr: float, betas: tuple[float, float], weight_decay: float) -> None:
        super().__init__()
        self.lr, self.betas, self.weight_decay = lr, betas, weight_decay
        for name in ("mean", "square"):
            self.register_buffer(name, torch.zeros_like(alpha))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def step(self, alpha: Tensor, gradient: Tensor) -> None:
        """Move `alpha` in place."""
        low, high = self.betas
        gradient = gradient.to(alpha.dtype) + self.weight_decay * alpha
        self.steps += 1
        self.mean.lerp_(gradient, 1 - low)
        self.square.lerp_(gradient.square(), 1 - high)
        count = self.steps.to(alpha.dtype)
        mean, square = self.mean / (1 - low**count), self.square / (1 - high**count)
        alpha.sub_(self.lr * mean / (square.sqrt() + 1e-8))
