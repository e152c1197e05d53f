"""The expanding half of a U-Net, from an encoder's maps back to pixels; never published."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.losses import at_least_float32
from zoo.architectures.attention import MapEncoder, initialise_convolutions
from zoo.architectures.unet import double_convolution
from zoo.encoder import Encoder
from zoo.errors import ConfigError

#: Channels below which a stage that no map fixes is not narrowed further.
NARROWEST = 16


class Decoder(nn.Module):
    """Maps of an encoder -> pixels in 0..1 (ConRec, arXiv 2104.04323, as in its released code).

    Per level, from coarse to fine: nearest up-sampling to that level's size, the level's own map beside it (through
    a 1x1 convolution, batch norm and ReLU, times `strength`), two 3x3 convolutions. Where the finest map is smaller
    than the image, as in most backbones, further stages without a skip follow. Last, a 1x1 convolution and a sigmoid.

    Args:
        channels: of the maps, finest first.
        strides: image side / map side of each.
        skips: so many of the finest levels have a skip; None means all but the coarsest.
        strength: factor on the skips.
        scale: factor on the channels of the skips and stages. At 1, as released, the decoder takes two thirds of a
            training step.
    """

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        skips: int | None = None,
        strength: float = 1.0,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        levels = len(channels) - 1
        self.with_skip = levels if skips is None else min(skips, levels)
        self.strength = strength
        scaled = [max(1, round(c * scale)) for c in channels]
        self.skips = nn.ModuleList(_skip(channels[level], scaled[level]) for level in range(self.with_skip))
        stages, width = [], channels[-1]
        for level in reversed(range(levels)):
            beside = scaled[level] if level < self.with_skip else 0
            stages.append(double_convolution(width + beside, scaled[level]))
            width = scaled[level]
        stride = strides[0]
        while stride > 1:
            narrower = min(width, max(NARROWEST, width // 2))
            stages.append(double_convolution(width, narrower))
            width, stride = narrower, stride // 2
        self.stages = nn.ModuleList(stages)
        self.output = nn.Conv2d(width, 3, kernel_size=1)
        initialise_convolutions(self)
        self.to(memory_format=torch.channels_last)

    def forward(self, maps: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Maps as `MapEncoder.maps` gives them -> `(N, 3, *size)` in 0..1, at least float32."""
        x = maps[-1]
        levels = list(reversed(range(len(maps) - 1)))
        for number, stage in enumerate(self.stages):
            level = levels[number] if number < len(levels) else None
            last = number == len(self.stages) - 1
            if level is not None:
                target = maps[level].shape[-2:]
            else:
                target = size if last else tuple(min(2 * a, b) for a, b in zip(x.shape[-2:], size, strict=True))
            x = F.interpolate(x, size=tuple(target), mode="nearest")
            if level is not None and level < self.with_skip:
                x = torch.cat([x, self.skips[level](maps[level]) * self.strength], dim=1)
            x = stage(x)
        return torch.sigmoid(at_least_float32(self.output(x)))


def _skip(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, kernel_size=1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def decoder_for(encoder: Encoder, skips: int | None = None, strength: float = 1.0, scale: float = 1.0) -> Decoder:
    """A decoder that fits the maps of `encoder`, which are found by trying. Raises ConfigError if it gives none."""
    if not isinstance(encoder, MapEncoder):
        raise ConfigError(
            "reconstruction needs an encoder that gives its maps: encoder.family 'unet', or 'timm_maps' for timm's "
            "backbones; or set method.reconstruction to 0"
        )
    was_training = encoder.training
    encoder.eval()
    try:
        with torch.no_grad():
            p = next(encoder.parameters())
            maps = encoder.maps(torch.zeros(1, 3, *encoder.input.size, dtype=p.dtype, device=p.device))
    finally:
        encoder.train(was_training)
    strides = [round(encoder.input.size[0] / m.shape[-2]) for m in maps]
    return Decoder([m.shape[1] for m in maps], strides, skips, strength, scale)
