"""CLSA: Contrastive Learning with Stronger Augmentations.

Wang and Qi, 2021, arXiv 2104.07713. The formulas are those of the released code
(maple-research-lab/CLSA), which stands on MoCo v2; where it departs from MoCo it is said here.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor

from training.augment.choice import augmentation_for
from training.augment.crops import Crop, crop_augments, draw_views
from training.augment.strong import StrongAugment, StrongConfig
from training.losses import contrastive_accuracy, ddm, info_nce
from training.methods.base import Context
from training.modules.momentum import MomentumConfig, MomentumContrast
from zoo.encoder import Encoder


class CLSA(MomentumContrast):
    """Weak queries find their key as in MoCo; strong ones learn the weak ones' distribution over all keys."""

    title = "CLSA"
    paper = "Contrastive Learning with Stronger Augmentations (Wang and Qi, 2021)"
    url = "https://arxiv.org/abs/2104.07713"
    streams = True

    class Config(MomentumConfig):
        """`MomentumConfig`, and the weak and strong query views. One view of each kind is the paper's single
        setting, five its multi setting."""

        negatives: Literal["queue", "batch_and_queue"] = Field(
            default="batch_and_queue", description=MomentumConfig.model_fields["negatives"].description
        )
        weak: tuple[Crop, ...] = Field(default=(Crop(),), min_length=1, description="Weakly augmented query views.")
        strong: tuple[Crop, ...] = Field(default=(Crop(),), min_length=1, description="Strongly augmented query views.")
        strong_augment: StrongConfig = Field(
            default=StrongConfig(), description="What is drawn after the weak chain for a strong view."
        )
        strong_loss: Literal["ddm", "contrastive"] = Field(
            default="ddm",
            description="ddm: strong views learn the weak views' distribution. contrastive: the naive arm, in which "
            "they enter InfoNCE like weak ones.",
        )
        alpha: float = Field(default=1.0, ge=0, description="Weight of the strong views' loss.")
        ddm_temperature: float = Field(default=0.2, gt=0, description="Temperature of both distributions.")
        ddm_weak_temperature: float | None = Field(
            default=None, gt=0, description="Replaces ddm_temperature for the weak distribution."
        )

        @property
        def crops(self) -> tuple[Crop, ...]:
            """All views that may differ from the recipe's usual ones."""
            return self.weak + self.strong

    def __init__(self, encoder: Encoder, config: Config, context: Context) -> None:
        super().__init__(encoder, config, context)
        self.key_augment = augmentation_for(encoder, config.augment, context.image_size)
        self.weak_augments = crop_augments(self.key_augment, config.weak, self.image_size)
        strong = crop_augments(self.key_augment, config.strong, self.image_size)
        shared = {id(crop): StrongAugment(crop, config.strong_augment) for crop in strong}
        self.strong_augments = [shared[id(crop)] for crop in strong]
        self.drawn = [self.key_augment, *self.weak_augments, *self.strong_augments]

    def views(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Any]:
        """`key`, one view of uint8 `batch["images"]` `(N, 3, H, W)`; `weak` and `strong`, lists of views:
        float32 `(N, 3, S, S)`, S of each crop; and `shuffle` `(N, 1)` for `KeyEncoder`."""
        images = batch["images"]
        (key,) = draw_views([self.key_augment], images, generator, self.view_size, self.image_size)
        return {
            "key": key,
            "weak": draw_views(self.weak_augments, images, generator, self.view_size, self.image_size),
            "strong": draw_views(self.strong_augments, images, generator, self.view_size, self.image_size),
            "shuffle": torch.rand(len(images), 1, generator=generator, device=images.device),
        }

    def loss(self, views: dict[str, Any]) -> dict[str, Tensor]:
        """`{"loss", "contrastive", "ddm" or "naive", "accuracy", "strong_accuracy"}` of this rank's queries."""
        config = self.config
        (k,) = self.keys([views["key"]], views["shuffle"])
        q = self.queries([*views["weak"], *views["strong"]])
        pairs = [self.similarities(q_v, k) for q_v in q]
        weak, strong = pairs[: len(views["weak"])], pairs[len(views["weak"]) :]

        contrastive = sum(info_nce(s, positives, config.temperature) for s, positives in weak)
        if config.strong_loss == "ddm":
            name = "ddm"
            extra = ddm(
                [s for s, _ in strong], [s for s, _ in weak], config.ddm_temperature, config.ddm_weak_temperature
            )
        else:
            name = "naive"
            extra = sum(info_nce(s, positives, config.temperature) for s, positives in strong)
        return {
            "loss": contrastive + config.alpha * extra,
            "contrastive": contrastive.detach(),
            name: extra.detach(),
            "accuracy": torch.stack([contrastive_accuracy(*pair) for pair in weak]).mean(),
            "strong_accuracy": torch.stack([contrastive_accuracy(*pair) for pair in strong]).mean(),
        }
