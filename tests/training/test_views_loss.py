"""The loss of V views against a slow, obvious loop."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from training.losses import contrastive_accuracy, nt_xent, nt_xent_logits, views_loss
from zoo.errors import InputError


def slow_views_loss(z: Tensor, temperature: float, positives: str, decoupled: bool) -> tuple[Tensor, float]:
    """Loss and accuracy, one anchor and one positive at a time, in float64."""
    n, v, _ = z.shape
    unit = [[z[i, a].double() / z[i, a].double().norm() for a in range(v)] for i in range(n)]
    terms, right = [], []
    for i in range(n):
        for a in range(v):
            anchor = unit[i][a]
            negatives = [anchor @ unit[j][c] / temperature for j in range(n) if j != i for c in range(v)]
            siblings = [unit[i][b] for b in range(v) if b != a]
            if positives == "mean":
                mean = torch.stack(siblings).mean(0)
                siblings = [mean / mean.norm()]
            for sibling in siblings:
                positive = anchor @ sibling / temperature
                denominator = negatives if decoupled else [positive, *negatives]
                terms.append(torch.logsumexp(torch.stack(denominator), 0) - positive)
                right.append(bool(positive > torch.stack(negatives).max()))
    return torch.stack(terms).mean(), sum(right) / len(right)


def embeddings(n: int, v: int, d: int = 5, seed: int = 0) -> Tensor:
    """Views of one image lie near each other, so that some anchors are right and some are not."""
    g = torch.Generator().manual_seed(seed)
    z = torch.randn(n, 1, d, generator=g) + 0.6 * torch.randn(n, v, d, generator=g)
    return z.requires_grad_()


@pytest.mark.parametrize("temperature", [0.01, 0.2, 1.0, 1000.0])
@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize("positives", ["each", "mean"])
@pytest.mark.parametrize(("n", "v"), [(2, 2), (7, 3), (5, 4)])
def test_equals_slow_loop_in_value_and_gradient(n, v, positives, decoupled, temperature):
    z = embeddings(n, v)
    expected, accuracy = slow_views_loss(z, temperature, positives, decoupled)
    (slow,) = torch.autograd.grad(expected, z)
    loss, ours = views_loss(z, temperature, positives=positives, decoupled=decoupled)
    (grad,) = torch.autograd.grad(loss, z)
    assert loss.dtype == torch.float32 and not ours.requires_grad
    torch.testing.assert_close(loss.double(), expected, rtol=2e-5, atol=1e-6)
    torch.testing.assert_close(grad, slow, rtol=2e-3, atol=1e-6 / temperature)
    assert float(ours) == pytest.approx(accuracy)


def test_the_accuracy_above_is_tried_between_its_ends():
    _, accuracy = slow_views_loss(embeddings(7, 3), 0.2, "each", False)
    assert 0.1 < accuracy < 0.9


@pytest.mark.parametrize("positives", ["each", "mean"])
def test_two_views_are_nt_xent(positives):
    z = embeddings(6, 2)
    expected = nt_xent(z[:, 0], z[:, 1], 0.2)
    loss, accuracy = views_loss(z, 0.2, positives=positives)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(torch.autograd.grad(loss, z), torch.autograd.grad(expected, z))
    assert float(accuracy) == float(contrastive_accuracy(*nt_xent_logits(z[:, 0], z[:, 1], 0.2)))


@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize("positives", ["each", "mean"])
@pytest.mark.parametrize("ranks", [2, 3])
def test_local_anchors_against_global_candidates(ranks, positives, decoupled):
    """Every rank's share, with its offset, adds up to the whole batch's loss and gradient."""
    z = embeddings(6, 3)
    whole = torch.stack(views_loss(z, 0.2, positives=positives, decoupled=decoupled))
    n = 6 // ranks
    parts = [torch.stack(views_loss(z[r : r + n], 0.2, z, r, positives, decoupled)) for r in range(0, 6, n)]
    shared = torch.stack(parts).mean(0)
    torch.testing.assert_close(shared, whole)
    torch.testing.assert_close(torch.autograd.grad(shared[0], z), torch.autograd.grad(whole[0], z))


def test_collapsed_embeddings_score_chance_and_stay_finite():
    z = torch.ones(8, 3, 4, requires_grad=True)
    loss, accuracy = views_loss(z, 0.1)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(22), rel=1e-5) and torch.isfinite(z.grad).all()
    assert float(accuracy) == 0
    assert views_loss(z, 0.1, decoupled=True)[0].item() == pytest.approx(math.log(21), rel=1e-5)


def test_is_float32_under_autocast():
    z = embeddings(16, 4, 64)
    plain = views_loss(z, 0.1, positives="mean")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = views_loss(z, 0.1, positives="mean")
    assert torch.equal(mixed[0], plain[0]) and torch.equal(mixed[1], plain[1])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((torch.ones(3, 2), 0.5), r"\(n, V, d\) and \(N, V, d\), got \(3, 2\)"),
        ((torch.ones(3, 2, 4), 0.5, torch.ones(6, 3, 4)), r"\(3, 2, 4\) and \(6, 3, 4\)"),
        ((torch.ones(3, 1, 4), 0.5), "at least 2 views of each image, got 1"),
        ((torch.ones(1, 2, 4), 0.5), "at least 2 images"),
        ((torch.ones(3, 2, 4), 0.0), "temperature must be > 0"),
        ((torch.ones(3, 2, 4), 0.5, torch.ones(6, 2, 4), 4), "rows 4..7 are not within the 6"),
        ((torch.ones(3, 2, 4), 0.5, None, 0, "all"), "each and mean, not 'all'"),
    ],
)
def test_wrong_input_is_refused(arguments, said):
    with pytest.raises(InputError, match=said):
        views_loss(*arguments)
