"""What MoCo and its descendants share: a momentum encoder, a queue of its keys, and their settings.

He et al., 2020, arXiv 1911.05722 (MoCo); Chen et al., 2020, arXiv 2003.04297 (MoCo v2).
"""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from training import distributed
from training.augment.choice import Augment
from training.augment.parameters import PRESETS
from training.losses import at_least_float32, memory_similarities
from training.methods.base import Context, Method, Run
from training.methods.image_views import embeddings
from training.modules.batch_norm import SplitBatchNorm, average_statistics, group_size, split_batch_norm
from training.modules.heads import Head, HiddenDim, OutDim, projection_head
from zoo.encoder import Encoder
from zoo.errors import ConfigError


class MomentumConfig(Method.Config):
    """Settings of a method with a momentum encoder and a queue; defaults are MoCo v2's on ImageNet."""

    temperature: float = Field(default=0.2, gt=0, description="tau of the contrastive loss.")
    queue_size: int = Field(
        default=65536,
        ge=1,
        description="K, a multiple of the keys that a step adds. More than the training set is known to hurt; 4096 "
        "suits CIFAR-10.",
    )
    momentum: float = Field(default=0.999, ge=0, le=1, description="m of the key encoder.")
    final_momentum: float | None = Field(
        default=None, ge=0, le=1, description="m rises to this by a cosine over the run; null: it stays."
    )
    negatives: Literal["queue", "batch_and_queue"] = Field(
        default="queue",
        description="queue: 1 + K candidates per query (MoCo). batch_and_queue: also all other keys of the global "
        "batch (CLSA's code).",
    )
    bn_groups: int = Field(
        default=8,
        ge=1,
        description="Groups of the global batch that are normalised on their own, with the keys shuffled among those "
        "of a pass: a multiple of processes x accumulate, and at least two in a pass. The released ImageNet runs had "
        "one per GPU, 8. 1 shares statistics over the whole pass, which leaks the positives (for ablations, and "
        "harmless for encoders without batch norm).",
    )
    head: Head = "paper"
    hidden_dim: HiddenDim = None
    out_dim: OutDim = 128
    augment: Augment = PRESETS["moco"]


class Queue(nn.Module):
    """The last K keys, oldest overwritten first; buffers, so they belong to the training state.

    Args:
        size: K. dim: of a key. per_step: how many keys one step adds.

    Raises:
        ConfigError: `size` is no multiple of `per_step`.
    """

    def __init__(self, size: int, dim: int, per_step: int) -> None:
        super().__init__()
        if size % per_step:
            fits = [m * per_step for m in (size // per_step, size // per_step + 1) if m]
            raise ConfigError(
                f"method.queue_size={size} must be a multiple of {per_step}, the keys that a step adds; "
                f"use {' or '.join(map(str, fits))}, or another batch_size"
            )
        self.register_buffer("keys", F.normalize(torch.randn(size, dim), dim=1))
        self.register_buffer("position", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def enqueue(self, keys: Tensor) -> None:
        """Put `keys` `(n, dim)` in the place of the oldest."""
        size = len(self.keys)
        rows = (self.position + torch.arange(len(keys), device=keys.device)) % size
        self.keys.index_copy_(0, rows, keys.to(self.keys.dtype))
        self.position.copy_((self.position + len(keys)) % size)


class KeyEncoder(nn.Module):
    """The momentum encoder with its head: k = f_k(x_k); parameters follow, batch-norm buffers are its own."""

    def __init__(self, encoder: Encoder, head: nn.Module) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(encoder)
        self.head = copy.deepcopy(head)
        self.requires_grad_(False)

    @torch.no_grad()
    def forward(self, views: Sequence[Tensor], shuffle: Tensor) -> list[Tensor]:
        """Keys of the global batch, unit vectors `(N, d)`, for each of V views.

        All views pass the encoder in one forward. With split batch norm, the global batch is shuffled
        before it is shared out among ranks and groups, and the keys are put back in order.

        Args:
            views: V tensors of this rank's `n` samples.
            shuffle: `(n, V)` random numbers of these samples; their order over all ranks is the shuffle,
                so that every rank finds the same one without asking.
        """
        n = len(views[0])
        mine = slice(distributed.rank() * n, (distributed.rank() + 1) * n)
        orders = [distributed.gather_no_grad(column).argsort(stable=True) for column in shuffle.unbind(dim=1)]
        if self.shuffles:
            views = [distributed.gather_no_grad(x)[order[mine]] for x, order in zip(views, orders, strict=True)]
        h = self.encoder(torch.cat(list(views)))
        k = F.normalize(at_least_float32(self.head(h)), dim=1)
        keys = [distributed.gather_no_grad(k_v) for k_v in k.chunk(len(views))]
        if self.shuffles:
            keys = [k_v[order.argsort()] for k_v, order in zip(keys, orders, strict=True)]
        return keys

    @property
    def shuffles(self) -> bool:
        """Whether it matters which samples are normalised together."""
        return any(isinstance(m, SplitBatchNorm) for m in self.modules())

    @torch.no_grad()
    def follow(self, encoder: nn.Module, head: nn.Module, momentum: float) -> None:
        """theta_k <- m theta_k + (1 - m) theta_q, MoCo eq. 2; parameters only."""
        theta_q = [*encoder.parameters(), *head.parameters()]
        theta_k = [*self.encoder.parameters(), *self.head.parameters()]
        torch._foreach_lerp_(theta_k, theta_q, 1 - momentum)


class MomentumContrast(Method):
    """f_q, f_k and the queue: the part of MoCo that does not depend on which views are compared.

    Subclasses implement `views` and `loss`. The key encoder follows and the queue moves on in
    `after_step`, which is before the next step computes keys; within a step both stand still, so that
    accumulated passes see the same ones.
    """

    def __init__(self, encoder: Encoder, config: MomentumConfig, context: Context, keys_per_image: int = 1) -> None:
        super().__init__(encoder, config, context)
        group = group_size(config.bn_groups, context.global_batch, context.accumulate)
        self.head = projection_head(config.head, encoder.num_features, config.hidden_dim, config.out_dim)
        if config.bn_groups > 1:
            split_batch_norm(self.encoder, group)
            self.head = split_batch_norm(self.head, group)
        self.key_encoder = KeyEncoder(self.encoder, self.head)
        dim = encoder.num_features if config.head == "none" else config.out_dim
        self.queue = Queue(config.queue_size, dim, keys_per_image * context.global_batch)
        self._new_keys: list[Tensor] = []
        if config.queue_size > context.samples:
            warnings.warn(
                f"method.queue_size={config.queue_size} exceeds the {context.samples} training samples: the queue then "
                "holds each image's own earlier keys as negatives, which is known to hurt; 4096 suits CIFAR-10",
                stacklevel=2,
            )

    def queries(self, views: Sequence[Tensor]) -> list[Tensor]:
        """q = f_q(x) `(n, d)` for each view, one forward for all views of a size."""
        return embeddings(self.encoder, self.head, views)

    def keys(self, views: Sequence[Tensor], shuffle: Tensor) -> list[Tensor]:
        """Keys of the global batch for each view, see `KeyEncoder`; they enter the queue after the step."""
        keys = self.key_encoder(views, shuffle)
        if self.training:
            self._new_keys += keys
        return keys

    def similarities(self, q: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        """This rank's queries `(n, d)` against the keys `(N, d)` of the global batch and the queue."""
        offset = distributed.rank() * len(q)
        if self.config.negatives == "queue":
            return memory_similarities(q, keys[offset : offset + len(q)], self.queue.keys)
        return memory_similarities(q, keys, self.queue.keys, offset)

    def momentum(self, step: int) -> float:
        """m after `step`."""
        start, end = self.config.momentum, self.config.final_momentum
        if end is None:
            return start
        return end - (end - start) * 0.5 * (1 + math.cos(math.pi * step / max(1, self.total_steps)))

    def after_step(self, step: int, run: Run) -> None:
        """The key encoder follows the query encoder; the step's keys enter the queue."""
        average_statistics(self)
        self.key_encoder.follow(self.encoder, self.head, self.momentum(step))
        for keys in self._new_keys:
            self.queue.enqueue(keys)
        self._new_keys = []
