"""Projection heads: from the encoder's h to the z that a contrastive loss sees; never published."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field
from torch import nn

from zoo.errors import ConfigError, nearest

#: paper: SimCLR section 2.1; official, v2: google-research/simclr model_util.py with 2 and 3 layers;
#: linear, none: the ablations of section 4.2.
HeadName = Literal["paper", "official", "v2", "linear", "none"]
#: Settings of a projection head, as methods declare them.
Head = Annotated[
    HeadName,
    Field(
        description="Projection head. paper: Linear, ReLU, Linear. official, v2: 2 and 3 layers, each followed by "
        "batch norm. linear: one layer. none: the loss sees the encoder's features."
    ),
]
HiddenDim = Annotated[
    int | None, Field(ge=1, description="Width of the head's hidden layers; null: as many as the encoder's features.")
]
OutDim = Annotated[int, Field(ge=1, description="Width of the head's output, which the loss sees.")]
HEADS: tuple[str, ...] = ("paper", "official", "v2", "linear", "none")


def projection_head(name: str, features: int, hidden: int | None = None, out: int = 128) -> nn.Module:
    """A projection head `(N, features)` -> `(N, out)`.

    Args:
        name: `"paper"`: Linear, ReLU, Linear. `"official"`, `"v2"`: 2 and 3 layers without bias,
            each followed by batch norm, the last one without beta; weights from N(0, 0.01).
            `"linear"`: one layer. `"none"`: z = h, `out` is ignored.
        features: length of h. hidden: width of the hidden layers; default `features`.
        out: length of z.

    Raises:
        ConfigError: unknown name.
    """
    hidden = features if hidden is None else hidden
    if name == "paper":
        return nn.Sequential(nn.Linear(features, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, out))
    if name == "official":
        return _batch_norm_mlp([features, hidden, out])
    if name == "v2":
        return _batch_norm_mlp([features, hidden, hidden, out])
    if name == "linear":
        return nn.Linear(features, out)
    if name == "none":
        return nn.Identity()
    raise ConfigError(f"unknown projection head {name!r}; {nearest(name, list(HEADS))}")


def _batch_norm_mlp(widths: list[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        linear = nn.Linear(inputs, outputs, bias=False)
        nn.init.normal_(linear.weight, std=0.01)
        layers += [linear, nn.BatchNorm1d(outputs), nn.ReLU(inplace=True)]
    layers.pop()
    layers[-1].register_parameter("bias", None)
    return nn.Sequential(*layers)
