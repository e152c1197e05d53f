"""SimCLR: A Simple Framework for Contrastive Learning of Visual Representations.

Chen, Kornblith, Norouzi, Hinton, 2020, arXiv 2002.05709; names follow Algorithm 1.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field, field_validator
from torch import Tensor, nn

from training import distributed
from training.augment.image import PRESETS, ImageAugmentConfig
from training.heads import HeadName, projection_head
from training.losses import at_least_float32, contrastive_accuracy, nt_xent_logits
from training.methods import Context
from training.methods.image_views import augmentation_for, resolve_augment
from zoo.config import Strict
from zoo.encoder import Encoder


class SimCLR(nn.Module):
    """Two random views of each image agree under NT-Xent; all other views of the batch are negatives."""

    title = "SimCLR"
    paper = "A Simple Framework for Contrastive Learning of Visual Representations (Chen et al., 2020)"
    url = "https://arxiv.org/abs/2002.05709"

    class Config(Strict):
        """`temperature`: tau of eq. 1 (0.5 CIFAR-10, 0.1 ImageNet). `head`, `hidden_dim` (default: the
        encoder's features), `out_dim`: see `projection_head`. `augment`: a preset's name, or a dict of
        augmentation settings, with the key `preset` to start from one."""

        temperature: float = Field(default=0.5, gt=0)
        head: HeadName = "paper"
        hidden_dim: int | None = Field(default=None, ge=1)
        out_dim: int = Field(default=128, ge=1)
        augment: ImageAugmentConfig = PRESETS["cifar"]

        @field_validator("augment", mode="before")
        @classmethod
        def _augment(cls, value: Any) -> ImageAugmentConfig:
            return resolve_augment(value)

    def __init__(self, encoder: Encoder, config: Config, context: Context) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        self.head = projection_head(config.head, encoder.num_features, config.hidden_dim, config.out_dim)
        self.augment = augmentation_for(encoder, config.augment, context.image_size)
        self.view_size = context.image_size

    def set_view_size(self, pixels: int) -> None:
        """Side of the views from now on, for progressive resolution."""
        self.view_size = pixels

    def views(self, batch: dict[str, Tensor], generator: torch.Generator) -> list[Tensor]:
        """Two augmentations t, t' of uint8 `batch["images"]` `(N, 3, H, W)`: each float32 `(N, 3, S, S)`."""
        images = batch["images"]
        return [self.augment(images, generator, size=self.view_size) for _ in range(2)]

    def loss(self, views: list[Tensor]) -> dict[str, Tensor]:
        """`{"loss", "accuracy"}` of this rank's anchors against the global batch.

        Both views pass the encoder in one forward, so that they share batch-norm statistics.
        """
        h = self.encoder(torch.cat(views))
        z_i, z_j = at_least_float32(self.head(h)).chunk(2)
        everyone = distributed.gather(torch.stack([z_i, z_j], dim=1))
        offset = distributed.rank() * len(z_i)
        s, positives = nt_xent_logits(z_i, z_j, self.config.temperature, everyone[:, 0], everyone[:, 1], offset)
        return {"loss": F.cross_entropy(s, positives), "accuracy": contrastive_accuracy(s, positives)}

    forward = loss

    def after_step(self, step: int) -> None:
        """Nothing to do: SimCLR keeps neither queue nor momentum encoder."""
