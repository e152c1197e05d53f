"""Supernets: every edge carries a weighted sum of all operations (DARTS, arXiv 1806.09055, section 2.2).

Partial channels and edge normalisation: PC-DARTS (Xu et al., 2020, arXiv 1907.05737).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Literal

import torch
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor, nn

from training.search.derive import SPACES, Space, derive, entropy
from zoo.architectures.cell_network import DartsBody, NB201Body
from zoo.architectures.cell_ops import FactorizedReduce, make_op, relu_conv_bn
from zoo.architectures.genotype import NB201_EDGES, NODES, DartsGenotype, NB201Genotype
from zoo.architectures.image import check_images
from zoo.encoder import Encoder
from zoo.errors import ConfigError
from zoo.preprocessing.image import ImageInput
from zoo.strict import Strict


class SupernetArguments(Strict):
    """Arguments of the `cell_supernet` family."""

    space: Literal["darts", "nb201"] = Field(default="darts", description="Cell space.")
    width: int = Field(default=16, ge=2, le=1024, description="Channels of the first stage, as in cell_network.")
    depth: int = Field(default=0, ge=0, le=64, validate_default=True, description="Cells; 0: 8 for darts, 5 for nb201.")
    stem: Literal["cifar", "imagenet"] = Field(default="cifar", description="As in cell_network.")
    partial: int = Field(
        default=1,
        ge=1,
        le=16,
        description="k, of which one k-th of the channels passes the mixed operations and the rest "
        "goes round them; 1 is off, PC-DARTS takes 4.",
    )
    edge_normalisation: bool = Field(default=False, description="Learn a softmax over each node's edges as well.")

    @field_validator("depth")
    @classmethod
    def _depth(cls, value: int, info: ValidationInfo) -> int:
        if 0 < value < 3 and info.data.get("space") == "darts":
            raise ValueError(f"a DARTS supernet has at least 3 cells: one normal and two reductions, got {value}")
        return value or (8 if info.data.get("space") == "darts" else 5)

    @field_validator("partial")
    @classmethod
    def _partial(cls, value: int, info: ValidationInfo) -> int:
        width = info.data.get("width", value)
        if width % value:
            raise ValueError(f"width {width} must be a multiple of partial")
        return value


class MixedOp(nn.Module):
    """sum_o w_o o(x) over the operations of a space, on the first of `partial` parts of the channels."""

    def __init__(self, space: Space, channels: int, stride: int, partial: int) -> None:
        super().__init__()
        self.partial, self.part = partial, channels // partial
        self.ops = nn.ModuleList(
            nn.Identity() if name == "none" else make_op(space.name, name, self.part, stride, search=True)
            for name in space.ops
        )
        self.zero = space.ops.index("none")
        self.bypass = nn.MaxPool2d(2, 2, ceil_mode=True) if stride == 2 else nn.Identity()

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        inside = x[:, : self.part] if self.partial > 1 else x
        # `none` adds nothing; its weight only takes from the others.
        y = sum(w * op(inside) for o, (w, op) in enumerate(zip(weights, self.ops, strict=True)) if o != self.zero)
        if self.partial == 1:
            return y
        y = torch.cat([y, self.bypass(x[:, self.part :])], dim=1)
        n, c, height, width = y.shape  # channel shuffle, so that the next edge sees other channels
        return y.view(n, self.partial, c // self.partial, height, width).transpose(1, 2).reshape(n, c, height, width)


class MixedCell(nn.Module):
    """A DARTS cell of mixed operations; called with both cells' edge tables."""

    def __init__(
        self, space: Space, before: int, last: int, channels: int, reduces: bool, after_reduction: bool, partial: int
    ) -> None:
        super().__init__()
        self.table = "reduce" if reduces else "normal"
        make = FactorizedReduce if after_reduction else relu_conv_bn
        self.pre0 = make(before, channels, affine=False)
        self.pre1 = relu_conv_bn(last, channels, affine=False)
        self.edges = nn.ModuleList(
            MixedOp(space, channels, 2 if reduces and source < 2 else 1, partial) for _, source in space.edges
        )
        self.sources = [(node, source) for node, source in space.edges]
        self.channels = NODES * channels

    def forward(self, s0: Tensor, s1: Tensor, tables: dict[str, Tensor]) -> Tensor:
        states, weights = [self.pre0(s0), self.pre1(s1)], tables[self.table]
        for node in range(2, NODES + 2):
            inputs = [e for e, (to, _) in enumerate(self.sources) if to == node]
            states.append(sum(self.edges[e](states[self.sources[e][1]], weights[e]) for e in inputs))
        return torch.cat(states[2:], dim=1)


class MixedNB201Cell(nn.Module):
    """A NAS-Bench-201 cell of mixed operations."""

    def __init__(self, space: Space, channels: int, partial: int) -> None:
        super().__init__()
        self.edges = nn.ModuleList(MixedOp(space, channels, 1, partial) for _ in NB201_EDGES)

    def forward(self, x: Tensor, tables: dict[str, Tensor]) -> Tensor:
        states, weights = [x], tables["cell"]
        for node in (1, 2, 3):
            inputs = [(e, j) for e, (i, j) in enumerate(NB201_EDGES) if i == node]
            states.append(sum(self.edges[e](states[j], weights[e]) for e, j in inputs))
        return states[-1]


class Supernet(Encoder):
    """`(N, 3, H, W)` -> `(N, num_features)` under the architecture parameters `alpha`.

    `alpha` is one vector, and a buffer: it belongs to the state, never to `parameters()`, and so to no weight
    optimizer, decay or clipping. `architecture(a)` lets another vector take its place, to differentiate by it.
    """

    Arguments = SupernetArguments
    alpha: Tensor

    def __init__(self, arguments: SupernetArguments, input: ImageInput) -> None:
        super().__init__()
        if not isinstance(input, ImageInput):
            raise ConfigError(f"cell_supernet takes images; set input.modality to 'image', not {input.modality!r}")
        self.input, self.arguments = input, arguments
        self.space = SPACES[arguments.space]
        self.edge_normalisation = arguments.edge_normalisation
        width, depth, partial = arguments.width, arguments.depth, arguments.partial

        def cell(before: int, last: int, channels: int, reduces: bool, after_reduction: bool) -> nn.Module:
            return MixedCell(self.space, before, last, channels, reduces, after_reduction, partial)

        if self.space.name == "darts":
            body: nn.Module = DartsBody(cell, width, depth, arguments.stem)
        else:
            body = NB201Body(
                lambda channels: MixedNB201Cell(self.space, channels, partial), width, depth, arguments.stem
            )
        self.body = body.to(memory_format=torch.channels_last)
        self.num_features = self.body.channels
        self.register_buffer("alpha", 1e-3 * torch.randn(self.space.size(arguments.edge_normalisation)))
        self._other: Tensor | None = None

    @contextlib.contextmanager
    def architecture(self, alpha: Tensor) -> Iterator[None]:
        """`alpha` in place of the buffer."""
        self._other = alpha
        try:
            yield
        finally:
            self._other = None

    def tables(self, alpha: Tensor | None = None) -> dict[str, Tensor]:
        """Cell name -> `(edges, operations)` mixing weights."""
        return self.space.weights(self.alpha if alpha is None else alpha, self.edge_normalisation)

    def genotype(self, skip_cap: int | None = None, alpha: Tensor | None = None) -> DartsGenotype | NB201Genotype:
        """The cell that alpha stands for, see `derive`."""
        return derive(self.space, self.tables(alpha), skip_cap)

    def entropy(self) -> Tensor:
        """How undecided alpha is: 1 not at all decided, 0 decided; see `derive.entropy`."""
        return entropy(self.space, self.alpha, self.edge_normalisation)

    def _features(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        return self.body(x, self.tables(self._other))

    def pool(self, features: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Global average."""
        return features.mean((2, 3))

    def check_input(self, x: Tensor, lengths: Tensor | None) -> None:
        check_images(self, x, lengths)
