"""Encoders built from a genotype: stacked DARTS cells, or a NAS-Bench-201 network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor, nn

from zoo.architectures.cell_ops import FactorizedReduce, ResidualReduction, make_op, relu_conv_bn
from zoo.architectures.genotype import NB201_EDGES, NODES, DartsGenotype, Genotype, NB201Genotype, Pair, parse_genotype
from zoo.architectures.image import check_images
from zoo.encoder import Encoder
from zoo.errors import ConfigError
from zoo.preprocessing.image import ImageInput
from zoo.strict import Strict

#: Width and depth of the spaces' own CIFAR-10 networks.
DEFAULTS = {"darts-cell": (36, 20), "nas-bench-201-cell": (16, 5)}
Stem = Literal["cifar", "imagenet"]


class CellNetworkArguments(Strict):
    """Arguments of the `cell_network` family.

    `genotype`: any form that `parse_genotype` takes; written out as its JSON. `width`: channels C of the first
    cells. `depth`: DARTS, number of cells L, of which those at L//3 and 2L//3 reduce; NAS-Bench-201, cells per
    stage N. Defaults are the spaces' own, 36 and 20, and 16 and 5. `stem`: `"cifar"` keeps the resolution;
    `"imagenet"` divides it by 8 (DARTS) or 4 (NAS-Bench-201). A recipe may say `"auto"`; a checkpoint never does.
    """

    genotype: Genotype
    width: int = Field(default=0, ge=0, le=2048, validate_default=True)
    depth: int = Field(default=0, ge=0, le=128, validate_default=True)
    stem: Stem = "cifar"

    @field_validator("genotype", mode="before")
    @classmethod
    def _genotype(cls, value: Any) -> Any:
        return parse_genotype(value)

    @field_validator("width")
    @classmethod
    def _width(cls, value: int, info: ValidationInfo) -> int:
        genotype = info.data.get("genotype")
        if value == 1 or (value % 2 and isinstance(genotype, DartsGenotype)):
            raise ValueError("width must be even: a reduction makes its channels in two halves")
        return value or (DEFAULTS[genotype.format][0] if genotype else 0)

    @field_validator("depth")
    @classmethod
    def _depth(cls, value: int, info: ValidationInfo) -> int:
        genotype = info.data.get("genotype")
        if 0 < value < 3 and isinstance(genotype, DartsGenotype):
            raise ValueError(f"a DARTS network has at least 3 cells: one normal and two reductions, got {value}")
        return value or (DEFAULTS[genotype.format][1] if genotype else 0)


class Cell(nn.Module):
    """A DARTS cell of one genotype: outputs of the two cells before -> their successor."""

    def __init__(
        self, pairs: Sequence[Pair], concat: Sequence[int], before: int, last: int, channels: int, reduces: bool,
        after_reduction: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        self.pre0 = FactorizedReduce(before, channels) if after_reduction else relu_conv_bn(before, channels)
        self.pre1 = relu_conv_bn(last, channels)
        self.inputs = [source for _, source in pairs]
        self.concat = list(concat)
        self.ops = nn.ModuleList(
            make_op("darts", op, channels, 2 if reduces and source < 2 else 1) for op, source in pairs
        )
        self.channels = len(concat) * channels

    def forward(self, s0: Tensor, s1: Tensor) -> Tensor:
        states = [self.pre0(s0), self.pre1(s1)]
        for node in range(NODES):
            a, b = (self.ops[k](states[self.inputs[k]]) for k in (2 * node, 2 * node + 1))
            states.append(a + b)
        return torch.cat([states[i] for i in self.concat], dim=1)


def reductions(depth: int) -> tuple[int, int]:
    """Positions of the two reduction cells among `depth` cells."""
    return depth // 3, 2 * depth // 3


class DartsBody(nn.Module):
    """Stem and `depth` cells: images -> feature map. `cell` makes one cell, so that the supernet shares this.

    `cell(before, last, channels, reduces, after_reduction)` gives a module with `channels`, called with the two
    states before it and whatever `forward` got beside the images.
    """

    def __init__(self, cell: Callable[..., nn.Module], width: int, depth: int, stem: str, stem_factor: int = 3) -> None:
        super().__init__()
        if stem == "cifar":
            channels = stem_factor * width
            self.stem = nn.Sequential(nn.Conv2d(3, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))
            self.stem2: nn.Module = nn.Identity()
        else:
            channels = width
            self.stem = strided_stem(width)
            self.stem2 = relu_conv_bn(width, width, 3, 2)
        before, last, reduced = channels, channels, stem == "imagenet"
        self.cells = nn.ModuleList()
        for position in range(depth):
            reduces = position in reductions(depth)
            width = 2 * width if reduces else width
            self.cells.append(cell(before, last, width, reduces, reduced))
            before, last, reduced = last, self.cells[-1].channels, reduces
        self.channels = last

    def forward(self, x: Tensor, *architecture: Any) -> Tensor:
        s0 = self.stem(x)
        s1 = self.stem2(s0)
        for cell in self.cells:
            s0, s1 = s1, cell(s0, s1, *architecture)
        return s1


def strided_stem(width: int) -> nn.Sequential:
    """Two strided 3x3 convolutions: resolution / 4."""
    return nn.Sequential(
        nn.Conv2d(3, width // 2, 3, 2, 1, bias=False),
        nn.BatchNorm2d(width // 2),
        nn.ReLU(),
        nn.Conv2d(width // 2, width, 3, 2, 1, bias=False),
        nn.BatchNorm2d(width),
    )


class NB201Cell(nn.Module):
    """A NAS-Bench-201 cell: every node sums its edges, the last node is the output."""

    def __init__(self, edges: Sequence[str], channels: int) -> None:
        super().__init__()
        self.ops = nn.ModuleList(make_op("nb201", op, channels) for op in edges)

    def forward(self, x: Tensor) -> Tensor:
        states = [x]
        for node in (1, 2, 3):
            states.append(sum(self.ops[k](states[j]) for k, (i, j) in enumerate(NB201_EDGES) if i == node))
        return states[-1]


class NB201Body(nn.Module):
    """Stem, three stages of `depth` cells with residual reductions between them, batch norm, ReLU."""

    def __init__(self, cell: Callable[[int], nn.Module], width: int, depth: int, stem: str) -> None:
        super().__init__()
        if stem == "cifar":
            self.stem = nn.Sequential(nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width))
        else:
            self.stem = strided_stem(width)
        self.cells = nn.ModuleList()
        for stage in range(3):
            if stage:
                self.cells.append(ResidualReduction(width, 2 * width))
                width = 2 * width
            self.cells.extend(cell(width) for _ in range(depth))
        self.last = nn.Sequential(nn.BatchNorm2d(width), nn.ReLU())
        self.channels = width

    def forward(self, x: Tensor, *architecture: Any) -> Tensor:
        x = self.stem(x)
        for cell in self.cells:
            x = cell(x) if isinstance(cell, ResidualReduction) else cell(x, *architecture)
        return self.last(x)


class CellNetwork(Encoder):
    """`(N, 3, H, W)` -> `(N, num_features)`: the network of a genotype, globally averaged. Any image size."""

    Arguments = CellNetworkArguments

    def __init__(self, arguments: CellNetworkArguments, input: ImageInput) -> None:
        super().__init__()
        if not isinstance(input, ImageInput):
            raise ConfigError(f"cell_network takes images; set input.modality to 'image', not {input.modality!r}")
        self.input = input
        self.body = _body(arguments).to(memory_format=torch.channels_last)
        self.num_features = self.body.channels

    def _features(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        return self.body(x)

    def pool(self, features: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Global average."""
        return features.mean((2, 3))

    def check_input(self, x: Tensor, lengths: Tensor | None) -> None:
        check_images(self, x, lengths)


def _body(arguments: CellNetworkArguments) -> nn.Module:
    genotype, width, depth, stem = arguments.genotype, arguments.width, arguments.depth, arguments.stem
    if isinstance(genotype, NB201Genotype):
        return NB201Body(lambda channels: NB201Cell(genotype.edges, channels), width, depth, stem)

    def cell(before: int, last: int, channels: int, reduces: bool, after_reduction: bool) -> nn.Module:
        pairs, concat = (
            (genotype.reduce, genotype.reduce_concat) if reduces else (genotype.normal, genotype.normal_concat)
        )
        return Cell(pairs, concat, before, last, channels, reduces, after_reduction)

    return DartsBody(cell, width, depth, stem)
