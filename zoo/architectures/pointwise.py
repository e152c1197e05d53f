"""1x1 convolutions that skip pixels, in a form in which torch's CPU kernels do not overwrite memory.

Seen with torch 2.14.1 on CPUs with AVX2 and without AVX-512 (or with ONEDNN_MAX_CPU_ISA=AVX2), with one and with two
threads: forward and backward of a 1x1 convolution of stride 2 in channels_last, from 1, 2, 3, 4 or 6 channels, end in
"double free or corruption", "free(): invalid next size" or a segmentation fault. From 8 and 16 channels they do not,
nor in contiguous memory, nor without the backward pass.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

#: Channels that the CPU's kernels take at a time.
LANES = 8


class SubsampledConv2d(nn.Conv2d):
    """A 1x1 convolution of any stride: the pixels that it reads are picked first, so that the stride is 1."""

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = self.stride
        return F.conv2d(x[:, :, ::rows, ::columns], self.weight, self.bias)


def pick_pixels_first(network: nn.Module) -> nn.Module:
    """`network`, in which each 1x1 convolution with a stride and with channels that fill no whole lanes is a
    `SubsampledConv2d`. Weights, their names and, up to rounding, all results stay."""
    for module in network.modules():
        if (
            type(module) is nn.Conv2d
            and module.kernel_size == (1, 1)
            and max(module.stride) > 1
            and module.padding == (0, 0)
            and module.groups == 1
            and module.in_channels % LANES
        ):
            module.__class__ = SubsampledConv2d
    return network
