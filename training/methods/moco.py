"""MoCo v2: Improved Baselines with Momentum Contrastive Learning.

Chen, Fan, Girshick, He, 2020, arXiv 2003.04297; names follow Algorithm 1 of MoCo, arXiv 1911.05722.
MoCo v2+, as peers train it, is `symmetric: true` with `final_momentum`.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from training.augment.choice import augmentation_for
from training.augment.crops import Crop, crop_augments, draw_views
from training.losses import contrastive_accuracy, info_nce
from training.methods.base import Context
from training.modules.momentum import MomentumConfig, MomentumContrast
from zoo.encoder import Encoder


class MoCo(MomentumContrast):
    """A view's query finds the momentum encoder's key of the other view among a queue of earlier keys."""

    title = "MoCo v2"
    paper = "Improved Baselines with Momentum Contrastive Learning (Chen et al., 2020)"
    url = "https://arxiv.org/abs/2003.04297"
    streams = True

    class Config(MomentumConfig):
        """`MomentumConfig`, and which views are compared."""

        symmetric: bool = Field(
            default=False,
            description="Each view is once query and once key; the loss is the sum of the two, and both keys enter the "
            "queue.",
        )
        views: tuple[Crop, ...] = Field(
            default=(),
            description="Further query views. Each finds every key of its image, and the mean over all pairs takes the "
            "place of the mean over the usual ones, so that the size of the loss stays.",
        )

        @property
        def crops(self) -> tuple[Crop, ...]:
            """All views that may differ from the recipe's usual ones."""
            return self.views

    def __init__(self, encoder: Encoder, config: Config, context: Context) -> None:
        super().__init__(encoder, config, context, keys_per_image=2 if config.symmetric else 1)
        self.augment = augmentation_for(encoder, config.augment, context.image_size)
        self.more_augments = crop_augments(self.augment, config.views, context.image_size)
        self.drawn = [self.augment, self.augment, *self.more_augments]

    def views(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Any]:
        """x_q, x_k, two augmentations of uint8 `batch["images"]` `(N, 3, H, W)`: float32 `(N, 3, S, S)`;
        `shuffle` `(N, 2)` for `KeyEncoder`; with further queries also `more`, their list, S of each crop."""
        images = batch["images"]
        x_q, x_k = draw_views([self.augment] * 2, images, generator, self.view_size, self.image_size)
        shuffle = torch.rand(len(images), 2, generator=generator, device=images.device)
        views = {"x_q": x_q, "x_k": x_k, "shuffle": shuffle}
        if self.more_augments:
            views["more"] = draw_views(self.more_augments, images, generator, self.view_size, self.image_size)
        return views

    def loss(self, views: dict[str, Any]) -> dict[str, Tensor]:
        """`{"loss", "accuracy"}` of this rank's queries."""
        x_q, x_k, shuffle, more = views["x_q"], views["x_k"], views["shuffle"], views.get("more", [])
        if self.config.symmetric:
            k = self.keys([x_k, x_q], shuffle)
            q = self.queries([x_q, x_k, *more])
        else:
            k = self.keys([x_k], shuffle[:, :1])
            q = self.queries([x_q, *more])
        usual = list(zip(q, k, strict=False))
        further = [(q_v, k_v) for q_v in q[len(k) :] for k_v in k]
        pairs = [self.similarities(*pair) for pair in usual + further]
        loss = sum(info_nce(*pair, self.config.temperature) for pair in pairs)
        if further:
            loss = loss * (len(usual) / len(pairs))
        return {"loss": loss, "accuracy": torch.stack([contrastive_accuracy(*pair) for pair in pairs]).mean()}
