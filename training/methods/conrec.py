"""ConRec: contrastive learning and reconstruction in one U-Net.

Dippel, Vogler, Hoehne: "Towards Fine-grained Visual Representations by Combining Contrastive Learning with Image
Reconstruction and Attention-weighted Pooling", 2021, arXiv 2104.04323. The three arms of its comparison are one
code path: ConRec; SimCLR with attention pooling (`reconstruction: 0, corrupt: null`); SimCLR (the same, and
`encoder.pool: average`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from training import distributed
from training.augment.choice import Augment, augmentation_for
from training.augment.corrupt import PRESETS as CORRUPTIONS
from training.augment.corrupt import Corrupt, Corruption
from training.augment.crops import draw_views
from training.augment.image import ImageAugment
from training.augment.parameters import PRESETS as AUGMENTATIONS
from training.augment.render import normalise_
from training.losses import at_least_float32, contrastive_accuracy, nt_xent_logits, reconstruction
from training.methods.base import Context, Method
from training.modules.decoder import decoder_for
from training.modules.heads import Head, HiddenDim, OutDim, projection_head
from training.pictures import draw_conrec
from zoo.architectures.attention import AttentionPool, MapEncoder
from zoo.encoder import Encoder
from zoo.errors import ConfigError


class ConRec(Method):
    """Two corrupted views of each image agree under NT-Xent, and each is restored to the view it was made from."""

    title = "ConRec"
    paper = (
        "Towards Fine-grained Visual Representations by Combining Contrastive Learning with Image Reconstruction "
        "and Attention-weighted Pooling (Dippel et al., 2021)"
    )
    url = "https://arxiv.org/abs/2104.04323"

    class Config(Method.Config):
        """Defaults are the official code's."""

        contrastive: float = Field(default=1.0, gt=0, description="Weight of the contrastive loss, lambda_con.")
        reconstruction: float = Field(
            default=100.0, ge=0, description="Weight of the reconstruction, lambda_rec; with 0 there is no decoder."
        )
        nt_xent: Literal["sum", "mean"] = Field(
            default="sum",
            description="sum of both views' cross-entropies (released, about 6.9 at batch 16 before training), or mean "
            "over all anchors, half of it.",
        )
        temperature: float = Field(default=0.5, gt=0, description="tau of NT-Xent.")
        head: Head = "v2"
        hidden_dim: HiddenDim = None
        out_dim: OutDim = 128
        error: Literal["mse", "huber"] = Field(
            default="mse", description="Error of the reconstruction, a mean over pixels, channels and views."
        )
        skips: int | None = Field(
            default=None,
            ge=0,
            description="Decoder levels with a skip, from the finest on; null: all; 0: a plain auto-encoder.",
        )
        skip_strength: float = Field(default=1.0, ge=0, description="Factor on the skips.")
        decoder_scale: float = Field(
            default=1.0,
            gt=0,
            le=4,
            description="Factor on the decoder's channels. At 1, as released, it takes two thirds of a step's time.",
        )
        augment: Augment = AUGMENTATIONS["imagenet"]
        corrupt: Corruption = CORRUPTIONS["colour"]

    def __init__(self, encoder: Encoder, config: Config, context: Context) -> None:
        super().__init__(encoder, config, context)
        augment = augmentation_for(encoder, config.augment, context.image_size).config
        # Pixels stay in 0..1 until the corruption is done: what the decoder's sigmoid has to give is the view in 0..1.
        self.normalisation = augment
        self.augment = ImageAugment(augment.model_copy(update={"mean": None, "std": None}), context.image_size)
        self.corrupt = None if config.corrupt is None else Corrupt(config.corrupt)
        self.head = projection_head(config.head, encoder.num_features, config.hidden_dim, config.out_dim)
        self.title = _arm(encoder, config)
        if config.reconstruction:
            self.decoder = decoder_for(encoder, config.skips, config.skip_strength, config.decoder_scale)

    def views(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """Two views of uint8 `batch["images"]` `(N, 3, H, W)`, whole and corrupted.

        Returns:
            `y_a`, `y_b`: the augmented views in 0..1, what is to be restored; `x_a`, `x_b`: what the encoder sees,
            the same crops corrupted and normalised. Each float32 `(N, 3, S, S)`.
        """
        # Both views before both corruptions, so that all arms see the same crops and colours.
        y_a, y_b = y = draw_views([self.augment] * 2, batch["images"], generator, self.view_size, self.image_size)
        x_a, x_b = [y_a.clone(), y_b.clone()] if self.corrupt is None else self.corrupt.each(y, generator)
        x_a, x_b = (normalise_(x, self.normalisation) for x in (x_a, x_b))
        return {"x_a": x_a, "x_b": x_b, "y_a": y_a, "y_b": y_b}

    def loss(self, views: dict[str, Tensor]) -> dict[str, Tensor]:
        """`{"loss", "contrastive", "accuracy"}` of this rank's anchors against the global batch; with a decoder also
        `"reconstruction"`, the plain error. One forward for both views and both losses."""
        config = self.config
        x = torch.cat([views["x_a"], views["x_b"]])
        if isinstance(self.encoder, MapEncoder):
            maps = self.encoder.maps(x)
            h = self.encoder.pool(maps[-1])
        else:
            h = self.encoder(x)
        z_a, z_b = at_least_float32(self.head(h)).chunk(2)
        everyone = distributed.gather(torch.stack([z_a, z_b], dim=1))
        offset = distributed.rank() * len(z_a)
        s, positives = nt_xent_logits(z_a, z_b, config.temperature, everyone[:, 0], everyone[:, 1], offset)
        contrastive = F.cross_entropy(s, positives) * (2 if config.nt_xent == "sum" else 1)
        terms = {
            "loss": config.contrastive * contrastive,
            "contrastive": contrastive.detach(),
            "accuracy": contrastive_accuracy(s, positives),
        }
        if config.reconstruction:
            restored = self.decoder(maps, x.shape[-2:])
            error = reconstruction(restored, torch.cat([views["y_a"], views["y_b"]]), config.error)
            terms["loss"] = terms["loss"] + config.reconstruction * error
            terms["reconstruction"] = error.detach()
        return terms

    @torch.no_grad()
    def restore(self, x: Tensor) -> Tensor:
        """Corrupted, normalised views `(N, 3, S, S)` -> restored ones in 0..1. ConfigError without a decoder."""
        if not self.config.reconstruction:
            raise ConfigError("method.reconstruction is 0, so there is no decoder to restore with")
        return self.decoder(self.encoder.maps(x), x.shape[-2:]).float()

    def draw(self, images: Tensor, folder: Path) -> list[Path]:
        """Pictures of what was learned on uint8 `images` `(N, 3, H, W)`, PNG files in `folder`."""
        return draw_conrec(self, images, folder)


def _arm(encoder: Encoder, config: ConRec.Config) -> str:
    """What cards call the arm that is trained: the two baselines are not ConRec."""
    if config.reconstruction or config.corrupt is not None:
        return ConRec.title
    attention = isinstance(encoder, MapEncoder) and isinstance(encoder.pooling, AttentionPool)
    return "SimCLR with attention pooling" if attention else "SimCLR"
