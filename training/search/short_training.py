"""Scores of a network from a short training of its own: contrastive (no labels) or, as a control, with labels.

All networks see the very same augmented batches in the same order, so that differences are theirs.
Angle between initial and trained weights: Hu et al., 2020, arXiv 2004.13431; with meaningless labels: RLNAS, Zhang et
al., 2021, arXiv 2101.11834. Sum of training losses: Ru et al., 2021, arXiv 2006.04492.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.losses import contrastive_accuracy, nt_xent_logits
from training.modules.heads import projection_head


def short_contrastive(
    encoder: nn.Module, views: Tensor, unseen: Tensor, temperature: float = 0.2, lr: float = 3e-3, seed: int = 0
) -> dict[str, float]:
    """Train `encoder` in place by NT-Xent, one step per batch.

    Args:
        views: `(steps, 2, N, 3, H, W)` float32. unseen: `(batches, 2, N, 3, H, W)` of other images.

    Returns:
        `speed` and `final`: minus the mean loss of all and of the last quarter of the steps; `unseen` and
        `pairs`: minus the loss, and the pair accuracy, on `unseen`; `angle` in radians. Larger is better.
    """
    torch.manual_seed(seed)
    network = nn.Sequential(encoder, projection_head("paper", encoder.num_features, None, 64)).train()

    def loss(batch: Tensor) -> tuple[Tensor, Tensor]:
        logits, positives = nt_xent_logits(*network(batch.flatten(0, 1)).chunk(2), temperature)
        return F.cross_entropy(logits, positives), contrastive_accuracy(logits, positives)

    return _train(
        network, encoder, lambda step: loss(views[step]), [lambda b=b: loss(b) for b in unseen], len(views), lr
    )


def short_supervised(
    encoder: nn.Module, views: Tensor, labels: Tensor, unseen: Tensor, unseen_labels: Tensor, lr: float = 3e-3,
    seed: int = 0,
) -> dict[str, float]:  # fmt: skip
    """The control: cross-entropy with labels `(steps, N)` on the same views and steps; results as above, `pairs`
    being the accuracy on `unseen`."""
    torch.manual_seed(seed)
    classes = int(max(labels.max(), unseen_labels.max())) + 1
    network = nn.Sequential(encoder, nn.Linear(encoder.num_features, classes)).train()

    def loss(batch: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        logits = network(batch.flatten(0, 1)).float()
        target = target.repeat(2)
        return F.cross_entropy(logits, target), (logits.argmax(1) == target).float().mean()

    held = [lambda b=b, y=y: loss(b, y) for b, y in zip(unseen, unseen_labels, strict=True)]
    return _train(network, encoder, lambda step: loss(views[step], labels[step]), held, len(views), lr)


Loss = tuple[Tensor, Tensor]


def _train(
    network: nn.Module, encoder: nn.Module, loss_at: Callable[[int], Loss], held: list[Callable[[], Loss]], steps: int,
    lr: float,
) -> dict[str, float]:  # fmt: skip
    before = _flat(encoder)
    optimizer = torch.optim.AdamW(network.parameters(), lr=lr, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    losses = []
    for step in range(steps):
        value, _ = loss_at(step)
        optimizer.zero_grad(set_to_none=True)
        value.backward()
        optimizer.step()
        schedule.step()
        losses.append(float(value.detach()))
    with torch.no_grad():
        found = torch.tensor([[float(v) for v in evaluate()] for evaluate in held]).mean(0)
    cosine = F.cosine_similarity(before, _flat(encoder), dim=0).clamp(-1, 1)
    tail = losses[-max(1, steps // 4) :]
    return {
        "speed": -sum(losses) / steps,
        "final": -sum(tail) / len(tail),
        "unseen": -float(found[0]),
        "pairs": float(found[1]),
        "angle": math.acos(float(cosine)),
    }


def _flat(encoder: nn.Module) -> Tensor:
    """All convolution weights, one vector."""
    return torch.cat([p.detach().double().flatten() for p in encoder.parameters() if p.ndim > 1])
