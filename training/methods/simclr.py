"""SimCLR: A Simple Framework for Contrastive Learning of Visual Representations.

Chen, Kornblith, Norouzi, Hinton, 2020, arXiv 2002.05709; names follow Algorithm 1.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field, field_validator
from torch import Tensor

from training import distributed
from training.augment.choice import Augment, augmentation_for
from training.augment.crops import Crop, crop_augments, draw_views
from training.augment.parameters import PRESETS
from training.losses import at_least_float32, contrastive_accuracy, nt_xent_logits, views_loss
from training.methods.base import Context, Method
from training.methods.image_views import embeddings
from training.modules.heads import Head, HiddenDim, OutDim, projection_head
from zoo.encoder import Encoder


class SimCLR(Method):
    """Random views of each image agree under NT-Xent; the views of all other images are negatives."""

    title = "SimCLR"
    paper = "A Simple Framework for Contrastive Learning of Visual Representations (Chen et al., 2020)"
    url = "https://arxiv.org/abs/2002.05709"
    streams = True

    class Config(Method.Config):
        """Defaults are the paper's for CIFAR-10."""

        temperature: float = Field(
            default=0.5, gt=0, description="tau of eq. 1; the paper takes 0.5 for CIFAR-10 and 0.1 for ImageNet."
        )
        head: Head = "paper"
        hidden_dim: HiddenDim = None
        out_dim: OutDim = 128
        augment: Augment = PRESETS["cifar"]
        views: tuple[Crop, ...] = Field(
            default=(Crop(count=2),), description="The views of each image, by default the paper's two."
        )
        loss: Literal["nt_xent", "dcl"] = Field(
            default="nt_xent",
            description="nt_xent, or dcl, which leaves the positive out of the denominator (arXiv 2110.06848).",
        )
        positives: Literal["each", "mean"] = Field(
            default="each",
            description="Each other view of the image is a positive of its own, or their normalised mean is the one "
            "positive. For two views this is the same.",
        )

        @field_validator("views")
        @classmethod
        def _views(cls, value: tuple[Crop, ...]) -> tuple[Crop, ...]:
            total = sum(crop.count for crop in value)
            if total < 2:
                raise ValueError(f"an image needs at least 2 views, got {total}; raise a count or add a crop")
            return value

        @property
        def crops(self) -> tuple[Crop, ...]:
            """All views that may differ from the recipe's usual ones."""
            return self.views

    def __init__(self, encoder: Encoder, config: Config, context: Context) -> None:
        super().__init__(encoder, config, context)
        self.head = projection_head(config.head, encoder.num_features, config.hidden_dim, config.out_dim)
        self.augment = augmentation_for(encoder, config.augment, context.image_size)
        self.drawn = self.augments = crop_augments(self.augment, config.views, context.image_size)

    def views(self, batch: dict[str, Tensor], generator: torch.Generator) -> list[Tensor]:
        """Augmentations t, t', ... of uint8 `batch["images"]` `(N, 3, H, W)`: each float32 `(N, 3, S, S)`."""
        return draw_views(self.augments, batch["images"], generator, self.view_size, self.image_size)

    def loss(self, views: list[Tensor]) -> dict[str, Tensor]:
        """`{"loss", "accuracy"}` of this rank's anchors against the global batch.

        Views of one size pass the encoder in one forward, so that they share batch-norm statistics.
        """
        config = self.config
        z = at_least_float32(torch.stack(embeddings(self.encoder, self.head, views), dim=1))
        everyone = distributed.gather(z)
        offset = distributed.rank() * len(z)
        if len(views) == 2 and config.loss == "nt_xent":
            # The paper's own form, equal to `views_loss` up to rounding.
            z_i, z_j = z.unbind(dim=1)
            s, positives = nt_xent_logits(z_i, z_j, config.temperature, everyone[:, 0], everyone[:, 1], offset)
            return {"loss": F.cross_entropy(s, positives), "accuracy": contrastive_accuracy(s, positives)}
        decoupled = config.loss == "dcl"
        loss, accuracy = views_loss(z, config.temperature, everyone, offset, config.positives, decoupled)
        return {"loss": loss, "accuracy": accuracy}
