"""LARS against steps in plain Python; Muon against the SVD and AdamW; schedule; parameter groups."""

from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError
from timm.optim import Muon
from torch import nn

from training.optim import (
    LARS,
    OptimConfig,
    build_optimizer,
    learning_rate,
    parameter_groups,
    peak_learning_rate,
    schedule,
    warmup_steps,
)
from zoo.errors import ConfigError


class Plain:
    """LARS for one tensor as a list of floats, from the sheet's formula."""

    def __init__(self, w: list[float], decay: float, adapt: bool) -> None:
        self.w, self.v, self.decay, self.adapt = list(w), [0.0] * len(w), decay, adapt

    def step(self, g: list[float], lr: float, momentum: float = 0.9, trust: float = 0.001) -> None:
        g = [gi + self.decay * wi for gi, wi in zip(g, self.w, strict=True)]
        w_norm, g_norm = math.sqrt(sum(x * x for x in self.w)), math.sqrt(sum(x * x for x in g))
        ratio = trust * w_norm / g_norm if self.adapt and w_norm > 0 and g_norm > 0 else 1.0
        self.v = [momentum * vi + lr * ratio * gi for vi, gi in zip(self.v, g, strict=True)]
        self.w = [wi - vi for wi, vi in zip(self.w, self.v, strict=True)]


def test_lars_equals_hand_computed_steps():
    """Several steps with a changing learning rate: adapted, zero-weight, zero-gradient and excluded tensors."""
    torch.manual_seed(0)
    starts = {
        "weight": torch.randn(2, 3),
        "zero": torch.zeros(2, 2),
        "still": torch.randn(2, 2),
        "bias": torch.randn(3),
    }
    params = {name: nn.Parameter(w.double()) for name, w in starts.items()}
    plain = {
        "weight": Plain(starts["weight"].double().flatten().tolist(), 0.1, True),
        "zero": Plain([0.0] * 4, 0.1, True),
        "still": Plain(starts["still"].double().flatten().tolist(), 0.0, True),
        "bias": Plain(starts["bias"].double().tolist(), 0.0, False),
    }
    groups = [
        {"params": [params["weight"], params["zero"]], "weight_decay": 0.1, "adapt": True},
        {"params": [params["still"]], "weight_decay": 0.0, "adapt": True},
        {"params": [params["bias"]], "weight_decay": 0.0, "adapt": False},
    ]
    optimizer = LARS(groups, lr=1.0)
    for lr in (0.0, 0.5, 2.0, 1.0, 0.25):
        for group in optimizer.param_groups:
            group["lr"] = lr
        for name, p in params.items():
            p.grad = torch.zeros_like(p) if name == "still" and lr in (0.5, 2.0) else torch.randn_like(p)
            plain[name].step(p.grad.flatten().tolist(), lr)
        optimizer.step()
        for name, p in params.items():
            assert p.flatten().tolist() == pytest.approx(plain[name].w, rel=1e-9, abs=1e-12), (name, lr)


def test_lars_leaves_the_gradient_and_frozen_parameters_alone():
    used, unused = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))
    used.grad = torch.full((2, 2), 0.5)
    LARS([{"params": [used, unused], "weight_decay": 0.1}], lr=1.0).step()
    assert torch.equal(used.grad, torch.full((2, 2), 0.5))
    assert torch.equal(unused, torch.ones(2, 2)) and not torch.equal(used, torch.ones(2, 2))


@pytest.mark.parametrize("name", ["lars", "sgd", "adamw", "muon"])
def test_saved_state_continues_bit_for_bit(name):
    torch.manual_seed(0)
    config = OptimConfig(name=name, lr=0.1)
    gradients = [[torch.randn_like(p) for p in nets().parameters()] for _ in range(4)]

    def run(module: nn.Module, optimizer: torch.optim.Optimizer, steps: list[list[torch.Tensor]]) -> None:
        for grads in steps:
            for p, g in zip(module.parameters(), grads, strict=True):
                p.grad = g.clone()
            optimizer.step()

    whole = nets()
    run(whole, build_optimizer(whole, config, 64), gradients)
    first = nets()
    optimizer = build_optimizer(first, config, 64)
    run(first, optimizer, gradients[:2])
    second = nets()
    second.load_state_dict(first.state_dict())
    continued = build_optimizer(second, config, 64)
    continued.load_state_dict(optimizer.state_dict())
    run(second, continued, gradients[2:])
    for a, b in zip(whole.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


class Mixed(nn.Module):
    """One of each kind of parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.group = nn.GroupNorm(2, 4)
        self.layer = nn.LayerNorm((4, 2))
        self.gru = nn.GRU(2, 2)
        self.fc = nn.Linear(4, 2)
        self.scale = nn.Parameter(torch.ones(4))
        self.frozen = nn.Parameter(torch.ones(4, 4), requires_grad=False)
        self.tied = self.fc


def nets() -> Mixed:
    torch.manual_seed(1)
    return Mixed()


def names(module: nn.Module, group: dict) -> set[str]:
    return {name for name, p in module.named_parameters() if any(p is q for q in group["params"])}


WEIGHTS = {"conv.weight", "gru.weight_ih_l0", "gru.weight_hh_l0", "fc.weight"}
BIASES = {"conv.bias", "gru.bias_ih_l0", "gru.bias_hh_l0", "fc.bias"}
NORMS = {f"{n}.{p}" for n in ("norm", "group", "layer") for p in ("weight", "bias")} | {"scale"}


@pytest.mark.parametrize(
    ("decay", "expected"),
    [("weights", WEIGHTS), ("weights_and_biases", WEIGHTS | BIASES), ("all", WEIGHTS | BIASES | NORMS)],
)
def test_parameter_groups(decay, expected):
    module = Mixed()
    groups = parameter_groups(module, 0.1, decay=decay)
    decayed = set().union(*(names(module, g) for g in groups if g["weight_decay"] == 0.1))
    rest = set().union(*(names(module, g) for g in groups if g["weight_decay"] == 0), set())
    assert decayed == expected
    assert rest == (WEIGHTS | BIASES | NORMS) - expected
    assert sum(len(g["params"]) for g in groups) == len(WEIGHTS | BIASES | NORMS)


@pytest.mark.parametrize("decay", ["weights", "all"])
def test_lars_adapts_weights_only(decay):
    module = Mixed()
    groups = parameter_groups(module, 0.1, decay=decay, lars=True)
    assert set().union(*(names(module, g) for g in groups if g["adapt"])) == WEIGHTS


def muon_step(start: torch.Tensor, grad: torch.Tensor, lr: float, decay: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The first step on the matrix `start`: what it added, and the orthogonal factor of the gradient, by SVD."""
    u, _, v = torch.linalg.svd(grad.flatten(1), full_matrices=False)
    return start.flatten(1) * -lr * decay, -lr * 0.2 * max(grad.flatten(1).shape) ** 0.5 * (u @ v)


@pytest.mark.parametrize("shape", [(8, 12), (6, 4, 3, 3)])
def test_muon_moves_matrices_and_kernels_along_the_orthogonalised_gradient(shape):
    torch.manual_seed(0)
    module = nn.Linear(12, 8) if len(shape) == 2 else nn.Conv2d(4, 6, 3).to(memory_format=torch.channels_last)
    config = OptimConfig(name="muon", lr=0.01, lr_scaling="none", weight_decay=0.5)
    optimizer = build_optimizer(module, config, 64)
    start, grad = module.weight.detach().clone(), torch.randn(shape)
    module.weight.grad, module.bias.grad = grad.clone(), torch.zeros_like(module.bias)
    optimizer.step()
    decayed, expected = muon_step(start, grad, 0.01, 0.5)
    step = (module.weight.detach() - start).flatten(1) - decayed
    # Newton-Schulz brings singular values near 1, not to it.
    assert torch.nn.functional.cosine_similarity(step.flatten(), expected.flatten(), dim=0) > 0.98
    assert 0.8 < float(step.norm() / expected.norm()) < 1.2


def test_muon_gives_all_else_to_adamw_at_the_scheduled_rate():
    """Norms, biases, and shapes too narrow to orthogonalise; the rate changes from step to step."""
    torch.manual_seed(0)
    ours = nets()
    theirs = {name: nn.Parameter(p.detach().clone()) for name, p in ours.named_parameters() if p.requires_grad}
    rest = BIASES | NORMS | {"gru.weight_ih_l0", "gru.weight_hh_l0", "fc.weight"}  # 2 columns or rows
    config = OptimConfig(name="muon", lr=0.01, lr_scaling="none", weight_decay=0.1, betas=(0.8, 0.9))
    optimizer = build_optimizer(ours, config, 64)
    groups = [
        {"params": [theirs[n] for n in sorted(rest & WEIGHTS)], "weight_decay": 0.1},
        {"params": [theirs[n] for n in sorted(rest - WEIGHTS)], "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(groups, lr=0.01, betas=(0.8, 0.9))
    for lr in (0.0, 0.02, 0.01):
        for group in [*optimizer.param_groups, *adamw.param_groups]:
            group["lr"] = lr
        for name, p in ours.named_parameters():
            if p.requires_grad:
                p.grad = torch.randn_like(p)
                theirs[name].grad = p.grad.clone()
        optimizer.step()
        adamw.step()
    for name, p in ours.named_parameters():
        if name in rest:
            torch.testing.assert_close(p, theirs[name], rtol=1e-5, atol=1e-5, msg=name)
    assert not torch.equal(ours.conv.weight, theirs["conv.weight"])


def test_muon_without_a_timm_that_has_it_says_so(monkeypatch):
    import timm.optim

    monkeypatch.delattr(timm.optim, "Muon")
    with pytest.raises(ConfigError, match=r"needs timm 1\.0\.26.*pip install"):
        build_optimizer(nn.Linear(8, 8), OptimConfig(name="muon"), 64)


def test_peak_learning_rate():
    """Linear 0.3 and sqrt 0.075 meet at batch 4096 (arXiv 2002.05709, B.1)."""
    linear = OptimConfig(lr=0.3, lr_scaling="linear")
    sqrt = OptimConfig(lr=0.075, lr_scaling="sqrt")
    assert peak_learning_rate(linear, 4096) == pytest.approx(4.8)
    assert peak_learning_rate(sqrt, 4096) == pytest.approx(4.8)
    assert peak_learning_rate(linear, 128) == pytest.approx(0.15)
    assert peak_learning_rate(OptimConfig(lr=0.3, lr_scaling="none"), 4096) == 0.3


def test_learning_rate_warms_up_and_falls():
    rates = [learning_rate(step, 110, 10, 2.0, 0.2) for step in range(111)]
    assert rates[0] == 0 and rates[5] == pytest.approx(1.0) and rates[10] == 2.0
    assert rates[60] == pytest.approx(1.1)
    assert rates[110] == pytest.approx(0.2)
    assert rates[:11] == sorted(rates[:11]) and rates[10:] == sorted(rates[10:], reverse=True)
    assert learning_rate(0, 5, 0, 2.0) == 2.0
    assert learning_rate(0, 0, 0, 2.0) == 2.0


def test_constant_schedule_keeps_the_peak():
    config = OptimConfig(schedule="constant", warmup_epochs=1)
    rates = [schedule(step, 40, config, 10, 3.0) for step in range(40)]
    assert rates[:2] == [0, pytest.approx(0.3)] and set(rates[10:]) == {3.0}


def test_warmup_steps():
    assert warmup_steps(OptimConfig(warmup_epochs=10), 1000, 20) == 200
    assert warmup_steps(OptimConfig(warmup_fraction=0.05), 1000, 20) == 50
    assert warmup_steps(OptimConfig(), 1000, 20) == 0
    with pytest.raises(ConfigError, match=r"200 steps.*only 100.*warmup_fraction"):
        warmup_steps(OptimConfig(warmup_epochs=10), 100, 20)


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "adam"},
        {"lr": 0},
        {"lr": math.inf},
        {"momentum": 1.0},
        {"warmup_epochs": 1, "warmup_fraction": 0.1},
        {"betas": (0.9, 1.0)},
        {"name": "lars", "nesterov": True},
        {"learning_rate": 1},
    ],
)
def test_wrong_configs_are_refused(wrong):
    with pytest.raises(ValidationError):
        OptimConfig(**wrong)


@pytest.mark.parametrize(
    ("name", "cls"), [("lars", LARS), ("sgd", torch.optim.SGD), ("adamw", torch.optim.AdamW), ("muon", Muon)]
)
def test_build_optimizer_lowers_a_loss(name, cls):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    x, y = torch.randn(32, 4), torch.randn(32, 1)
    config = OptimConfig(name=name, lr={"lars": 0.05, "sgd": 0.1, "adamw": 0.01, "muon": 0.01}[name], lr_scaling="none")
    optimizer = build_optimizer(module, config, 32)
    assert type(optimizer) is cls
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = (module(x) - y).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.95 * losses[0]


def test_nothing_to_train_is_an_error():
    module = nn.Linear(2, 2).requires_grad_(False)
    with pytest.raises(ConfigError, match="no trainable parameter"):
        build_optimizer(module, OptimConfig(), 32)


def test_a_cosine_by_epoch_stands_still_within_each_epoch():
    """MoCo's and CLSA's code: lr * (1 + cos(pi epoch / epochs)) / 2, set before each epoch."""
    config = OptimConfig(name="sgd", lr=0.4, lr_scaling="none", schedule="cosine_by_epoch")
    found = [schedule(step, 30, config, 10, 0.4) for step in range(30)]
    expected = [0.4 * 0.5 * (1 + math.cos(math.pi * (step // 10) / 3)) for step in range(30)]
    assert found == pytest.approx(expected)
    warm = OptimConfig(name="sgd", lr=0.4, lr_scaling="none", schedule="cosine_by_epoch", warmup_epochs=0.5)
    assert [schedule(step, 30, warm, 10, 0.4) for step in (0, 1, 4)] == pytest.approx([0, 0.08, 0.32])
    assert schedule(5, 30, warm, 10, 0.4) == schedule(9, 30, warm, 10, 0.4) == pytest.approx(0.4)
    assert schedule(10, 30, warm, 10, 0.4) == schedule(19, 30, warm, 10, 0.4) < 0.4
