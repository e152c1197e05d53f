"""Optimisers, parameter groups and the learning-rate schedule."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from importlib.metadata import version
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from zoo.errors import ConfigError
from zoo.strict import Strict

Decay = Literal["weights", "weights_and_biases", "all"]
Schedule = Literal["cosine", "cosine_by_epoch", "constant", "steps"]


class OptimConfig(Strict):
    """Optimizer and learning-rate schedule."""

    name: Literal["lars", "sgd", "adamw", "muon"] = Field(
        default="lars",
        description="Optimizer. Muon's steps are as large as AdamW's, so that AdamW's lr and "
        "weight_decay suit it (see build_muon).",
    )
    lr: float = Field(default=0.3, gt=0, description="Base learning rate, which lr_scaling turns into the peak.")
    lr_scaling: Literal["none", "linear", "sqrt"] = Field(
        default="linear",
        description="none: lr. linear: lr * B / 256. sqrt: lr * sqrt(B), B the global batch. SimCLR "
        "(arXiv 2002.05709, B.1) takes LARS with linear 0.3 or sqrt 0.075: equal at B = "
        "4096, sqrt better for small batches and few epochs.",
    )
    momentum: float = Field(default=0.9, ge=0, lt=1, description="Of LARS, SGD and Muon; 0.95 is usual for Muon.")
    nesterov: bool = Field(default=False, description="Nesterov momentum, of SGD and Muon.")
    betas: tuple[float, float] = Field(default=(0.9, 0.999), description="Of AdamW, and of Muon for what is no matrix.")
    trust_coefficient: float = Field(default=0.001, gt=0, description="Of LARS.")
    weight_decay: float = Field(default=1e-4, ge=0, description="Decay of the weights that the setting decay names.")
    decay: Decay = Field(
        default="weights",
        description="What takes weight_decay. weights: neither norms nor biases (LARS needs this). "
        "weights_and_biases: no norms (SimCLR's code under SGD). all: everything (MoCo, "
        "CLSA).",
    )
    warmup_epochs: float | None = Field(
        default=None, ge=0, description="Epochs in which the rate rises linearly from 0."
    )
    warmup_fraction: float | None = Field(
        default=None, ge=0, lt=1, description="The same as a fraction of all steps; give one of the two."
    )
    schedule: Schedule = Field(
        default="cosine",
        description="Learning rate after the warm-up. cosine moves it every step; cosine_by_epoch at the start of each "
        "epoch, as MoCo's and CLSA's code does.",
    )
    final_lr: float = Field(default=0.0, ge=0, description="Rate at which the cosine ends.")
    step_epochs: float | None = Field(default=None, gt=0, description="Epochs between two steps of schedule steps.")
    step_factor: float = Field(
        default=0.1, gt=0, le=1, description="Factor on the rate at each step of schedule steps."
    )
    clip_grad_norm: float | None = Field(
        default=None, gt=0, description="Largest norm of the gradient of all parameters; null: no limit."
    )
    clip_modules: bool = Field(
        default=False,
        description="Apply clip_grad_norm to the encoder and to each head on its own, as MS2L's code does, instead of "
        "to all parameters together.",
    )

    encoder_lr_scale: float = Field(
        default=1.0, gt=0, description="Factor on the encoder's learning rate; heads take the whole one."
    )
    layer_decay: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Factor on the rate for each layer further from the encoder's output, for networks of timm; null: "
        "all layers learn alike.",
    )
    freeze: tuple[str, ...] = Field(
        default=(),
        description="Parts of the encoder that are not trained, by the names of its modules, as in backbone.conv1; "
        "their batch norms keep their statistics.",
    )
    batch_norm: Literal["train", "eval"] = Field(
        default="train",
        description="eval: batch norms of the encoder normalise by the statistics that they came with, and keep them.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> OptimConfig:
        if self.warmup_epochs is not None and self.warmup_fraction is not None:
            raise ValueError("give warmup_epochs or warmup_fraction, not both")
        if (self.schedule == "steps") != (self.step_epochs is not None):
            raise ValueError("schedule 'steps' needs step_epochs, and only it takes it")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must lie in [0, 1), got {self.betas}")
        if self.nesterov and (self.name not in ("sgd", "muon") or self.momentum == 0):
            raise ValueError("nesterov needs name 'sgd' or 'muon' and momentum > 0")
        return self


def peak_learning_rate(config: OptimConfig, global_batch: int) -> float:
    """The learning rate after warm-up: `config.lr` scaled to `global_batch` samples per step."""
    factor = {"none": 1.0, "linear": global_batch / 256, "sqrt": math.sqrt(global_batch)}[config.lr_scaling]
    return config.lr * factor


def warmup_steps(config: OptimConfig, total_steps: int, steps_per_epoch: float) -> int:
    """Length of the warm-up in optimiser steps.

    Raises:
        ConfigError: the warm-up is as long as the run, so the peak would never be reached.
    """
    if config.warmup_fraction is not None:
        return round(config.warmup_fraction * total_steps)
    steps = round((config.warmup_epochs or 0) * steps_per_epoch)
    if steps and steps >= total_steps:
        raise ConfigError(
            f"warmup_epochs={config.warmup_epochs:g} is {steps} steps, but the run has only {total_steps}; "
            "train longer or set warmup_fraction=0.1 instead"
        )
    return steps


def learning_rate(
    step: int, total_steps: int, warmup_steps: int, peak: float, final: float = 0.0, schedule: Schedule = "cosine"
) -> float:
    """Learning rate of optimiser step `step` (0-based): linear from 0 to `peak`, then cosine to `final`.

    `final` is reached at `step == total_steps`, one past the last. Source: google-research/simclr model_util.py.
    """
    if step < warmup_steps:
        return peak * step / warmup_steps
    if schedule != "cosine":
        return peak
    progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
    return final + (peak - final) * 0.5 * (1 + math.cos(math.pi * progress))


def schedule(step: int, total_steps: int, config: OptimConfig, steps_per_epoch: float, peak: float) -> float:
    """`learning_rate` of `step` as `config` asks. Raises as `warmup_steps`."""
    warmup = warmup_steps(config, total_steps, steps_per_epoch)
    if config.schedule == "steps" and step >= warmup:
        return peak * config.step_factor ** int(step // (config.step_epochs * steps_per_epoch))
    if config.schedule == "cosine_by_epoch":
        if step >= warmup:
            step = max(warmup, int(step // steps_per_epoch * steps_per_epoch))
        return learning_rate(step, total_steps, warmup, peak, config.final_lr)
    return learning_rate(step, total_steps, warmup, peak, config.final_lr, config.schedule)


def parameter_groups(
    module: nn.Module,
    weight_decay: float,
    *,
    decay: Decay = "weights",
    lars: bool = False,
    muon: bool = False,
    scales: dict[nn.Parameter, float] | None = None,
) -> list[dict[str, Any]]:
    """Trainable parameters of `module` as optimiser groups, in a fixed order.

    Args:
        decay: which parameters take `weight_decay`, see `OptimConfig`.
        lars: add the key `adapt`: False for norms, biases and all other 1-d tensors.
        muon: add the key `use_fallback`: True for these.
        scales: add the key `lr_scale`, the factor on the learning rate of parameters that have one here.
    """
    decayed = {"weights": ("weight",), "weights_and_biases": ("weight", "bias"), "all": ("weight", "bias", "norm")}[
        decay
    ]
    groups: dict[tuple[bool, bool, float], dict[str, Any]] = {}
    for kind, parameter in _kinds(module):
        key = (kind in decayed, (lars or muon) and kind == "weight", (scales or {}).get(parameter, 1.0))
        group = groups.setdefault(key, {"params": [], "weight_decay": weight_decay if key[0] else 0.0})
        if lars:
            group["adapt"] = key[1]
        if muon:
            group["use_fallback"] = not key[1]
        if scales:
            group["lr_scale"] = key[2]
        group["params"].append(parameter)
    return list(groups.values())


def _kinds(module: nn.Module) -> Iterable[tuple[str, nn.Parameter]]:
    seen: set[nn.Parameter] = set()
    for owner in module.modules():
        is_norm = isinstance(owner, (_NormBase, nn.GroupNorm, nn.LayerNorm)) or "Norm" in type(owner).__name__
        for name, parameter in owner.named_parameters(recurse=False):
            if parameter in seen or not parameter.requires_grad:
                continue
            seen.add(parameter)
            if is_norm:
                yield "norm", parameter
            elif parameter.ndim > 1:
                yield "weight", parameter
            else:
                yield "bias" if "bias" in name else "norm", parameter


def build_optimizer(
    module: nn.Module, config: OptimConfig, global_batch: int, scales: dict[nn.Parameter, float] | None = None
) -> torch.optim.Optimizer:
    """The optimiser of a run, at its peak learning rate; `set_learning_rate` moves it. `scales`: `parameter_groups`.

    Raises:
        ConfigError: nothing to train, or the installed timm has no Muon.
    """
    own = {config.name: True} if config.name in ("lars", "muon") else {}
    groups = parameter_groups(module, config.weight_decay, decay=config.decay, scales=scales, **own)
    if not groups:
        raise ConfigError(f"{type(module).__name__} has no trainable parameter; unfreeze some before training")
    lr = peak_learning_rate(config, global_batch)
    if config.name == "lars":
        return LARS(groups, lr=lr, momentum=config.momentum, trust_coefficient=config.trust_coefficient)
    if config.name == "muon":
        return build_muon(groups, config, lr)
    fused = all(p.device.type in ("cuda", "cpu") for group in groups for p in group["params"])
    if config.name == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=config.momentum, nesterov=config.nesterov, fused=fused)
    return torch.optim.AdamW(groups, lr=lr, betas=config.betas, fused=fused)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """`lr` for every group, times its own factor where it has one."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)


def build_muon(groups: list[dict[str, Any]], config: OptimConfig, lr: float) -> torch.optim.Optimizer:
    """timm's Muon (Jordan et al., https://kellerjordan.github.io/posts/muon/), which takes convolutions as well.

    Matrices, and kernels `(out, in, h, w)` as matrices `(out, in * h * w)`, move along their orthogonalised momentum,
    scaled by 0.2 * sqrt(max(out, in)) to the size of an AdamW step (arXiv 2502.16982), at `lr`. Norms, biases and what
    timm finds too small or too narrow (a side below 4, depthwise kernels, 128 times as long as wide) take AdamW at the
    same `lr`, or NAdamW with `nesterov`. Weight decay is decoupled in both.

    Raises:
        ConfigError: the installed timm has no Muon.
    """
    try:
        from timm.optim import Muon
    except ImportError:
        raise ConfigError(
            f"optim.name=muon needs timm 1.0.26 or newer, installed is {version('timm')}; "
            "`pip install -U timm`, or use optim.name=adamw"
        ) from None
    optimizer = Muon(
        groups,
        lr=lr,
        momentum=config.momentum,
        nesterov=config.nesterov,
        betas=config.betas,
        ns_coefficients="quintic",
        adjust_lr_fn="match_rms_adamw",
        conv_mode="flatten",
    )
    optimizer.register_step_pre_hook(_one_rate)
    return optimizer


def _one_rate(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    """Let AdamW's part follow the schedule: timm 1.0.26 keeps its rate in a key of its own, which newer ones ignore."""
    for group in optimizer.param_groups:
        group["adamw_lr"] = group["lr"]


class LARS(torch.optim.Optimizer):
    """Layer-wise adaptive rate scaling (arXiv 1708.03888) as in google-research/simclr lars_optimizer.py.

    Per tensor: `g += weight_decay * w`; `r = trust_coefficient * |w| / |g|`, or 1 if either norm is 0;
    `v = momentum * v + lr * r * g`; `w -= v`. Groups with `adapt=False` take `r = 1`.
    The learning rate enters inside the momentum buffer, unlike torch's SGD.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust_coefficient: float = 0.001,
        adapt: bool = True,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "momentum": momentum,
                "weight_decay": weight_decay,
                "trust_coefficient": trust_coefficient,
                "adapt": adapt,
            },
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:
        """One update of every parameter that has a gradient; no host synchronisation."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                self._update(group, params)
        return loss

    def _update(self, group: dict[str, Any], params: list[nn.Parameter]) -> None:
        steps = [p.grad for p in params]
        if group["weight_decay"]:
            steps = torch._foreach_add(steps, params, alpha=group["weight_decay"])
        if group["adapt"]:
            steps = torch._foreach_mul(steps, self._ratios(group, params, steps))
        steps = torch._foreach_mul(steps, float(group["lr"]))
        for p in params:
            if "momentum_buffer" not in self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        buffers = [self.state[p]["momentum_buffer"] for p in params]
        torch._foreach_mul_(buffers, group["momentum"])
        torch._foreach_add_(buffers, steps)
        torch._foreach_sub_(params, buffers)

    @staticmethod
    def _ratios(group: dict[str, Any], params: list[nn.Parameter], grads: list[Tensor]) -> list[Tensor]:
        weight = torch.stack(torch._foreach_norm(params))
        grad = torch.stack(torch._foreach_norm(grads))
        ratio = group["trust_coefficient"] * weight / grad
        return list(torch.where((weight > 0) & (grad > 0), ratio, 1.0).unbind())
