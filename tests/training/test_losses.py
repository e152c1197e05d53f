"""NT-Xent against a slow, obvious loop."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from training.losses import contrastive_accuracy, nt_xent, nt_xent_logits
from zoo.errors import InputError


def slow_nt_xent(z_a: Tensor, z_b: Tensor, temperature: float) -> Tensor:
    """Eq. 1 of arXiv 2002.05709, one pair at a time, in float64."""
    z = [row.double() for row in (*z_a, *z_b)]
    n = len(z_a)

    def s(i: int, k: int) -> Tensor:
        return (z[i] @ z[k]) / (z[i].norm() * z[k].norm()) / temperature

    total = torch.zeros((), dtype=torch.float64)
    for i in range(2 * n):
        j = (i + n) % (2 * n)
        others = torch.stack([s(i, k) for k in range(2 * n) if k != i])
        total = total + torch.logsumexp(others, 0) - s(i, j)
    return total / (2 * n)


def pair(n: int, d: int = 5, seed: int = 0) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=g).requires_grad_(), torch.randn(n, d, generator=g).requires_grad_()


@pytest.mark.parametrize("temperature", [0.002, 0.1, 0.5, 1.0, 1000.0])
@pytest.mark.parametrize("n", [2, 7])
def test_equals_slow_loop_in_value_and_gradient(n, temperature):
    z_a, z_b = pair(n)
    expected = slow_nt_xent(z_a, z_b, temperature)
    expected_grads = torch.autograd.grad(expected, (z_a, z_b))
    loss = nt_xent(z_a, z_b, temperature)
    grads = torch.autograd.grad(loss, (z_a, z_b))
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss.double(), expected, rtol=2e-5, atol=1e-6)
    for ours, slow in zip(grads, expected_grads, strict=True):
        assert torch.isfinite(ours).all()
        torch.testing.assert_close(ours, slow, rtol=2e-3, atol=1e-6 / temperature)


@pytest.mark.parametrize("ranks", [2, 3])
def test_local_anchors_against_global_candidates(ranks):
    """Every rank's share, with its offset, adds up to the whole batch's loss and gradient."""
    z_a, z_b = pair(6)
    whole = nt_xent(z_a, z_b, 0.2)
    n = 6 // ranks
    parts = [
        nt_xent(z_a[r * n : (r + 1) * n], z_b[r * n : (r + 1) * n], 0.2, z_a, z_b, offset=r * n) for r in range(ranks)
    ]
    shared = torch.stack(parts).mean()
    torch.testing.assert_close(shared, whole)
    for ours, expected in zip(
        torch.autograd.grad(shared, (z_a, z_b)), torch.autograd.grad(whole, (z_a, z_b)), strict=True
    ):
        torch.testing.assert_close(ours, expected)


def test_mask_hides_exactly_the_anchor_itself():
    z_a, z_b = pair(4)
    logits, positives = nt_xent_logits(z_a[2:], z_b[2:], 0.5, z_a, z_b, offset=2)
    assert logits.shape == (4, 8)
    assert torch.isinf(logits).nonzero().tolist() == [[0, 2], [1, 3], [2, 6], [3, 7]]
    assert positives.tolist() == [6, 7, 2, 3]
    expected = torch.cosine_similarity(z_a[2], z_b[2], dim=0) / 0.5
    torch.testing.assert_close(logits[0, 6], expected)


@pytest.mark.parametrize("temperature", [0.01, 0.5])
def test_collapsed_embeddings_score_chance_and_stay_finite(temperature):
    z = torch.ones(8, 3, requires_grad=True)
    loss = nt_xent(z, z, temperature)
    loss.backward()
    assert loss.item() == pytest.approx(math.log(15), rel=1e-5)
    assert torch.isfinite(z.grad).all()
    assert float(contrastive_accuracy(*nt_xent_logits(z, z, temperature))) == 0


def test_perfect_pairs_have_accuracy_one_and_loss_zero():
    z = torch.eye(6)
    assert float(contrastive_accuracy(*nt_xent_logits(z, z, 0.05))) == 1
    assert float(nt_xent(z, z, 0.05)) < 1e-6


def test_accuracy_counts_positives_that_rank_first():
    logits = torch.tensor([[0.0, 2.0, 1.0], [0.0, 2.0, 3.0], [5.0, 5.0, 0.0], [9.0, 8.0, -torch.inf]])
    assert float(contrastive_accuracy(logits, torch.tensor([1, 1, 0, 0]))) == 0.5


def test_is_float32_under_autocast():
    z_a, z_b = pair(16, 64)
    plain = nt_xent(z_a, z_b, 0.1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = nt_xent(z_a, z_b, 0.1)
    assert torch.equal(mixed, plain)


def test_scale_of_embeddings_does_not_matter():
    z_a, z_b = pair(4)
    torch.testing.assert_close(nt_xent(z_a * 1e-4, z_b * 1e4, 0.3), nt_xent(z_a, z_b, 0.3))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((torch.ones(3, 2), torch.ones(4, 2), 0.5), r"\(3, 2\) and \(4, 2\)"),
        ((torch.ones(3), torch.ones(3), 0.5), "shape"),
        ((torch.ones(1, 2), torch.ones(1, 2), 0.5), "at least 2 images"),
        ((torch.ones(3, 2), torch.ones(3, 2), 0.0), "temperature must be > 0"),
        ((torch.ones(3, 2), torch.ones(3, 2), 0.5, torch.ones(6, 4), torch.ones(6, 4)), r"must both be \(N, 2\)"),
        ((torch.ones(3, 2), torch.ones(3, 2), 0.5, torch.ones(6, 2), torch.ones(6, 2), 4), "rows 4..7"),
    ],
)
def test_wrong_input_is_refused(arguments, said):
    with pytest.raises(InputError, match=said):
        nt_xent(*arguments)
