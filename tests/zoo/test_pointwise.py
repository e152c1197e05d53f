"""Strided 1x1 convolutions: the same results as torch's, and none left that damages memory on some CPUs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from zoo.architectures import build
from zoo.architectures.pointwise import SubsampledConv2d, pick_pixels_first
from zoo.preprocessing.image import ImageInput
from zoo.strict import Architecture

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("size", [(8, 8), (7, 5), (1, 1)])
def test_results_and_gradients_are_those_of_the_plain_convolution(size):
    torch.manual_seed(0)
    plain = nn.Conv2d(3, 5, 1, stride=2).double()  # contiguous float64 takes other kernels
    ours = nn.Conv2d(3, 5, 1, stride=2).double()
    ours.load_state_dict(plain.state_dict())
    ours = pick_pixels_first(ours)
    assert type(ours) is SubsampledConv2d and list(ours.state_dict()) == ["weight", "bias"]
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    found, expected = ours(x), plain(x)
    torch.testing.assert_close(found, expected)
    for module, y in ((ours, found), (plain, expected)):
        y.square().sum().backward()
        assert module.weight.grad is not None
    torch.testing.assert_close(ours.weight.grad, plain.weight.grad)


def test_other_convolutions_stay_as_they_are():
    kept = [
        nn.Conv2d(8, 16, 1, stride=2), nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 3, stride=2, padding=1),
        nn.Conv2d(4, 4, 1, stride=2, groups=4), nn.Conv2d(3, 4, 1, stride=2, padding=1),
    ]  # fmt: skip
    pick_pixels_first(nn.Sequential(*kept))
    assert all(type(layer) is nn.Conv2d for layer in kept)


@pytest.mark.parametrize(
    ("family", "arguments"),
    [
        ("timm", {"model": "resnet18", "model_args": {"channels": [4, 6, 8, 10]}}),
        ("cell_supernet", {"space": "darts", "width": 4, "depth": 3, "partial": 2}),
    ],
)
def test_no_network_is_built_with_a_dangerous_one(family, arguments):
    import training.recipe  # noqa: F401  it knows the supernet

    encoder = build(Architecture(family=family, arguments=arguments), ImageInput(size=(32, 32)))
    strided = [
        m for m in encoder.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1) and max(m.stride) > 1
    ]
    assert any(m.in_channels % 8 for m in strided), "the case shows nothing"
    assert all(type(m) is SubsampledConv2d for m in strided if m.in_channels % 8)


SCRIPT = """
import sys, torch
from zoo.architectures.cell_ops import FactorizedReduce
torch.set_num_threads(int(sys.argv[1]))
for inputs, outputs in ((1, 2), (2, 2), (4, 4), (3, 32)):
    layer = FactorizedReduce(inputs, outputs).to(memory_format=torch.channels_last)
    for side in (4, 7, 8, 16) * 5:
        x = torch.randn(16, inputs, side, side).to(memory_format=torch.channels_last).requires_grad_()
        layer(x).square().sum().backward()
"""


@pytest.mark.parametrize("threads", [1, 2])
def test_training_with_the_kernels_of_avx2_does_not_end_in_a_crash(threads):
    """With nn.Conv2d in its place this process dies of SIGABRT or SIGSEGV, on CPUs with AVX-512 too."""
    environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(threads)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-500:]
