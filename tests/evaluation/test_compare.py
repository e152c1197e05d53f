"""Two encoders beside each other: CKA and neighbour overlap against slow versions, paired accuracy."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation import compare
from evaluation.compare import alike, linear_cka, neighbour_overlap, paired_difference
from evaluation.evaluate import evaluate
from evaluation.paired import mcnemar
from tests.zoo.checkpoints import small_encoder
from zoo.data.addresses import open_dataset
from zoo.errors import DataError

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(60, 8)), RNG.normal(size=(60, 5))
Z = X @ RNG.normal(size=(8, 6)) + 0.5 * RNG.normal(size=(60, 6))


def slow_cka(x: np.ndarray, y: np.ndarray, debiased: bool) -> float:
    """With the N x N kernels of the papers."""
    n, one = len(x), np.ones(len(x))

    def hsic(k, m):
        if not debiased:
            h = np.eye(n) - 1 / n
            return np.trace(k @ h @ m @ h)
        k, m = k - np.diag(np.diag(k)), m - np.diag(np.diag(m))
        parts = np.trace(k @ m), (one @ k @ one) * (one @ m @ one) / ((n - 1) * (n - 2))
        return (sum(parts) - 2 / (n - 2) * (one @ k @ m @ one)) / (n * (n - 3))

    k, m = x @ x.T, y @ y.T
    return hsic(k, m) / np.sqrt(hsic(k, k) * hsic(m, m))


@pytest.mark.parametrize("debiased", [True, False])
@pytest.mark.parametrize("other", [Y, Z], ids=["unrelated", "related"])
def test_cka_equals_the_kernels_of_the_papers(other, debiased):
    assert linear_cka(X, other, debiased=debiased) == pytest.approx(slow_cka(X, other, debiased), abs=1e-9)
    assert linear_cka(other, X, debiased=debiased) == pytest.approx(linear_cka(X, other, debiased=debiased))


def test_cka_forgets_rotation_scale_and_offset_and_few_samples_make_nothing_alike():
    turned = 7 * X @ np.linalg.qr(RNG.normal(size=(8, 8)))[0] + 3
    assert linear_cka(X, turned) == pytest.approx(1) == linear_cka(X, turned, debiased=False)
    wide = [np.random.default_rng(seed).normal(size=(40, 400)) for seed in (1, 2)]
    assert linear_cka(*wide, debiased=False) > 0.8  # 40 samples of 400 unrelated features
    assert abs(linear_cka(*wide)) < 0.1
    assert linear_cka(X, Z) > 0.5 > abs(linear_cka(X, Y)) + 0.3


def test_overlap_equals_a_slow_loop(monkeypatch):
    monkeypatch.setattr(compare, "BLOCK", 60 * 7)  # several blocks, the last one short

    def near(table, i):
        u = table / np.linalg.norm(table, axis=1, keepdims=True)
        return set(sorted((j for j in range(60) if j != i), key=lambda j: -(u[i] @ u[j]))[:5])

    slow = [len(near(X, i) & near(Z, i)) / 5 for i in range(60)]
    np.testing.assert_allclose(neighbour_overlap(X, Z, 5), slow)
    assert (neighbour_overlap(X, 4 * X, 5) == 1).all()
    assert neighbour_overlap(X, Y, 59).mean() == 1  # all others are neighbours


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: linear_cka(X, Y[:-1]), "not of the same samples"),
        (lambda: linear_cka(X[:3], Y[:3]), "at least 4"),
        (lambda: linear_cka(X, np.ones((60, 3))), "collapsed"),
        (lambda: linear_cka(X, np.full((60, 3), np.nan)), "NaN"),
        (lambda: neighbour_overlap(X, Z, 60), "k must lie in 1..59"),
        (lambda: neighbour_overlap(X, Z, 0), "k must lie in 1..59"),
    ],
)
def test_what_cannot_be_compared_is_refused(call, said):
    with pytest.raises(DataError, match=said):
        call()


def test_an_encoder_is_like_itself_and_its_accuracy_no_different():
    train, test = (open_dataset("synthetic:shapes?n=80&size=16", split) for split in ("train", "test"))
    first, second = small_encoder(), small_encoder(seed=1)
    itself, other = (alike(first, each, test, k=3, precision="fp32") for each in (first, second))
    assert itself.cka == pytest.approx(1) and itself.overlap.value == 1 and itself.samples == len(test)
    assert other.cka < 0.999 and other.overlap.value < 1 and other.chance == pytest.approx(3 / (len(test) - 1))
    options = {"protocols": ["knn"], "floors": False, "precision": "fp32"}
    a, b = (evaluate(each, train, test, **options) for each in (first, second))
    (protocol, found), *_ = paired_difference(a, b).items()
    right = [each.predicted[protocol] == test.labels for each in (a, b)]
    assert protocol == "knn-v2" and [each.metric for each in found] == ["top1", "mean_per_class"]
    assert found[0].value == pytest.approx(right[0].mean() - right[1].mean()) and found[0].p == mcnemar(*right)
    assert paired_difference(a, a)[protocol][0].value == 0
    elsewhere = evaluate(first, test, train, **options)
    with pytest.raises(DataError, match="not the same samples"):
        paired_difference(a, elsewhere)
