"""The contracting half of a U-Net, with attention-weighted pooling: the encoder of ConRec."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from zoo.architectures.attention import MapEncoder, Pool, initialise_convolutions, make_pool
from zoo.errors import ConfigError, InputError
from zoo.preprocessing.image import ImageInput
from zoo.strict import Strict


class UNetArguments(Strict):
    """Arguments of the `unet` family.

    `width`: channels of the first level, doubled at each next. `depth`: levels, with a 2x2 max-pool between.
    `pool`: `"attention"` or `"average"`. `dropout`: on the attention branch, in training.
    """

    width: int = Field(default=64, ge=8, le=512)
    depth: int = Field(default=4, ge=2, le=6)
    pool: Pool = "attention"
    dropout: float = Field(default=0.5, ge=0, lt=1)


class UNetEncoder(MapEncoder):
    """`(N, 3, H, W)` -> `(N, width * 2^(depth - 1))`; H and W are multiples of 2^(depth - 1).

    The default is the network of ConRec (arXiv 2104.04323) and its released code: 4 levels of two 3x3
    convolutions with batch norm and ReLU, 64 to 512 channels. The decoder belongs to the method and is never
    published.
    """

    Arguments = UNetArguments

    def __init__(self, arguments: UNetArguments, input: ImageInput) -> None:
        super().__init__()
        if not isinstance(input, ImageInput):
            raise ConfigError(f"unet takes images; set input.modality to 'image', not {input.modality!r}")
        self.input, self.arguments = input, arguments
        self.stride = 2 ** (arguments.depth - 1)
        if any(side % self.stride for side in input.size):
            raise ConfigError(
                f"unet with depth {arguments.depth} takes sides that are multiples of {self.stride} px, not "
                f"{input.size[0]}x{input.size[1]}; set input.size or encoder.depth"
            )
        channels = [arguments.width * 2**level for level in range(arguments.depth)]
        self.num_features = channels[-1]
        self.levels = nn.ModuleList(
            double_convolution(a, b) for a, b in zip([3, *channels[:-1]], channels, strict=True)
        )
        initialise_convolutions(self.levels)
        self.pooling = make_pool(arguments.pool, self.num_features, arguments.dropout)
        self.to(memory_format=torch.channels_last)

    def _maps(self, x: Tensor) -> list[Tensor]:
        found = [self.levels[0](x)]
        for level in self.levels[1:]:
            found.append(level(nn.functional.max_pool2d(found[-1], 2)))
        return found

    def check_input(self, x: Tensor, lengths: Tensor | None) -> None:
        super().check_input(x, lengths)
        if any(side % self.stride for side in x.shape[2:]):
            raise InputError(
                f"{self.name} takes sides that are multiples of {self.stride} px, got {x.shape[2]}x{x.shape[3]}"
            )


def double_convolution(inputs: int, outputs: int) -> nn.Sequential:
    """Twice a 3x3 convolution that keeps the size, batch norm and ReLU."""
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers += [nn.Conv2d(channels, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)
