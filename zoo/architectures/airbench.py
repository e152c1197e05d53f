"""Small convolutional encoders that learn much from little arithmetic, after KellerJordan/cifar10-airbench."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
import torch.fx
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from zoo.architectures.attention import at_least_float32
from zoo.architectures.image import check_images
from zoo.architectures.whitening import DIMENSIONS, Whitening
from zoo.encoder import Encoder
from zoo.errors import ConfigError, InputError, nearest
from zoo.preprocessing.image import ImageInput, ImageTransform
from zoo.strict import Strict

torch.fx.wrap("at_least_float32")  # a choice by dtype, which torch.fx cannot trace
#: Three halvings of a smaller image leave no pixel to spare.
SMALLEST = 16
Width = Annotated[int, Field(ge=8, le=4096)]

#: The three networks of the source, by the accuracy in % that they reach there with labels.
PRESETS: dict[str, dict[str, Any]] = {
    "airbench94": {"widths": (64, 256, 256), "depth": 2},
    "airbench95": {"widths": (128, 384, 384), "depth": 2},
    "airbench96": {"widths": (128, 512, 512), "depth": 3},
}


class AirbenchArguments(Strict):
    """Arguments of the `airbench` family; the defaults are those of airbench94 with a global mean.

    `widths`: channels of the three stages. `depth`: 3x3 convolutions in each; with 3, the last two are bridged by a
    residual connection. `pool`: `"mean"` over all positions, or `"mean_max"`, the mean joined with the maximum, which
    doubles `num_features`.
    A recipe may write `preset: airbench94`, `airbench95` or `airbench96` for widths and depth, which a key beside it
    overrides; what is stored are always the arguments themselves.
    """

    widths: tuple[Width, Width, Width] = (64, 256, 256)
    depth: Literal[2, 3] = 2
    pool: Literal["mean", "mean_max"] = "mean"

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, raw: Any) -> Any:
        if not isinstance(raw, dict) or "preset" not in raw:
            return raw
        given = dict(raw)
        preset = given.pop("preset")
        if not isinstance(preset, str) or preset not in PRESETS:
            raise ValueError(f"unknown preset {str(preset)[:40]!r}; {nearest(str(preset), list(PRESETS))}")
        return {**PRESETS[preset], **given}


class Airbench(Encoder):
    """`(N, 3, H, W)` -> `(N, num_features)`: a whitening of 2x2 patches and three stages, then a global pooling.

    Any size from 16 px. The source ends in a 3x3 maximum, which fits 32 px only. Its batch-norm momentum (0.4 in
    torch's counting) suits runs of a few hundred steps; here it is torch's 0.1, whose running statistics are steadier.

    Source: the networks of KellerJordan/cifar10-airbench (legacy/airbench94.py to airbench96.py), written anew.
    """

    Arguments = AirbenchArguments
    min_side = SMALLEST
    data_statistics = ("whitening.weight", "whitening.offset")

    def __init__(self, arguments: AirbenchArguments, input: ImageInput) -> None:
        super().__init__()
        if not isinstance(input, ImageInput):
            raise ConfigError(f"airbench takes images; set input.modality to 'image', not {input.modality!r}")
        if min(input.size) < SMALLEST:
            raise ConfigError(
                f"airbench takes images from {SMALLEST} px, not {input.size[0]}x{input.size[1]}; set input.size"
            )
        self.input, self.arguments = input, arguments
        self.num_features = arguments.widths[-1] * (2 if arguments.pool == "mean_max" else 1)
        self.whitening = Whitening(input)
        inputs = (2 * DIMENSIONS, *arguments.widths[:-1])
        sizes = zip(inputs, arguments.widths, strict=True)
        self.stages = nn.Sequential(*(Stage(a, b, arguments.depth) for a, b in sizes))
        self.to(memory_format=torch.channels_last)

    def fit_to_data(self, images: Tensor) -> None:
        """Whiten the 2x2 patches of `images`; see `Whitening.fit`.

        Raises:
            InputError: no image batch, values that are not finite, or patches that cannot be whitened. The encoder is
                unchanged then.
        """
        if images.ndim != 4 or images.shape[1] != 3 or not len(images) or min(images.shape[2:]) < 2:
            raise InputError(f"{self.name} is fitted to images (N, 3, H, W), got {tuple(images.shape)}")
        if images.dtype == torch.uint8:
            images = ImageTransform(self.input).normalise(images.permute(0, 2, 3, 1))
        if not images.is_floating_point() or not bool(torch.isfinite(images).all()):
            raise InputError(f"{self.name} is fitted to uint8 or finite float images, got {images.dtype}")
        self.whitening.fit(images)

    def _features(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        return self.stages(F.gelu(self.whitening(x)))

    def pool(self, features: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Global mean, or the mean joined with the maximum; at least float32."""
        features = at_least_float32(features)
        mean = features.mean((2, 3))
        return mean if self.arguments.pool == "mean" else torch.cat([mean, features.amax((2, 3))], dim=1)

    def check_input(self, x: Tensor, lengths: Tensor | None) -> None:
        check_images(self, x, lengths)
        if min(x.shape[2:]) < SMALLEST:
            raise InputError(f"{self.name} takes images from {SMALLEST} px, got {x.shape[2]}x{x.shape[3]}")


class Stage(nn.Module):
    """`(N, A, H, W)` -> `(N, B, H // 2, W // 2)`: a convolution and a maximum over 2x2, then one or two more."""

    def __init__(self, inputs: int, outputs: int, depth: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(dirac_convolution(n, outputs) for n in [inputs] + (depth - 1) * [outputs])
        self.norms = nn.ModuleList(norm_without_scale(outputs) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.convolutions[0](x), 2)
        x = F.gelu(self.norms[0](x))
        first = x
        for convolution, norm in zip(self.convolutions[1:-1], self.norms[1:-1], strict=True):
            x = F.gelu(norm(convolution(x)))
        x = self.norms[-1](self.convolutions[-1](x))
        return F.gelu(x + first if len(self.norms) > 2 else x)


def dirac_convolution(inputs: int, outputs: int) -> nn.Conv2d:
    """A 3x3 convolution whose first `inputs` outputs repeat its inputs; torch's usual initialisation for the others."""
    made = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    nn.init.dirac_(made.weight.data[:inputs])
    return made


def norm_without_scale(channels: int) -> nn.BatchNorm2d:
    """A batch norm that learns its shift only."""
    made = nn.BatchNorm2d(channels)
    made.weight.requires_grad_(False)
    return made
