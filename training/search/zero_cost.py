"""Label-free scores of an untrained network; larger is better.

Synaptic flow: Tanaka et al., 2020, arXiv 2006.05467; as a score for search: Abdelfattah et al., 2021, arXiv 2101.08134.
Activation patterns (NASWOT): Mellor et al., 2021, arXiv 2006.04647.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from training.losses import nt_xent


def synflow(encoder: nn.Module, size: tuple[int, int]) -> float:
    """log of the sum over weights of |w dR/dw|, R the network's sum of outputs on ones with |w| and no batch norm.

    A network that passes nothing scores -inf. Uses neither data nor labels.
    """
    network = copy.deepcopy(encoder).double().train()
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, nn.Identity())
    weights = [p for p in network.parameters() if p.requires_grad]
    with torch.no_grad():
        for p in weights:
            p.abs_()
    maps = network.forward_features(torch.ones(1, 3, *size, dtype=torch.float64))
    if not maps.requires_grad:  # nothing reaches the output
        return -math.inf
    gradients = torch.autograd.grad(maps.sum(), weights, allow_unused=True)
    total = sum(float((p * g).detach().sum()) for p, g in zip(weights, gradients, strict=True) if g is not None)
    return math.log(total) if total > 0 else -math.inf


@torch.no_grad()
def naswot(encoder: nn.Module, images: Tensor) -> float:
    """log |det K|, K_ij the ReLU units on which images i and j of `(N, 3, H, W)` agree: how well patterns tell
    images apart."""
    network = copy.deepcopy(encoder).train()
    n = len(images)
    kernel = torch.zeros(n, n, dtype=torch.float64)

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        on = (output.flatten(1) > 0).float()
        kernel.add_((on @ on.T + (1 - on) @ (1 - on).T).double())

    for module in network.modules():
        if isinstance(module, nn.ReLU):
            module.register_forward_hook(count)
    network.forward_features(images)
    sign, value = torch.linalg.slogdet(kernel)
    return float(value) if float(sign) > 0 else -math.inf


def contrastive_gradient(encoder: nn.Module, views: Tensor, temperature: float) -> float:
    """log norm of the NT-Xent gradient at initialisation on two views `(2, N, 3, H, W)`, no projection head."""
    network = copy.deepcopy(encoder).train()
    h = network.pool(network.forward_features(views.flatten(0, 1)))
    weights = [p for p in network.parameters() if p.requires_grad]
    gradients = torch.autograd.grad(nt_xent(*h.chunk(2), temperature), weights, allow_unused=True)
    norm = sum(float(g.double().square().sum()) for g in gradients if g is not None)
    return 0.5 * math.log(norm) if norm > 0 and math.isfinite(norm) else -math.inf
