"""Label-free scores of an untrained network; larger is better.

Synaptic flow: Tanaka et al., 2020, arXiv 2006.05467; as a score for search: Abdelfattah et al., 2021, arXiv 2101.08134.
Activation patterns (NASWOT): Mellor et al., 2021, arXiv 2006.04647. Logarithmic synaptic flow: Cavagnero et al., 2022,
arXiv 2207.05135. Entropy of a feature map's spectrum as a score: Lee and Ham, 2024, arXiv 2403.19232 (AZ-NAS); its
change within a stage is ours.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from training.losses import nt_xent
from zoo.architectures.cell_ops import ResidualReduction


def synflow(encoder: nn.Module, size: tuple[int, int]) -> float:
    """log of the sum over weights of |w dR/dw|, R the network's sum of outputs on ones with |w| and no batch norm.

    A network that passes nothing scores -inf. Uses neither data nor labels.
    """
    total = sum(float((p * g).sum()) for p, g in _flow(encoder, size))
    return math.log(total) if total > 0 else -math.inf


def log_synflow(encoder: nn.Module, size: tuple[int, int]) -> float:
    """log of the sum over weights of |w| log(1 + |dR/dw|), R as in `synflow`: no layer outweighs all others.

    A network that passes nothing scores -inf. Uses neither data nor labels.
    """
    total = sum(float((p * g.log1p()).sum()) for p, g in _flow(encoder, size))
    return math.log(total) if total > 0 else -math.inf


def _flow(encoder: nn.Module, size: tuple[int, int]) -> list[tuple[Tensor, Tensor]]:
    """(|w|, dR/dw) of every weight that the output depends on; empty when nothing reaches the output."""
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
    if not maps.requires_grad:
        return []
    gradients = torch.autograd.grad(maps.sum(), weights, allow_unused=True)
    return [(p.detach(), g) for p, g in zip(weights, gradients, strict=True) if g is not None]


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


@torch.no_grad()
def rank_growth(encoder: nn.Module, images: Tensor) -> float:
    """By how much the cells of each stage widen what the stage's first cell gives, summed over the stages.

    The width of a feature map is the entropy of its normalised channel spectrum (log of the effective rank), over
    images `(N, 3, H, W)` and positions. Deep stages of cells without a short way round lose it; needs more than one
    cell per stage, or every network scores 0.
    """
    network = copy.deepcopy(encoder).train()
    found: list[tuple[int, float]] = []

    def measure(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        found.append((output.shape[-1], spectral_entropy(output)))

    for cell in network.body.cells:
        if not isinstance(cell, ResidualReduction):
            cell.register_forward_hook(measure)
    network.forward_features(images)
    stages: dict[int, list[float]] = {}
    for side, entropy in found:
        stages.setdefault(side, []).append(entropy)
    return sum(values[-1] - values[0] for values in stages.values())


def spectral_entropy(maps: Tensor) -> float:
    """Entropy of the normalised eigenvalues of the channels' covariance of `(N, C, H, W)`; 0 for constant maps."""
    x = maps.permute(1, 0, 2, 3).flatten(1).double()
    x = x - x.mean(1, keepdim=True)
    values = torch.linalg.eigvalsh(x @ x.T).clamp_min(0)
    p = values / values.sum() if float(values.sum()) > 0 else torch.ones(1)
    p = p[p > 1e-12]
    return float(-(p * p.log()).sum())
