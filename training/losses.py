"""Losses as pure functions of tensors. Gathering over ranks, queues and schedules stay outside."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.errors import InputError


def at_least_float32(x: Tensor) -> Tensor:
    """`x` in float32, or as it is if it is float64."""
    return x if x.dtype == torch.float64 else x.float()


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
        Scalar, computed in float32 even under autocast (in float64 for float64 embeddings).

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
        anchors = F.normalize(at_least_float32(torch.cat([z_a, z_b])), dim=1)
        candidates = F.normalize(at_least_float32(torch.cat([all_a, all_b])), dim=1)
        logits = anchors @ candidates.T / temperature
    own_image = offset + torch.arange(n, device=logits.device)
    itself = torch.cat([own_image, own_image + total])
    other_view = torch.cat([own_image + total, own_image])
    logits.scatter_(1, itself[:, None], -torch.inf)  # an index would send the value to the device, and wait
    return logits, other_view


def views_loss(
    z: Tensor,
    temperature: float,
    everyone: Tensor | None = None,
    offset: int = 0,
    positives: str = "each",
    decoupled: bool = False,
) -> tuple[Tensor, Tensor]:
    """NT-Xent for V views of each image, or its decoupled form (DCL, arXiv 2110.06848, eq. 4 without weights).

    Every local view is an anchor. Its negatives are all views of all other images of the global batch; the
    other views of its own image are none. With `s` the cosine similarity over tau and `D` the sum of
    exp(s) over the negatives, an anchor and a positive p contribute

        -log(exp(s_p) / (exp(s_p) + D)), or decoupled -log(exp(s_p) / D).

    `positives="each"`: p is each other view of the image, the mean over all V (V - 1) ordered pairs; for
    V = 2 this is `nt_xent`. `positives="mean"`: p is the one normalised mean of the other views' unit vectors.

    Args:
        z: `(n, V, d)` embeddings of V views of this rank's images; normalised here.
        temperature: tau > 0.
        everyone: `(N, V, d)` embeddings of the global batch; default: the local ones.
        offset: row of `everyone` at which this rank's rows begin.

    Returns:
        Scalar loss, mean over anchors, in float32 even under autocast (float64 for float64 embeddings); and
        scalar accuracy without gradient, the fraction of (anchor, positive) pairs whose positive beats every
        negative. A tie counts as wrong. Time and memory grow with (V n) (V N).

    Raises:
        InputError: shapes that do not fit together, fewer than two images or views, or unknown `positives`.
    """
    everyone = z if everyone is None else everyone
    _check_views(z, everyone, temperature, offset, positives)
    n, v, _ = z.shape
    with torch.autocast(z.device.type, enabled=False):
        anchors = F.normalize(at_least_float32(z), dim=2)
        candidates = F.normalize(at_least_float32(everyone), dim=2)
        if positives == "mean":
            others = F.normalize(anchors.sum(dim=1, keepdim=True) - anchors, dim=2)
            positive = (anchors * others).sum(dim=2, keepdim=True) / temperature
        else:
            own = anchors @ anchors.mT / temperature
            # Without its first entry, a flattened (V, V) matrix has its diagonal at the end of rows of V + 1.
            positive = own.flatten(1)[:, 1:].view(n, v - 1, v + 1)[..., :-1].reshape(n, v, v - 1)
        logits = (anchors / temperature).flatten(0, 1) @ candidates.flatten(0, 1).T
        logits.view(n, v, -1, v).diagonal(offset, dim1=0, dim2=2).fill_(-torch.inf)
        negative = logits.logsumexp(dim=1).view(n, v, 1)
        loss = (negative - positive).mean() if decoupled else F.softplus(negative - positive).mean()
    hardest = logits.detach().amax(dim=1).view(n, v, 1)
    return loss, (positive.detach() > hardest).float().mean()


def _check_views(z: Tensor, everyone: Tensor, temperature: float, offset: int, positives: str) -> None:
    if z.ndim != 3 or everyone.ndim != 3 or z.shape[1:] != everyone.shape[1:]:
        raise InputError(
            f"views_loss takes embeddings (n, V, d) and (N, V, d), got {tuple(z.shape)} and {tuple(everyone.shape)}"
        )
    if z.shape[1] < 2:
        raise InputError(f"views_loss needs at least 2 views of each image, got {z.shape[1]}")
    if positives not in ("each", "mean"):
        raise InputError(f"views_loss knows the positives each and mean, not {positives!r}")
    _check_rows("views_loss", len(z), len(everyone), temperature, offset)


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
    _check_rows("nt_xent", len(z_a), len(all_a), temperature, offset)


def _check_rows(name: str, rows: int, total: int, temperature: float, offset: int) -> None:
    if not 0 <= offset <= total - rows:
        raise InputError(f"{name}: rows {offset}..{offset + rows} are not within the {total} gathered rows")
    if total < 2:
        raise InputError(f"{name} needs at least 2 images in the global batch: with one there is no negative")
    if not temperature > 0:
        raise InputError(f"{name}: temperature must be > 0, got {temperature}")


def memory_similarities(
    queries: Tensor, keys: Tensor, queue: Tensor, offset: int | None = None
) -> tuple[Tensor, Tensor]:
    """Cosine similarities of queries to their keys and to a queue: MoCo (arXiv 1911.05722) Algorithm 1.

    Without `offset`, each query meets its own key and the queue, 1 + K candidates, as in MoCo. With it,
    each meets every key of the global batch and the queue, N + K candidates, as in CLSA's code.

    Args:
        queries: `(n, d)`; normalised here.
        keys: `(n, d)`, the own key of each query, or with `offset` `(N, d)`, those of the global batch.
        queue: `(K, d)` unit vectors of earlier steps; K may be 0.
        offset: row of `keys` that belongs to the first query.

    Returns:
        `(n, 1 + K)` or `(n, N + K)` similarities in -1..1, float32 even under autocast (float64 for float64
        queries), and `(n,)` columns of the positives.

    Raises:
        InputError: shapes that do not fit together.
    """
    n = len(queries)
    if (
        queries.ndim != 2
        or keys.ndim != 2
        or queue.ndim != 2
        or not queries.shape[1] == keys.shape[1] == queue.shape[1]
    ):
        raise InputError(
            "memory_similarities takes queries (n, d), keys (N, d) and a queue (K, d), "
            f"got {tuple(queries.shape)}, {tuple(keys.shape)} and {tuple(queue.shape)}"
        )
    if len(keys) != n if offset is None else not 0 <= offset <= len(keys) - n:
        raise InputError(f"memory_similarities: {n} queries at offset {offset} do not fit {len(keys)} keys")
    with torch.autocast(queries.device.type, enabled=False):
        q = F.normalize(at_least_float32(queries), dim=1)
        k = F.normalize(at_least_float32(keys), dim=1)
        own = (q * k).sum(dim=1, keepdim=True) if offset is None else q @ k.T
        similarities = torch.cat([own, q @ queue.to(q.dtype).T], dim=1)
    if offset is None:
        return similarities, torch.zeros(n, dtype=torch.long, device=q.device)
    return similarities, torch.arange(offset, offset + n, device=q.device)


def info_nce(similarities: Tensor, positives: Tensor, temperature: float) -> Tensor:
    """InfoNCE: cross-entropy of the positives among the candidates, mean over queries (MoCo eq. 1).

    Args:
        similarities: `(n, m)`. positives: `(n,)` column of each row's positive.
        temperature: tau > 0.
    """
    return F.cross_entropy(similarities / temperature, positives)


def ddm(
    strong: Sequence[Tensor], weak: Sequence[Tensor], temperature: float, weak_temperature: float | None = None
) -> Tensor:
    """Distributional divergence of CLSA (arXiv 2104.07713), as its code computes it; summed over all pairs.

    For each pair, the cross-entropy `-sum_j p_weak(j) log p_strong(j)`, mean over queries: the divergence
    KL(p_weak, p_strong) plus a constant, as no gradient flows into `p_weak`.

    Args:
        strong, weak: `(n, m)` similarities of each strong and each weak view to the same candidates.
        temperature: of the softmax over candidates. weak_temperature: of the weak views; default the same.
    """
    # -sum_ab p_a . log p_b = -(sum_a p_a) . (sum_b log p_b): 25 pairs for the price of one.
    targets = sum((s.detach() / (weak_temperature or temperature)).softmax(dim=1) for s in weak)
    log_probabilities = sum((s / temperature).log_softmax(dim=1) for s in strong)
    return -(targets * log_probabilities).sum(dim=1).mean()


def similarity_distillation(
    student: Tensor, teacher: Tensor, queue: Tensor, temperature: float, teacher_temperature: float
) -> Tensor:
    """SEED (arXiv 2101.04731, section 3.2): the student learns how alike the teacher finds an image and many others.

    The mean over rows of the cross-entropy `-sum_j p_teacher(j) log p_student(j)`, where both distributions are over
    the row's own teacher vector and the queue.

    Args:
        student, teacher: `(n, D)`; normalised here. No gradient flows into `teacher`.
        queue: `(K, D)` unit vectors of the teacher.
        temperature, teacher_temperature: of the two distributions.
    """
    found, _ = memory_similarities(student, teacher.detach(), queue)
    wanted, _ = memory_similarities(teacher.detach(), teacher.detach(), queue)
    targets = (wanted / teacher_temperature).softmax(dim=1)
    return -(targets * (found / temperature).log_softmax(dim=1)).sum(dim=1).mean()


def reconstruction(restored: Tensor, target: Tensor, error: str = "mse") -> Tensor:
    """Error of restored images, mean over all elements, in float32 even under autocast.

    Args:
        restored, target: `(N, C, H, W)`.
        error: `"mse"`, squared, or `"huber"`, half squared below 1 and linear above.

    Raises:
        InputError: shapes that differ, or an unknown error.
    """
    if restored.shape != target.shape:
        raise InputError(f"reconstruction takes equal shapes, got {tuple(restored.shape)} and {tuple(target.shape)}")
    functions = {"mse": F.mse_loss, "huber": F.huber_loss}
    if error not in functions:
        raise InputError(f"reconstruction knows the errors {', '.join(functions)}, not {error!r}")
    return functions[error](at_least_float32(restored), at_least_float32(target))
