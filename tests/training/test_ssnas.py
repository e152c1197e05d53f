"""SSNAS: bilevel gradients beside exact ones, halves, resume."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.training.distributed_cases import NO_RUN, NoRun
from tests.training.test_loop import in_parts, same_state, tiny, trainer_for
from training.losses import nt_xent
from training.methods.base import Context
from training.methods.ssnas import SSNAS
from training.optim import OptimConfig, build_optimizer
from training.search import gradients
from training.search.gradients import spread_by_alpha
from training.search.history import read_history
from training.search.supernet import Supernet, SupernetArguments
from zoo.architectures.genotype import NB201_OPS, parse_genotype
from zoo.errors import ConfigError, TrainingError
from zoo.preprocessing.image import ImageInput

SIDE = 8


# -- the method ------------------------------------------------------------------------------------


class PlainRun(NoRun):
    """What a search asks of its run: the optimizer of the weights, and full precision."""

    def __init__(self, method: SSNAS, lr: float = 0.05, weight_decay: float = 0.0) -> None:
        config = OptimConfig(name="sgd", lr=lr, lr_scaling="none", momentum=0.9, weight_decay=weight_decay, decay="all")
        self.optimizer = build_optimizer(method, config, 8)


class Supernet64(Supernet):
    """Features stay in float64."""

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        return self.pool(self._features(x, lengths))


def method_for(**config) -> SSNAS:
    torch.manual_seed(0)
    arguments = SupernetArguments(space="nb201", width=2, depth=1)
    encoder = Supernet64(arguments, ImageInput(size=(SIDE, SIDE)))
    settings = {"out_dim": 6, "head": "linear", **config}
    method = SSNAS(encoder, SSNAS.Config(**settings), Context(SIDE, 6, 10, 100)).double()
    method.encoder.alpha.normal_()
    return method


def pairs(seed: int) -> list[Tensor]:
    g = torch.Generator().manual_seed(seed)
    return [torch.rand(6, 3, SIDE, SIDE, generator=g, dtype=torch.float64) for _ in range(2)]


def loss_of(method: SSNAS, views: list[Tensor], alpha: Tensor, weights: dict[str, Tensor]) -> Tensor:
    """NT-Xent with other weights, differentiable twice."""

    class Embed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.head = method.encoder, method.head

        def forward(self, x: Tensor) -> Tensor:
            with self.encoder.architecture(alpha):
                return self.head(self.encoder(x))

    z = torch.func.functional_call(Embed(), weights, (torch.cat(views),))
    return nt_xent(*z.chunk(2), method.config.temperature)


def exact_gradient(method: SSNAS, a: list[Tensor], b: list[Tensor], step_of) -> Tensor:
    """d/dalpha of L_B(w - step(g), alpha), g = dL_A(w, alpha)/dw, by differentiating twice."""
    alpha = method.encoder.alpha.clone().requires_grad_()
    w = {n: p.detach().clone().requires_grad_() for n, p in method.named_parameters()}
    inner = torch.autograd.grad(loss_of(method, a, alpha, w), list(w.values()), create_graph=True, allow_unused=True)
    ahead = {
        n: p - step_of(n, torch.zeros_like(p) if g is None else g, p)
        for (n, p), g in zip(w.items(), inner, strict=True)
    }
    return torch.autograd.grad(loss_of(method, b, alpha, ahead), alpha)[0]


def test_first_order_gradient_is_that_of_half_b():
    method = method_for()
    a, b = pairs(1), pairs(2)
    alpha = method.encoder.alpha.clone().requires_grad_()
    expected = torch.autograd.grad(loss_of(method, b, alpha, dict(method.named_parameters())), alpha)[0]
    torch.testing.assert_close(method.alpha_gradient({"a": a, "b": b}, NO_RUN), expected)
    assert not torch.allclose(method.alpha_gradient({"a": b, "b": a}, NO_RUN), expected)


@pytest.mark.parametrize("momentum", [False, True])
def test_second_order_gradient_is_the_exact_one(momentum, monkeypatch):
    """Against a double backward in float64, with weight decay, with and without a momentum buffer.

    The finite difference is taken small here; at DARTS's own step it is coarse on a network this curved."""
    monkeypatch.setattr("training.search.second_order.PERTURBATION", 1e-6)
    lr, decay = 0.05, 0.01
    method = method_for(order=2)
    run = PlainRun(method, lr, decay)
    a, b = pairs(1), pairs(2)
    velocity = {n: torch.zeros_like(p) for n, p in method.named_parameters()}
    if momentum:
        for n, p in method.named_parameters():
            velocity[n] = torch.randn_like(p) * 0.01
            run.optimizer.state[p]["momentum_buffer"] = velocity[n].clone()
    before = {n: p.clone() for n, p in method.named_parameters()}

    def step_of(name: str, g: Tensor, p: Tensor) -> Tensor:
        return lr * (0.9 * velocity[name] + g + decay * p)

    expected = exact_gradient(method, a, b, step_of)
    found = method.alpha_gradient({"a": a, "b": b}, run)
    assert all(torch.equal(p, before[n]) for n, p in method.named_parameters())
    first = method_for().alpha_gradient({"a": a, "b": b}, run)
    assert float((found - expected).norm() / expected.norm()) < 1e-3
    assert float((first - expected).norm() / expected.norm()) > 1e-2


def test_alpha_is_moved_by_adam_with_decay():
    method = method_for(alpha_lr=0.01, alpha_weight_decay=0.1)
    alpha = method.encoder.alpha.clone().requires_grad_()
    reference = torch.optim.Adam([alpha], lr=0.01, betas=(0.5, 0.999), weight_decay=0.1)
    for step in range(4):
        alpha.grad = torch.randn(len(alpha), generator=torch.Generator().manual_seed(step)).double()
        reference.step()
        method.alpha_adam.step(method.encoder.alpha, alpha.grad)
    torch.testing.assert_close(method.encoder.alpha, alpha.detach())


def test_beta_regularisation_pulls_large_logits_down():
    method = method_for(beta_regularisation=1.0)
    logits, _ = method.encoder.space.split(method.encoder.alpha, False)
    torch.testing.assert_close(spread_by_alpha(method.encoder), (logits["cell"].softmax(1) / 6).flatten())


def test_alpha_is_no_weight():
    method = method_for()
    run = PlainRun(method)
    assert not any("alpha" in n for n, _ in method.named_parameters())
    assert {"encoder.alpha", "alpha_adam.mean", "alpha_adam.square", "alpha_adam.steps"} <= method.state_dict().keys()
    before = method.encoder.alpha.clone()
    out = method({"a": pairs(1), "b": pairs(2)})
    out["loss"].backward()
    nn.utils.clip_grad_norm_(method.parameters(), 1e-3)
    run.optimizer.step()
    assert torch.equal(method.encoder.alpha, before) and 0 < float(out["entropy"]) < 1
    method.after_step(0, run)
    assert not torch.equal(method.encoder.alpha, before)


def test_alpha_stands_still_during_the_delay():
    method = method_for(alpha_delay=0.5)
    before = method.encoder.alpha.clone()
    for step, moved in [(0, False), (4, False), (5, True)]:
        method({"a": pairs(1), "b": pairs(2)})
        method.after_step(step, NO_RUN)
        assert torch.equal(method.encoder.alpha, before) != moved


@pytest.mark.parametrize("order", [1, 2])
def test_nan_in_the_search_ends_it_with_the_weights_kept(order):
    method = method_for(order=order)
    b = pairs(2)
    b[0][0] = torch.nan
    method({"a": pairs(1), "b": b})
    weights, alpha = [p.clone() for p in method.parameters()], method.encoder.alpha.clone()
    with pytest.raises(TrainingError, match=r"architecture parameters is not finite at step 4.*Lower optim\.lr"):
        method.after_step(3, PlainRun(method))
    assert all(torch.equal(p, w) for p, w in zip(method.parameters(), weights, strict=True))
    assert torch.equal(method.encoder.alpha, alpha)


def test_nan_in_the_hessian_product_is_reported(monkeypatch):
    """Finite on half B, not finite where the finite difference looks."""
    method = method_for(order=2)
    real = gradients.by_alpha

    def broken(encoder, loss, autocast, weights=()):
        found = real(encoder, loss, autocast, weights)
        return found if weights else [found[0] * torch.nan]

    monkeypatch.setattr("training.methods.ssnas.by_alpha", broken)
    method({"a": pairs(1), "b": pairs(2)})
    with pytest.raises(TrainingError, match=r"method\.order=1"):
        method.after_step(0, PlainRun(method))


# -- whole searches --------------------------------------------------------------------------------

NET = {"family": "cell_supernet", "space": "nb201", "width": 4, "depth": 1}
SGD = {"name": "sgd", "lr": 0.05, "lr_scaling": "none", "clip_grad_norm": 5.0}


def search(**changes):
    method = {"name": "ssnas", "out_dim": 16, "alpha_lr": 0.05, **changes.pop("method", {})}
    raw = {
        "name": "ssnas_toys", "encoder": NET, "optim": SGD, "batch_size": 8, "input": {"size": [16, 16]},
        "data": {"dataset": "synthetic:shapes?n=80", "held_out": 0.2}, "monitor": None, "log_every": 1, **changes,
    }  # fmt: skip
    return tiny(method=method, **raw)


@pytest.mark.parametrize(
    "changes",
    [
        {"method": {"order": 2}},
        {
            "method": {"beta_regularisation": 5.0, "alpha_delay": 0.2, "skip_cap": 1},
            "encoder": {"family": "cell_supernet", "width": 4, "depth": 3, "partial": 2, "edge_normalisation": True},
            "precision": "bf16",
            "epochs": 2,
        },
    ],
)
def test_search_resumes_bit_for_bit(tmp_path, changes):
    recipe = search(**changes)
    whole = trainer_for(tmp_path / "whole", recipe)
    whole.run()
    found = whole.method.export(whole)
    second = in_parts(lambda: trainer_for(tmp_path / "parts", recipe), at=5)
    same_state(whole.state(), second.state())
    for name in ("genotypes.jsonl", "genotype.json"):
        if name == "genotype.json":
            second.method.export(second)
        assert (tmp_path / "parts" / name).read_text() == (tmp_path / "whole" / name).read_text()
    history = read_history(tmp_path / "whole")
    assert [r["epoch"] for r in history] == list(range(1, recipe.epochs + 1))
    assert parse_genotype(history[-1]["genotype"]).canonical() == parse_genotype(found.read_text()).canonical()
    assert (tmp_path / "whole" / "cells" / "epoch_001.svg").read_text().count("<path") in (6, 24)
    assert json.loads(found.read_text())["search"]["seed"] == recipe.seed
    metrics = [r for r in whole.folder.records() if "loss" in r]
    assert metrics[-1]["entropy"] < metrics[0]["entropy"]


def test_halves_are_disjoint_random_and_blind_to_labels(tmp_path):
    trainer = trainer_for(tmp_path / "a", search())
    a, b = trainer.parts
    assert len(a) == len(b) == len(trainer.data.train) // 2 and not set(a) & set(b)
    again = trainer_for(tmp_path / "b", search())
    assert np.array_equal(a, again.parts[0])
    other = trainer_for(tmp_path / "c", search(seed=5))
    assert not np.array_equal(a, other.parts[0])
    labels = trainer.data.dataset.labels
    counts = [np.bincount(labels[part], minlength=labels.max() + 1) for part in (a, b)]
    assert not np.array_equal(*counts)  # a stratified split would have equal counts
    rows = trainer._local_rows(0)
    size = trainer.recipe.batch_size
    assert set(rows[:size]) <= set(trainer.data.rows(a)) and set(rows[size:]) <= set(trainer.data.rows(b))


def test_search_ends_early_when_skips_take_over(tmp_path):
    recipe = search(method={"early_stop_skips": 1, "alpha_lr": 1e-3}, epochs=4)
    trainer = trainer_for(tmp_path / "run", recipe)
    kept = []

    def favour_skips(step):
        if step == trainer.steps_per_epoch:
            kept.append(trainer.method.encoder.alpha.clone())
            table = trainer.method.encoder.alpha.view(6, 5)
            table[:, NB201_OPS.index("skip_connect")] += 10

    trainer.method.encoder.alpha.view(6, 5)[:, NB201_OPS.index("nor_conv_3x3")] += 1
    trainer.run(on_step=favour_skips)
    assert trainer.step == 2 * trainer.steps_per_epoch and trainer.method.finished
    assert torch.equal(trainer.method.encoder.alpha, kept[0])
    history = read_history(tmp_path / "run")
    assert [r["skips"] for r in history] == [0, 6] and history[-1]["stopped"]
    resumed = trainer_for(tmp_path / "run", recipe)
    assert resumed.resume()
    resumed.run()
    assert resumed.step == trainer.step


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"encoder": {"model": "resnet10t"}}, "encoder.family=cell_supernet"),
        ({"accumulate": 2}, "accumulate=1"),
        ({"method": {"order": 2}, "optim": {"name": "lars"}}, "optim.name=sgd"),
        ({"batch_size": 64}, "two halves of 32"),
    ],
)
def test_searches_that_cannot_be(tmp_path, changes, said):
    with pytest.raises((ConfigError, TrainingError), match=said):
        trainer_for(tmp_path / "run", search(**changes))
