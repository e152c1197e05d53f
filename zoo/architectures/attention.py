"""Attention-weighted pooling of ConRec, and timm backbones that pool with it."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
import torch.fx
from pydantic import Field
from torch import Tensor, nn

from zoo.architectures.image import TimmArguments, check_images, timm_backbone
from zoo.encoder import Encoder
from zoo.errors import ConfigError
from zoo.preprocessing.image import ImageInput

Pool = Literal["attention", "average"]


def at_least_float32(x: Tensor) -> Tensor:
    """`x` in float32, or in float64 if it is that already."""
    return x if x.dtype == torch.float64 else x.float()


def _weighted_mean(features: Tensor, mask: Tensor, epsilon: float) -> Tensor:
    with torch.autocast(features.device.type, enabled=False):
        weighted = (at_least_float32(features) * mask).sum(dim=(2, 3))
        return weighted / (mask.sum(dim=(2, 3)) + epsilon)


# torch.fx cannot look into a region of autocast, nor into a choice by dtype; it calls these functions.
torch.fx.wrap("at_least_float32")
torch.fx.wrap("_weighted_mean")


class AttentionPool(nn.Module):
    """Mean over positions, weighted by one mask that 1x1 convolutions make of the map (ConRec, arXiv 2104.04323).

    Widths C, C/2, C/4, C/8, 1 with batch norm and ReLU between, a sigmoid at the end. Dropout acts on what the
    mask is made of, never on what is averaged.

    Args:
        channels: C of the map.
        dropout: element-wise probability in training.
    """

    #: Added to the sum of the mask, whose values may all be near 0.
    EPSILON = 1e-6

    def __init__(self, channels: int, dropout: float = 0.5) -> None:
        super().__init__()
        widths = [channels, *(max(1, channels // d) for d in (2, 4, 8))]
        layers: list[nn.Module] = [nn.Dropout(dropout)]
        for inputs, outputs in pairwise(widths):
            # These two numbers are Keras' defaults, which the authors' code keeps here and here only.
            norm = nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.01)
            layers += [nn.Conv2d(inputs, outputs, kernel_size=1), norm, nn.ReLU(inplace=True)]
        layers.append(nn.Conv2d(widths[-1], 1, kernel_size=1))
        self.layers = nn.Sequential(*layers)
        initialise_convolutions(self)

    def mask(self, features: Tensor) -> Tensor:
        """`(N, C, H, W)` -> `(N, 1, H, W)` weights in 0..1, at least float32."""
        return torch.sigmoid(at_least_float32(self.layers(features)))

    def forward(self, features: Tensor) -> Tensor:
        """`(N, C, H, W)` -> `(N, C)`, at least float32; a constant mask gives the plain mean."""
        return _weighted_mean(features, self.mask(features), self.EPSILON)


class AveragePool(nn.Module):
    """Plain mean over positions: `(N, C, H, W)` -> `(N, C)`, at least float32."""

    def forward(self, features: Tensor) -> Tensor:
        return at_least_float32(features).mean(dim=(2, 3))


def make_pool(kind: Pool, channels: int, dropout: float) -> nn.Module:
    """The pooling that an encoder's arguments name."""
    return AttentionPool(channels, dropout) if kind == "attention" else AveragePool()


class MapEncoder(Encoder):
    """An image encoder that also gives its maps at every resolution, and where its pooling looks.

    Subclasses set `pooling` and implement `_maps`.
    """

    pooling: nn.Module

    def maps(self, x: Tensor) -> list[Tensor]:
        """One map `(N, C_l, H_l, W_l)` per resolution, finest first; the last is that of `forward_features`.

        Raises:
            InputError: as `forward`.
        """
        self._check(x, None)
        return self._maps(x)

    def attention_mask(self, x: Tensor) -> Tensor:
        """Where the pooling looks: images `(N, 3, H, W)` -> `(N, 1, H', W')` weights in 0..1, float32.

        H', W' are those of `forward_features`. h is the mean of that map weighted by the mask, so only ratios
        within one mask mean something.

        Raises:
            ConfigError: the encoder averages without a mask. InputError: as `forward`.
        """
        if not isinstance(self.pooling, AttentionPool):
            raise ConfigError(f"{self.name} has no attention mask: it was built with pool 'average'")
        return self.pooling.mask(self.forward_features(x)).float()

    def pool(self, features: Tensor, lengths: Tensor | None = None) -> Tensor:
        """`forward_features` output -> `(N, num_features)`."""
        return self.pooling(features)

    def check_input(self, x: Tensor, lengths: Tensor | None) -> None:
        check_images(self, x, lengths)

    def _features(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        return self._maps(x)[-1]

    def _maps(self, x: Tensor) -> list[Tensor]:
        raise NotImplementedError


class TimmMapsArguments(TimmArguments):
    """Arguments of the `timm_maps` family: those of `timm`, and `pool`, `dropout` (of the attention branch)."""

    pool: Pool = "attention"
    dropout: float = Field(default=0.5, ge=0, lt=1)


class TimmMaps(MapEncoder):
    """Any timm backbone that gives feature maps, with the pooling of ConRec: `(N, 3, H, W)` -> `(N, C)`.

    Where several maps have one resolution (the blocks of a transformer), the last of them counts.
    """

    Arguments = TimmMapsArguments
    libraries = ("timm",)

    def __init__(self, arguments: TimmMapsArguments, input: ImageInput) -> None:
        super().__init__()
        self.input = input
        self.backbone = timm_backbone(arguments, input)
        info = getattr(self.backbone, "feature_info", None)
        if not (hasattr(self.backbone, "forward_intermediates") and isinstance(info, list) and info):
            raise ConfigError(f"timm's {arguments.model!r} gives no feature maps; take another model or family 'timm'")
        # Layers behind the last map would never get a gradient.
        if hasattr(self.backbone, "prune_intermediate_layers"):
            self.backbone.prune_intermediate_layers(None, prune_norm=False, prune_head=True)
        self.num_features = int(info[-1]["num_chs"])
        self.pooling = make_pool(arguments.pool, self.num_features, arguments.dropout)

    def _maps(self, x: Tensor) -> list[Tensor]:
        found = self.backbone.forward_intermediates(x, norm=True, output_fmt="NCHW", intermediates_only=True)
        sizes = [tuple(m.shape[-2:]) for m in found]
        return [m for i, m in enumerate(found) if sizes[i] not in sizes[i + 1 :]]


def initialise_convolutions(module: nn.Module) -> None:
    """Keras' defaults, with which ConRec trains: Glorot-uniform kernels, zero biases."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
