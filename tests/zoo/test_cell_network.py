"""Encoders from genotypes: sizes of published networks, the graph, any image size, every training method."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

import zoo
from tests.zoo.checkpoints import record
from training.recipe import parse_recipe, read_recipe
from zoo.architectures import build
from zoo.architectures.cell_network import Cell, NB201Cell, reductions
from zoo.architectures.cell_ops import FactorizedReduce, Zero, make_op
from zoo.architectures.genotype import DARTS_OPS, NB201_OPS, PUBLISHED, parse_genotype, to_json
from zoo.checkpoint.config import Method
from zoo.checkpoint.writing import write_checkpoint
from zoo.errors import ConfigError, InputError
from zoo.preprocessing.image import ImageInput
from zoo.preprocessing.skeleton import SkeletonInput
from zoo.strict import Architecture


def same(op: str) -> dict:
    """All edges of both cells the same operation, on the two cell inputs."""
    pairs = [[op, i] for _ in range(4) for i in (0, 1)]
    return {"format": "darts-cell", "normal": pairs, "reduce": pairs}


def network(genotype, size=(32, 32), **arguments):
    architecture = Architecture(family="cell_network", arguments={"genotype": genotype, **arguments})
    return build(architecture, ImageInput(size=size))


def with_classifier(encoder, classes: int = 10) -> int:
    return sum(p.numel() for p in encoder.parameters()) + (encoder.num_features + 1) * classes


@pytest.mark.parametrize(
    ("genotype", "millions"),
    [
        ("darts_v2", 3.349),
        ("darts_v1", 3.169),
        (same("skip_connect"), 1.581),
        (same("sep_conv_3x3"), 4.702),
        (same("sep_conv_5x5"), 5.144),
    ],
)
def test_parameters_at_width_36_depth_20(genotype, millions):
    """Without auxiliary head, with a 10-way classifier: methods/ssnas.md, section 2."""
    assert round(with_classifier(network(genotype)) / 1e6, 3) == millions


@pytest.mark.parametrize(("genotype", "millions"), [("darts_v2", 528), ("darts_v1", 501)])
def test_multiplications_of_one_image(genotype, millions):
    encoder = network(genotype).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        encoder(torch.rand(1, 3, 32, 32))
    assert round(counter.get_total_flops() / 2e6) == millions


def test_unnas_proxy_network():
    """DARTS_V2 at C=16, L=20: 0.711 M parameters (methods/ssnas.md, 2c)."""
    assert round(with_classifier(network("darts_v2", width=16)) / 1e6, 3) == 0.711


def test_nb201_parameters_by_hand():
    """Stem, 3 stages of N cells, 2 residual reductions, last norm; 9 n C^2 + 2 n C per all-3x3 cell."""

    def expected(c, n):
        total = 27 * c + 2 * c
        for stage in range(3):
            w = c << stage
            total += n * 6 * (9 * w * w + 2 * w)
            if stage:
                h = w // 2
                total += 9 * h * w + 2 * w + 9 * w * w + 2 * w + h * w
        return total + 2 * (4 * c)

    assert sum(p.numel() for p in network("nb201_all_conv3x3").parameters()) == expected(16, 5)
    small = network("nb201_all_conv3x3", width=6, depth=1)
    assert sum(p.numel() for p in small.parameters()) == expected(6, 1) and small.num_features == 24


@pytest.mark.parametrize("side", [(32, 32), (33, 31), (8, 9), (24, 40)])
@pytest.mark.parametrize("genotype", ["darts_v2", "nb201_all_conv3x3"])
def test_any_image_size(genotype, side):
    encoder = network(genotype, size=side, width=4, depth=3 if genotype == "darts_v2" else 1).eval()
    x = torch.rand(2, 3, *side)
    maps = encoder.forward_features(x)
    assert maps.shape[2:] == tuple(math.ceil(s / 4) for s in side)
    torch.testing.assert_close(encoder(x), maps.mean((2, 3)))


@pytest.mark.parametrize(("genotype", "factor"), [("darts_v2", 32), ("nb201_all_conv3x3", 16)])
def test_the_imagenet_stem(genotype, factor):
    encoder = network(genotype, size=(64, 64), width=4, depth=4, stem="imagenet").eval()
    assert encoder.forward_features(torch.rand(1, 3, 64, 64)).shape[2] == 64 // factor


@pytest.mark.parametrize("op", DARTS_OPS)
def test_darts_operations_halve_or_keep_the_size(op):
    torch.manual_seed(0)
    for stride, height in [(1, 7), (2, 7), (2, 8)]:
        y = make_op("darts", op, 6, stride)(torch.randn(2, 6, height, 5))
        assert y.shape == (2, 6, -(-height // stride), -(-5 // stride))


def test_separable_convolution_is_what_it_says():
    torch.manual_seed(0)
    op = make_op("darts", "sep_conv_5x5", 4, 2).eval()
    x = torch.randn(1, 4, 8, 8)
    depth1, point1, norm1 = op[1], op[2], op[3]
    depth2, point2, norm2 = op[5], op[6], op[7]
    y = norm1(F.conv2d(F.conv2d(x.relu(), depth1.weight, stride=2, padding=2, groups=4), point1.weight))
    y = norm2(F.conv2d(F.conv2d(y.relu(), depth2.weight, padding=2, groups=4), point2.weight))
    torch.testing.assert_close(op(x), y)
    dil = make_op("darts", "dil_conv_3x3", 4, 1).eval()
    assert dil[1].dilation == (2, 2) and dil[1].padding == (2, 2) and dil[1].groups == 4
    assert make_op("darts", "dil_conv_5x5", 4, 1)[1].padding == (4, 4)


@pytest.mark.parametrize("op", ["sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3", "dil_conv_5x5"])
def test_gradients_under_bfloat16(op):
    """Of a dilated depthwise convolution, torch's own are unwritten memory on the CPU at 32 px."""
    torch.manual_seed(0)
    layer = make_op("darts", op, 8, 1)
    x, g = torch.randn(8, 8, 32, 32).to(memory_format=torch.channels_last), torch.randn(8, 8, 32, 32)
    (expected,) = torch.autograd.grad(layer(x), layer[1].weight, g)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
    (found,) = torch.autograd.grad(y, layer[1].weight, g.to(y.dtype))
    assert float((found - expected).norm() / expected.norm()) < 0.3


def test_factorized_reduce_reads_every_pixel():
    for side in (6, 7):
        x = torch.rand(1, 2, side, side, requires_grad=True)
        layer = FactorizedReduce(2, 4).eval()
        nn.init.constant_(layer.even.weight, 1.0)
        nn.init.constant_(layer.odd.weight, 1.0)
        layer(x).sum().backward()
        rows = torch.arange(side)
        on_grid = (rows[:, None] % 2) == (rows[None, :] % 2)
        assert bool((x.grad[0, 0][on_grid] > 0).all()) and bool((x.grad[0, 0][~on_grid] == 0).all())


def test_zero_stops_nan():
    assert bool((Zero(2)(torch.full((1, 2, 4, 4), float("nan"))) == 0).all())


def test_darts_cell_is_its_graph():
    torch.manual_seed(0)
    g = PUBLISHED["darts_v2"]
    cell = Cell(g.normal, (2, 4), before=8, last=8, channels=4, reduces=False, after_reduction=False).eval()
    s0, s1 = torch.randn(2, 1, 8, 6, 6).unbind()
    states = [cell.pre0(s0), cell.pre1(s1)]
    ops = list(cell.ops)
    states.append(ops[0](states[0]) + ops[1](states[1]))
    states.append(ops[2](states[0]) + ops[3](states[1]))
    states.append(ops[4](states[1]) + ops[5](states[0]))
    torch.testing.assert_close(cell(s0, s1), torch.cat([states[2], states[4]], 1))
    assert isinstance(ops[5], nn.Identity)
    reducing = Cell(g.reduce, (2, 3, 4, 5), 8, 8, 4, reduces=True, after_reduction=True)
    strides = [m.stride if isinstance(m, nn.MaxPool2d) else 1 for m in reducing.ops]
    assert strides == [2, 2, 1, 2, 2, 1, 1, 2] and isinstance(reducing.pre0, FactorizedReduce)


def test_nb201_cell_is_its_graph():
    torch.manual_seed(0)
    g = parse_genotype("|nor_conv_1x1~0|+|skip_connect~0|nor_conv_3x3~1|+|none~0|avg_pool_3x3~1|skip_connect~2|")
    cell, x = NB201Cell(g.edges, 4).eval(), torch.randn(1, 4, 6, 6)
    one = cell.ops[0](x)
    two = x + cell.ops[2](one)
    torch.testing.assert_close(cell(x), F.avg_pool2d(one, 3, 1, 1, count_include_pad=False) + two)


def test_reductions_lie_at_the_thirds():
    assert [reductions(d) for d in (3, 5, 8, 20)] == [(1, 2), (1, 3), (2, 5), (6, 13)]


def test_wide_or_shallow_networks_are_refused():
    with pytest.raises(ConfigError, match="at least 3 cells"):
        network("darts_v2", depth=2)
    with pytest.raises(ConfigError, match="even"):
        network("darts_v2", width=7)
    with pytest.raises(ConfigError, match="takes images"):
        build(Architecture(family="cell_network", arguments={"genotype": "darts_v2"}), SkeletonInput())
    with pytest.raises(ConfigError, match="did you mean 'darts_v2'"):
        network("darts_v3")
    with pytest.raises(ConfigError, match="genotype"):
        build(Architecture(family="cell_network", arguments={}), ImageInput())


def test_inputs_are_checked_like_other_image_encoders():
    encoder = network("nb201_all_conv3x3", width=4, depth=1).eval()
    with pytest.raises(InputError, match="trained on 32x32 px, got 31x32"):
        encoder(torch.rand(1, 3, 31, 32))


MIXED = "|nor_conv_3x3~0|+|skip_connect~0|none~1|+|avg_pool_3x3~0|none~1|nor_conv_1x1~2|"


@pytest.mark.parametrize("genotype", ["darts_v1", MIXED])
def test_published_and_loaded_again(tmp_path, genotype):
    torch.manual_seed(0)
    depth = 3 if genotype.startswith("d") else 1
    encoder = network(genotype, size=(16, 16), width=4, depth=depth)
    encoder.train()(torch.rand(4, 3, 16, 16))
    arguments = {"genotype": parse_genotype(genotype).model_dump(mode="json"), "width": 4, "depth": depth}
    config = write_checkpoint(
        encoder.eval(),
        tmp_path / "c",
        name="ssnas_cell_toys",
        architecture=Architecture(family="cell_network", arguments=arguments),
        method=Method(name="simclr", title="SimCLR", paper="p"),
        training=record(),
        dtype="float32",
    )
    loaded = zoo.load(f"local-dir:{tmp_path / 'c'}")
    x = torch.rand(3, 3, 16, 16)
    torch.testing.assert_close(loaded(x), encoder(x))
    assert loaded.config == config


# -- in recipes --------------------------------------------------------------------------------------


def test_any_recipe_takes_a_genotype(tmp_path):
    """`encoder.family=cell_network encoder.genotype=...` drops the recipe's own encoder arguments."""
    file = tmp_path / "found.json"
    file.write_text(to_json(PUBLISHED["darts_v2"]))
    for text in ("darts_v2", PUBLISHED["darts_v2"].text(), str(file)):
        for family in (["encoder.family=cell_network"], []):
            recipe = read_recipe(
                "simclr_resnet18_cifar10_cpu", [*family, f"encoder.genotype={text}", "encoder.width=8"]
            )
            assert recipe.encoder["family"] == "cell_network" and recipe.encoder["width"] == 8
            assert recipe.encoder["genotype"] == PUBLISHED["darts_v2"].model_dump(mode="json")
            assert recipe.encoder["stem"] == "cifar" and recipe.encoder["depth"] == 20
            assert parse_recipe(recipe.dump(), "again") == recipe
    cell = PUBLISHED["nb201_all_conv3x3"].text()
    recipe = read_recipe("simclr_resnet18_cifar10_cpu", [f"encoder.genotype={cell}"])
    assert recipe.encoder["genotype"]["edges"] == ["nor_conv_3x3"] * 6
    with pytest.raises(ConfigError, match="cannot be read"):
        read_recipe("simclr_resnet18_cifar10_cpu", ["encoder.genotype=no/such.json"])
    with pytest.raises(ConfigError, match="unknown genotype"):
        read_recipe("simclr_resnet18_cifar10_cpu", ["encoder.genotype=ofa"])


def test_operations_have_a_module_each():
    for space, names in (("darts", DARTS_OPS), ("nb201", NB201_OPS)):
        kinds = {repr(make_op(space, name, 4)) for name in names}
        assert len(kinds) == len(names)
