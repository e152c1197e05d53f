"""Losses as pure functions of tensors. Gathering over ranks, queues and schedules stay outside."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.errors import InputError


def nt_xent(
    z_a: Tensor,
    z_b: Tensor,
    temperature: float,
    all_a: Tensor | None = None,
    all_b: Tensor | None = None,
    offset: int = 0,
) -> Tensor:
    """Normalised temperature-scaled cross-entropy: SimCLR (arXiv 2002.05709) eq. 1, mean over anchors.

    Every local embedding is an anchor; its positive is the other view of the same image, its
    negatives are both views of every other image of the global batch; only itself is left out.

    Args:
        z_a, z_b: `(n, d)` embeddings of the two views of this rank's images; normalised here.
        temperature: tau > 0.
        all_a, all_b: `(N, d)` embeddings of the global batch; default: the local ones.
        offset: row of `all_a` at which this rank's rows begin.

    Returns:
        Scalar float32, computed in float32 even under autocast.

    Raises:
        InputError: shapes that do not fit together, or fewer than two images.
    """
    logits, positives = nt_xent_logits(z_a, z_b, temperature, all_a, all_b, offset)
    return F.cross_entropy(logits, positives)


def nt_xent_logits(
    z_a: Tensor,
    z_b: Tensor,
    temperature: float,
    all_a: Tensor | None = None,
    all_b: Tensor | None = None,
    offset: int = 0,
) -> tuple[Tensor, Tensor]:
    """The similarities behind `nt_xent`; arguments and errors as there.

    Returns:
        `(2n, 2N)` cosine similarities over `temperature`, -inf where an anchor meets itself, and
        `(2n,)` columns of the positives.
    """
    all_a = z_a if all_a is None else all_a
    all_b = z_b if all_b is None else all_b
    _check_pairs(z_a, z_b, all_a, all_b, temperature, offset)
    n, total = len(z_a), len(all_a)
    with torch.autocast(z_a.device.type, enabled=False):
        anchors = F.normalize(torch.cat([z_a, z_b]).float(), dim=1)
        candidates = F.normalize(torch.cat([all_a, all_b]).float(), dim=1)
        logits = anchors @ candidates.T / temperature
    rows = torch.arange(2 * n, device=logits.device)
    own_image = offset + torch.arange(n, device=logits.device)
    itself = torch.cat([own_image, own_image + total])
    other_view = torch.cat([own_image + total, own_image])
    logits[rows, itself] = -torch.inf
    return logits, other_view


@torch.no_grad()
def contrastive_accuracy(logits: Tensor, positives: Tensor) -> Tensor:
    """Fraction of anchors whose positive beats every other candidate: scalar float32 in 0..1.

    A tie counts as wrong, so that collapsed embeddings score 0, not 1.

    Args:
        logits: `(n, m)`. positives: `(n,)` column of each row's positive.
    """
    positive = logits.gather(1, positives[:, None])
    return ((logits >= positive).sum(dim=1) == 1).float().mean()


def _check_pairs(z_a: Tensor, z_b: Tensor, all_a: Tensor, all_b: Tensor, temperature: float, offset: int) -> None:
    if z_a.ndim != 2 or z_a.shape != z_b.shape:
        raise InputError(
            f"nt_xent takes two views of the same shape (n, d), got {tuple(z_a.shape)} and {tuple(z_b.shape)}"
        )
    if all_a.shape != all_b.shape or all_a.ndim != 2 or all_a.shape[1] != z_a.shape[1]:
        raise InputError(
            f"nt_xent: all_a and all_b must both be (N, {z_a.shape[1]}), "
            f"got {tuple(all_a.shape)} and {tuple(all_b.shape)}"
        )
    if not 0 <= offset <= len(all_a) - len(z_a):
        raise InputError(f"nt_xent: rows {offset}..{offset + len(z_a)} are not within the {len(all_a)} gathered rows")
    if len(all_a) < 2:
        raise InputError("nt_xent needs at least 2 images in the global batch: with one there is no negative")
    if not temperature > 0:
        raise InputError(f"nt_xent: temperature must be > 0, got {temperature}")
