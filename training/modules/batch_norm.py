"""Batch norms of contrastive training: over all processes, or over groups of samples."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from training import distributed
from training.distributed import _Sum, world_size
from training.losses import at_least_float32
from zoo.errors import ConfigError

# -- batch normalisation over the global batch -----------------------------------------------------


def convert_batch_norm(module: nn.Module) -> nn.Module:
    """Make every batch norm of `module` use the statistics of the global batch; keys stay the same.

    `nn.SyncBatchNorm` on CUDA, `CrossRankBatchNorm` elsewhere (SyncBatchNorm exists for accelerators
    only). Call it after `module.to(device)` and before DistributedDataParallel. In place, except
    that a module which is itself a batch norm is returned anew.
    """
    if any(p.device.type == "cuda" for p in module.parameters()):
        from timm.layers import convert_sync_batchnorm

        return convert_sync_batchnorm(module)
    if isinstance(module, _BatchNorm):
        return CrossRankBatchNorm(module)
    for name, child in module.named_children():
        setattr(module, name, convert_batch_norm(child))
    return module


class CrossRankBatchNorm(_BatchNorm):
    """A batch norm whose training statistics are those of all ranks' samples, on any device.

    Takes over parameters, buffers and (for timm's BatchNormAct2d) drop and act of `source`.
    Two passes, mean and then variance, so that float32 does not lose digits to cancellation.
    """

    def __init__(self, source: _BatchNorm) -> None:
        super().__init__(source.num_features, source.eps, source.momentum, False, source.track_running_stats)
        self.affine = source.affine
        for name in ("weight", "bias"):
            self.register_parameter(name, getattr(source, name))
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, getattr(source, name))
        self.drop = getattr(source, "drop", None)
        self.act = getattr(source, "act", None)
        self.train(source.training)

    def _check_input_dim(self, x: Tensor) -> None:
        if x.ndim < 2:
            raise ValueError(f"batch norm takes (N, C, ...), got {tuple(x.shape)}")

    def forward(self, x: Tensor) -> Tensor:
        """`(N, C, ...)` -> the same shape and dtype."""
        self._check_input_dim(x)
        across = world_size() > 1 and (self.training or not self.track_running_stats)
        out = self._across_ranks(x) if across else super().forward(x)
        for extra in (self.drop, self.act):
            out = out if extra is None else extra(out)
        return out

    def _across_ranks(self, x: Tensor) -> Tensor:
        axes = [0, *range(2, x.ndim)]
        shape = [1, -1, *[1] * (x.ndim - 2)]
        values = at_least_float32(x)
        samples = values.new_tensor([values.numel() / values.shape[1]])
        totals = _Sum.apply(torch.cat([values.sum(axes), samples]))
        count = totals[-1].detach()
        mean = totals[:-1] / count
        centred = values - mean.view(shape)
        var = _Sum.apply(centred.square().sum(axes)) / count
        if self.training and self.track_running_stats:
            self._track(mean.detach(), var.detach() * count / (count - 1))
        scale = torch.rsqrt(var + self.eps)
        scale = scale if self.weight is None else scale * self.weight
        out = centred * scale.view(shape)
        return (out if self.bias is None else out + self.bias.view(shape)).to(x.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, unbiased_var: Tensor) -> None:
        self.num_batches_tracked.add_(1)
        fraction = 1 / self.num_batches_tracked if self.momentum is None else self.momentum
        self.running_mean += fraction * (mean - self.running_mean)
        self.running_var += fraction * (unbiased_var - self.running_var)


class SplitBatchNorm(nn.Module):
    """A batch norm whose training statistics are those of each run of `group` samples.

    Takes over parameters, buffers and (for timm's BatchNormAct2d) drop and act of `source`; keys of the
    state stay the same. Running statistics take one step per forward, towards the mean over the groups;
    each rank knows its own groups only until `average_statistics`. No subclass of torch's batch norms, so
    that `convert_batch_norm` leaves it alone.
    """

    def __init__(self, source: _BatchNorm, group: int) -> None:
        super().__init__()
        self.eps, self.momentum, self.group = source.eps, source.momentum, group
        for name in ("weight", "bias"):
            self.register_parameter(name, getattr(source, name))
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, getattr(source, name))
        self.drop = getattr(source, "drop", None)
        self.act = getattr(source, "act", None)
        self.train(source.training)

    def forward(self, x: Tensor) -> Tensor:
        """`(N, C, ...)` -> the same shape; in training N is a multiple of `group`.

        Raises:
            ConfigError: it is not.
        """
        if self.training or self.running_mean is None:
            out = self._by_group(x)
        else:
            out = F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
        for extra in (self.drop, self.act):
            out = out if extra is None else extra(out)
        return out

    def _by_group(self, x: Tensor) -> Tensor:
        if len(x) % self.group:
            raise ConfigError(
                f"a pass of {len(x)} samples does not fall into batch-norm groups of {self.group}; raise "
                "method.bn_groups, or lower accumulate"
            )
        parts = x.split(self.group)
        momentum = self._count()
        means, variances = [self._copies(b, len(parts)) for b in (self.running_mean, self.running_var)]
        out = [
            F.batch_norm(part, mean, variance, self.weight, self.bias, True, momentum, self.eps)
            for part, mean, variance in zip(parts, means, variances, strict=True)
        ]
        if self.running_mean is not None:
            self.running_mean.copy_(torch.stack(means).mean(dim=0))
            self.running_var.copy_(torch.stack(variances).mean(dim=0))
        return out[0] if len(out) == 1 else torch.cat(out)

    def _count(self) -> float:
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        return 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum

    @staticmethod
    def _copies(buffer: Tensor | None, count: int) -> list[Tensor | None]:
        return [None if buffer is None else buffer.clone() for _ in range(count)]

    def extra_repr(self) -> str:
        return f"group={self.group}, eps={self.eps}, momentum={self.momentum}"


def split_batch_norm(module: nn.Module, group: int) -> nn.Module:
    """Turn every batch norm of `module` into a `SplitBatchNorm`.

    In place, except that a module which is itself a batch norm is returned anew.
    """
    if isinstance(module, _BatchNorm):
        return SplitBatchNorm(module, group)
    for name, child in module.named_children():
        setattr(module, name, split_batch_norm(child, group))
    return module


def group_size(groups: int, batch: int, accumulate: int = 1) -> int:
    """Samples per batch-norm group when a global `batch`, taken in `accumulate` passes, falls into `groups`.

    Keys are shuffled among the groups of one pass over all processes, so a single group would share its statistics
    with the queries' positives as if there were none; and a group that holds part of a view would share it with
    another view of the same images.

    Raises:
        ConfigError: groups of unequal size or of one sample, groups that span processes, passes or views, or a pass
            with a single group.
    """
    world = distributed.world_size()
    if batch % groups or batch // groups < 2:
        raise ConfigError(
            f"method.bn_groups={groups} must divide batch_size={batch} into groups of at least 2 samples; "
            f"choose one of {[g for g in (1, 2, 4, 8, 16, 32, 64) if batch % g == 0 and batch // g >= 2]}"
        )
    if groups > 1 and (groups % (world * accumulate) or groups < 2 * accumulate):
        shares = world * accumulate
        fits = [g for g in range(2 * accumulate, batch // 2 + 1) if g % shares == 0 and batch % g == 0]
        fix = f"use {min(fits, key=lambda g: abs(g - groups))}" if fits else "lower accumulate, or raise batch_size"
        raise ConfigError(
            f"method.bn_groups={groups} must be a multiple of processes x accumulate = {world} x {accumulate}, with at "
            f"least two groups in each of the {accumulate} passes: otherwise ShuffleBN hides nothing; {fix}"
        )
    return batch // groups


@torch.no_grad()
def average_statistics(module: nn.Module) -> None:
    """Make the running statistics of every `SplitBatchNorm` their mean over ranks: one collective for all."""
    if distributed.world_size() == 1:
        return
    norms = [m for m in module.modules() if isinstance(m, SplitBatchNorm) and m.running_mean is not None]
    buffers = [b for m in norms for b in (m.running_mean, m.running_var)]
    if not buffers:
        return
    mean = distributed.all_reduce_mean(torch.cat(buffers))
    torch._foreach_copy_(buffers, list(mean.split([len(b) for b in buffers])))
