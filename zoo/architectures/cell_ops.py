"""Operations of the DARTS and NAS-Bench-201 cells: `make_op(space, name, channels, stride)`.

Order inside a block is ReLU, convolution, batch norm. Strided operations give ceil(H / 2) for every H, so that odd
images pass. During search batch norm has no affine parameters and a batch norm follows each pool (arXiv 1806.09055
and its released code).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.architectures.pointwise import pick_pixels_first


def relu_conv_bn(inputs: int, outputs: int, kernel: int = 1, stride: int = 1, affine: bool = True) -> nn.Sequential:
    """ReLU, one convolution, batch norm."""
    return nn.Sequential(
        nn.ReLU(),
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(outputs, affine=affine),
    )


def separable(channels: int, kernel: int, stride: int, affine: bool) -> nn.Sequential:
    """ReLU, depthwise, 1x1, batch norm, twice; the stride in the first."""
    return nn.Sequential(*_depthwise(channels, kernel, stride, 1, affine), *_depthwise(channels, kernel, 1, 1, affine))


def dilated(channels: int, kernel: int, stride: int, affine: bool) -> nn.Sequential:
    """ReLU, depthwise with dilation 2, 1x1, batch norm."""
    return nn.Sequential(*_depthwise(channels, kernel, stride, 2, affine))


def _depthwise(channels: int, kernel: int, stride: int, dilation: int, affine: bool) -> list[nn.Module]:
    padding = dilation * (kernel - 1) // 2
    kind = Float32Conv if dilation > 1 else nn.Conv2d
    return [
        nn.ReLU(),
        kind(channels, channels, kernel, stride, padding, dilation, groups=channels, bias=False),
        nn.Conv2d(channels, channels, 1, bias=False),
        nn.BatchNorm2d(channels, affine=affine),
    ]


class Float32Conv(nn.Conv2d):
    """A convolution that leaves bfloat16 autocast on the CPU, where the weight gradient of a dilated depthwise
    convolution is unwritten memory at 32 px (torch 2.14, oneDNN)."""

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):
            return super().forward(x.float())


class FactorizedReduce(nn.Module):
    """`(N, C, H, W)` -> `(N, outputs, ceil(H/2), ceil(W/2))`: two strided 1x1 convolutions, the second on the input
    shifted by one pixel, so that every pixel is read."""

    def __init__(self, inputs: int, outputs: int, affine: bool = True) -> None:
        super().__init__()
        half = outputs // 2
        self.even = nn.Conv2d(inputs, half, 1, stride=2, bias=False)
        self.odd = nn.Conv2d(inputs, outputs - half, 1, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(outputs, affine=affine)
        pick_pixels_first(self)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(x)
        height, width = x.shape[2:]
        shifted = x[:, :, 1:, 1:]
        if height % 2 or width % 2:
            shifted = F.pad(shifted, (0, width % 2, 0, height % 2))
        return self.norm(torch.cat([self.even(x), self.odd(shifted)], dim=1))


class Zero(nn.Module):
    """No connection: zeros of the right size, even where the input is not finite."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x[:, :, :: self.stride, :: self.stride])


def pool(kind: str, stride: int, channels: int, search: bool) -> nn.Module:
    """3x3 pooling; averages count true pixels only. With batch norm behind it during search."""
    layer = nn.MaxPool2d(3, stride, 1) if kind == "max" else nn.AvgPool2d(3, stride, 1, count_include_pad=False)
    return nn.Sequential(layer, nn.BatchNorm2d(channels, affine=False)) if search else layer


def make_op(space: str, name: str, channels: int, stride: int = 1, *, search: bool = False) -> nn.Module:
    """One operation of a cell.

    Args:
        space: `"darts"` or `"nb201"`. name: of `DARTS_OPS` or `NB201_OPS`. channels: in and out.
        stride: 2 on the input edges of a DARTS reduction cell.
        search: inside a supernet: no affine parameters, and (DARTS) batch norm after pools.
    """
    affine = not search
    if name == "none":
        return Zero(stride)
    if name == "skip_connect":
        return nn.Identity() if stride == 1 else FactorizedReduce(channels, channels, affine)
    if name.endswith("pool_3x3"):
        return pool(name[:3], stride, channels, search and space == "darts")
    kernel = int(name[-1])
    if name.startswith("sep_conv"):
        return separable(channels, kernel, stride, affine)
    if name.startswith("dil_conv"):
        return dilated(channels, kernel, stride, affine)
    return relu_conv_bn(channels, channels, kernel, stride, affine)


class ResidualReduction(nn.Module):
    """The fixed block between the stages of a NAS-Bench-201 network: `(N, C, H, W)` -> `(N, outputs, H/2, W/2)`."""

    def __init__(self, inputs: int, outputs: int, affine: bool = True) -> None:
        super().__init__()
        self.first = relu_conv_bn(inputs, outputs, 3, 2, affine)
        self.second = relu_conv_bn(outputs, outputs, 3, 1, affine)
        self.shortcut = nn.Sequential(
            nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False), nn.Conv2d(inputs, outputs, 1, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.second(self.first(x))
