"""ConRec: contrastive learning and reconstruction in one U-Net.

Dippel, Vogler, Hoehne: "Towards Fine-grained Visual Representations by Combining Contrastive Learning with Image
Reconstruction and Attention-weighted Pooling", 2021, arXiv 2104.04323. The three arms of its comparison are one
code path: ConRec; SimCLR with attention pooling (`reconstruction: 0, corrupt: null`); SimCLR (the same, and
`encoder.pool: average`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, field_validator
from torch import Tensor, nn

from training import distributed
from training.augment.choice import augmentation_for, resolve_augment
from training.augment.corrupt import PRESETS as CORRUPTIONS
from training.augment.corrupt import Corrupt, CorruptConfig
from training.augment.image import ImageAugment
from training.augment.parameters import PRESETS as AUGMENTATIONS
from training.augment.parameters import ImageAugmentConfig
from training.augment.render import normalise_
from training.losses import at_least_float32, contrastive_accuracy, nt_xent_logits, reconstruction
from training.methods.base import Context
from training.modules.decoder import Decoder
from training.modules.heads import HeadName, projection_head
from zoo.architectures.attention import AttentionPool, MapEncoder
from zoo.encoder import Encoder
from zoo.errors import ConfigError, nearest
from zoo.strict import Strict


class ConRec(nn.Module):
    """Two corrupted views of each image agree under NT-Xent, and each is restored to the view it was made from."""

    title = "ConRec"
    paper = (
        "Towards Fine-grained Visual Representations by Combining Contrastive Learning with Image Reconstruction "
        "and Attention-weighted Pooling (Dippel et al., 2021)"
    )
    url = "https://arxiv.org/abs/2104.04323"

    class Config(Strict):
        """Defaults are the official code's.

        `contrastive`, `reconstruction`: weights of the two losses, lambda_con and lambda_rec; without the second
        there is no decoder. `nt_xent`: what the
        first is the weight of: `"sum"`, the sum of both views' cross-entropies (released, about 6.9 at batch 16
        before training), or `"mean"` over all anchors, half of it. `temperature`; `head`, `hidden_dim`, `out_dim`:
        see `projection_head`. `error` of the reconstruction, mean over pixels, channels and views: `"mse"` or
        `"huber"`. `skips`: decoder levels with a skip, from the finest on, None for all; 0 is a plain auto-encoder.
        `skip_strength`: factor on them. `augment`: as in SimCLR. `corrupt`: a preset's name, settings (with the key
        `preset` to start from one), or None for whole views.
        """

        contrastive: float = Field(default=1.0, gt=0)
        reconstruction: float = Field(default=100.0, ge=0)
        nt_xent: Literal["sum", "mean"] = "sum"
        temperature: float = Field(default=0.5, gt=0)
        head: HeadName = "v2"
        hidden_dim: int | None = Field(default=None, ge=1)
        out_dim: int = Field(default=128, ge=1)
        error: Literal["mse", "huber"] = "mse"
        skips: int | None = Field(default=None, ge=0)
        skip_strength: float = Field(default=1.0, ge=0)
        augment: ImageAugmentConfig = AUGMENTATIONS["imagenet"]
        corrupt: CorruptConfig | None = CORRUPTIONS["colour"]

        @field_validator("augment", mode="before")
        @classmethod
        def _augment(cls, value: Any) -> ImageAugmentConfig:
            return resolve_augment(value)

        @field_validator("corrupt", mode="before")
        @classmethod
        def _corrupt(cls, value: Any) -> CorruptConfig | None:
            return resolve_corrupt(value)

    def __init__(self, encoder: Encoder, config: Config, context: Context) -> None:
        super().__init__()
        self.config, self.encoder = config, encoder
        augment = augmentation_for(encoder, config.augment, context.image_size).config
        # Pixels stay in 0..1 until the corruption is done: what the decoder's sigmoid has to give is the view in 0..1.
        self.normalisation = augment
        self.augment = ImageAugment(augment.model_copy(update={"mean": None, "std": None}), context.image_size)
        self.corrupt = None if config.corrupt is None else Corrupt(config.corrupt)
        self.view_size = context.image_size
        self.head = projection_head(config.head, encoder.num_features, config.hidden_dim, config.out_dim)
        self.title = _arm(encoder, config)
        if config.reconstruction:
            if not isinstance(encoder, MapEncoder):
                raise ConfigError(
                    "reconstruction needs an encoder that gives its maps: encoder.family 'unet', or 'timm_maps' for "
                    "timm's backbones; or set method.reconstruction to 0"
                )
            channels, strides = _shapes(encoder)
            self.decoder = Decoder(channels, strides, config.skips, config.skip_strength)

    def set_view_size(self, pixels: int) -> None:
        """Side of the views from now on, for progressive resolution."""
        self.view_size = pixels

    def views(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """Two views of uint8 `batch["images"]` `(N, 3, H, W)`, whole and corrupted.

        Returns:
            `y_a`, `y_b`: the augmented views in 0..1, what is to be restored; `x_a`, `x_b`: what the encoder sees,
            the same crops corrupted and normalised. Each float32 `(N, 3, S, S)`.
        """
        # Both views before both corruptions, so that all arms see the same crops and colours.
        y_a, y_b = (self.augment(batch["images"], generator, size=self.view_size) for _ in range(2))
        x_a, x_b = (y.clone() if self.corrupt is None else self.corrupt(y, generator) for y in (y_a, y_b))
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

    forward = loss

    def after_step(self, step: int) -> None:
        """Nothing to do: ConRec keeps neither queue nor momentum encoder."""

    @torch.no_grad()
    def restore(self, x: Tensor) -> Tensor:
        """Corrupted, normalised views `(N, 3, S, S)` -> restored ones in 0..1. ConfigError without a decoder."""
        if not self.config.reconstruction:
            raise ConfigError("method.reconstruction is 0, so there is no decoder to restore with")
        return self.decoder(self.encoder.maps(x), x.shape[-2:]).float()

    def normalised(self, x: Tensor) -> Tensor:
        """Pixels in 0..1 -> what the encoder takes, a new tensor."""
        return normalise_(x.clone(), self.normalisation)

    def denormalised(self, x: Tensor) -> Tensor:
        """The inverse of `normalised`."""
        mean, std = self.normalisation.mean or (0.0,) * 3, self.normalisation.std or (1.0,) * 3
        mean, std = (torch.tensor(v, dtype=x.dtype, device=x.device).view(1, 3, 1, 1) for v in (mean, std))
        return x * std + mean

    def draw(self, images: Tensor, folder: Path) -> list[Path]:
        """Pictures of what was learned on uint8 `images` `(N, 3, H, W)`, PNG files in `folder`."""
        from training.pictures import draw_conrec

        return draw_conrec(self, images, folder)


def resolve_corrupt(value: Any) -> CorruptConfig | None:
    """The corruption behind a recipe's `corrupt`. Raises ConfigError: unknown preset or setting, or a wrong value."""
    from zoo.strict import validate  # recipe imports the methods' registry

    if value is None or isinstance(value, CorruptConfig):
        return value
    settings = {"preset": value} if isinstance(value, str) else value
    if not isinstance(settings, dict):
        raise ConfigError(f"recipe: method.corrupt takes a preset's name, settings or null, got {value!r}")
    preset = settings.get("preset")
    if preset is not None and preset not in CORRUPTIONS:
        raise ConfigError(f"recipe: unknown corruption preset {preset!r}; {nearest(str(preset), list(CORRUPTIONS))}")
    start = {} if preset is None else CORRUPTIONS[preset].model_dump()
    changes = {key: v for key, v in settings.items() if key != "preset"}
    return validate(CorruptConfig, {**start, **changes}, "recipe", prefix="method.corrupt")


def _arm(encoder: Encoder, config: ConRec.Config) -> str:
    """What cards call the arm that is trained: the two baselines are not ConRec."""
    if config.reconstruction or config.corrupt is not None:
        return ConRec.title
    attention = isinstance(getattr(encoder, "pooling", None), AttentionPool)
    return "SimCLR with attention pooling" if attention else "SimCLR"


def _shapes(encoder: MapEncoder) -> tuple[list[int], list[int]]:
    """Channels and strides of the encoder's maps, finest first, found by trying."""
    was_training = encoder.training
    encoder.eval()
    try:
        with torch.no_grad():
            p = next(encoder.parameters())
            maps = encoder.maps(torch.zeros(1, 3, *encoder.input.size, dtype=p.dtype, device=p.device))
    finally:
        encoder.train(was_training)
    return [m.shape[1] for m in maps], [round(encoder.input.size[0] / m.shape[-2]) for m in maps]
