"""The airbench family: its counts, its arguments, and every road that a checkpoint of it takes."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import zoo
from evaluation.floors import untrained
from tests.training.test_loop import tiny
from tests.zoo.checkpoints import record, same_weights
from training.recipe import parse_recipe, read_recipe
from zoo.architectures import build
from zoo.architectures.airbench import PRESETS
from zoo.checkpoint.config import Method
from zoo.checkpoint.writing import write_checkpoint
from zoo.encoder import Encoder
from zoo.errors import ConfigError, InputError
from zoo.interop.export import export
from zoo.preprocessing.image import ImageInput
from zoo.preprocessing.skeleton import SkeletonInput
from zoo.strict import Architecture

SMALL = {"widths": [8, 16, 24], "depth": 2, "pool": "mean"}
NORMALISED = ImageInput(size=(16, 16), mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
SHAPES = {"encoder": {"family": "airbench", **SMALL}, "input": {"size": [16, 16]}}


def network(input: ImageInput = NORMALISED, **arguments) -> Encoder:
    torch.manual_seed(0)
    return build(Architecture(family="airbench", arguments={**SMALL, **arguments}), input)


def photographs(count: int = 40, side: int = 20) -> torch.Tensor:
    """Smooth colours with noise, uint8 `(N, 3, H, W)`: like photographs, far from white."""
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(count, 3, 5, 5, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (side, side), mode="bilinear")
    mixed = 0.6 * smooth + 0.4 * smooth.mean(1, keepdim=True)
    noise = 0.03 * torch.randn(count, 3, side, side, generator=generator)
    return ((mixed + noise).clamp(0, 1) * 255).byte()


def responses(encoder: Encoder, images: torch.Tensor) -> torch.Tensor:
    """All 24 outputs of the whitening at every patch of uint8 images: `(24, patches)` float64."""
    x = torch.stack([encoder.transform().normalise(image[None].permute(0, 2, 3, 1))[0] for image in images])
    with torch.no_grad():
        return encoder.whitening(x).transpose(0, 1).flatten(1).double()


def fresh_buffers(encoder: Encoder) -> list[torch.Tensor]:
    return [buffer.clone() for buffer in encoder.buffers()]


# -- the network ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("preset", "millions"), [("airbench94", 1.97), ("airbench95", 4.60)])
def test_parameters(preset, millions):
    """methods/efficient_ssl.md, table of networks; without a classifier."""
    encoder = build(Architecture(family="airbench", arguments={"preset": preset}), ImageInput())
    assert round(sum(p.numel() for p in encoder.parameters()) / 1e6, 2) == millions


@pytest.mark.parametrize(
    ("preset", "side", "giga"),
    [("airbench94", 16, 0.047), ("airbench94", 24, 0.123), ("airbench94", 32, 0.236)]
    + [("airbench95", 16, 0.121), ("airbench95", 24, 0.316), ("airbench95", 32, 0.603)],
)
def test_flops_of_one_image(preset, side, giga):
    """Multiplications and additions of the convolutions in a forward pass, as `--plan` counts them."""
    encoder = build(Architecture(family="airbench", arguments={"preset": preset}), ImageInput(size=(side, side)))
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        encoder.eval()(torch.rand(1, 3, side, side))
    assert round(counter.get_total_flops() / 1e9, 3) == giga


@pytest.mark.parametrize("depth", [2, 3])
@pytest.mark.parametrize(("height", "width"), [(16, 16), (17, 40), (33, 24), (96, 64)])
def test_any_size_from_16_pixels(depth, height, width):
    encoder = network(ImageInput(size=(height, width)), depth=depth).eval()
    x = torch.rand(2, 3, height, width)
    features = encoder.forward_features(x)
    assert features.shape == (2, 24, (height - 1) // 8, (width - 1) // 8)
    assert encoder(x).shape == (2, encoder.num_features) and encoder(x).dtype == torch.float32


def test_smaller_images_are_refused():
    with pytest.raises(ConfigError, match=r"from 16 px, not 15x16"):
        network(ImageInput(size=(15, 16)))
    with pytest.raises(InputError, match=r"from 16 px, got 16x15"):
        network().train()(torch.rand(2, 3, 16, 15))
    with pytest.raises(ConfigError, match="takes images"):
        build(Architecture(family="airbench", arguments={}), SkeletonInput())


def test_mean_max_joins_both():
    encoder = network(ImageInput(size=(32, 32)), pool="mean_max").eval()
    x = torch.rand(2, 3, 32, 32)
    features = encoder.forward_features(x)
    assert encoder.num_features == 48
    torch.testing.assert_close(encoder(x), torch.cat([features.mean((2, 3)), features.amax((2, 3))], dim=1))


def test_three_convolutions_have_a_residual_around_the_last_two():
    """With the last norm's outputs held at zero, a stage gives the GELU of what the bridge carries."""
    stage = network(depth=3).stages[1].eval()
    x = torch.rand(2, 8, 12, 12)
    with torch.no_grad():
        first = torch.nn.functional.gelu(stage.norms[0](torch.nn.functional.max_pool2d(stage.convolutions[0](x), 2)))
        stage.norms[-1].weight.zero_()
        torch.testing.assert_close(stage(x), torch.nn.functional.gelu(first))
    assert [len(s.convolutions) for s in network(depth=3).stages] == [3, 3, 3]


def test_convolutions_begin_as_identities():
    stage = network().stages[1]
    x = torch.rand(1, 8, 6, 6)
    torch.testing.assert_close(stage.convolutions[0](x)[:, :8], x)
    y = torch.rand(1, 16, 6, 6)
    torch.testing.assert_close(stage.convolutions[1](y), y)
    assert all(not norm.weight.requires_grad and norm.bias.requires_grad for norm in stage.norms)


def test_whitening_is_out_of_the_optimisers_reach():
    encoder = network()
    assert {"whitening.weight", "whitening.offset"} <= set(dict(encoder.named_buffers()))
    assert set(encoder.data_statistics) <= set(encoder.state_dict())
    assert [name for name, _ in encoder.whitening.named_parameters()] == ["bias"]


# -- arguments -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", list(PRESETS))
def test_a_preset_is_written_out(preset):
    raw = tiny(**SHAPES).dump()
    recipe = parse_recipe({**raw, "encoder": {"family": "airbench", "preset": preset, "pool": "mean_max"}}, "test")
    chosen = PRESETS[preset]
    assert recipe.encoder == {
        "family": "airbench", "widths": list(chosen["widths"]), "depth": chosen["depth"], "pool": "mean_max"
    }  # fmt: skip
    assert parse_recipe(recipe.dump(), "again") == recipe


def test_a_preset_is_overridden_beside_it_and_from_the_command_line():
    recipe = read_recipe(
        "simclr_resnet18_cifar10_cpu",
        ["encoder.family=airbench", "encoder.preset=airbench96", "encoder.widths=[64, 256, 512]"],
    )
    assert recipe.encoder == {"family": "airbench", "widths": [64, 256, 512], "depth": 3, "pool": "mean"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"preset": "airbench49"}, "did you mean .*'airbench94'"),
        ({"preset": 94}, "unknown preset"),
        ({"widths": [64, 256]}, "widths"),
        ({"widths": [4, 256, 256]}, "greater than or equal to 8"),
        ({"depth": 4}, "depth"),
        ({"pool": "max"}, "pool"),
        ({"width": 64}, "width"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ConfigError, match=message):
        build(Architecture(family="airbench", arguments=arguments), ImageInput())


# -- bfloat16 on the CPU ---------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("side", [16, 24, 32])
def test_bfloat16_gradients_are_those_of_float32(side, threads):
    """torch 2.14 computes some gradients wrongly on the CPU (see `zoo.architectures.single_pixel`), not these."""
    encoder = build(Architecture(family="airbench", arguments={"preset": "airbench94"}), ImageInput(size=(side, side)))
    x = torch.rand(64, 3, side, side, generator=torch.Generator().manual_seed(0))
    goal = torch.randn(64, 256, generator=torch.Generator().manual_seed(1))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        gradients = {}
        for half in (False, True):
            encoder.train().zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
                h = encoder(x)
            (h * goal).sum().backward()
            gradients[half] = {name: p.grad.clone() for name, p in encoder.named_parameters() if p.grad is not None}
    finally:
        torch.set_num_threads(before)
    assert len(gradients[True]) == 13  # 6 convolutions, 6 shifts, 1 bias
    for name, right in gradients[False].items():
        off = float((gradients[True][name] - right).norm() / right.norm())
        assert off < 0.2, (name, off)


# -- checkpoints -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """An encoder that was fitted and moved away from its initialisation, and its checkpoint's folder."""
    encoder = network()
    encoder.fit_to_data(photographs())
    with torch.no_grad():
        encoder.train()(torch.rand(8, 3, 16, 16))
        encoder.whitening.bias.normal_(std=0.1)
    folder = tmp_path_factory.mktemp("published") / "simclr_airbench_toys"
    write_checkpoint(
        encoder.eval(),
        folder,
        name="simclr_airbench_toys",
        architecture=Architecture(family="airbench", arguments=SMALL),
        method=Method(name="simclr", title="SimCLR", paper="p"),
        training=record(),
    )
    return encoder, folder


def test_state_round_trip():
    first, second = network(), network(pool="mean")
    first.fit_to_data(photographs())
    assert not same_weights(first, second)
    second.load_state_dict(first.state_dict())
    assert same_weights(first, second)


def test_published_and_loaded_again(published):
    encoder, folder = published
    loaded = zoo.load(f"local-dir:{folder}")
    for name in encoder.data_statistics:
        assert torch.equal(loaded.state_dict()[name], encoder.state_dict()[name]), name
    x = encoder.transform().normalise(photographs(3, 16).permute(0, 2, 3, 1))
    torch.testing.assert_close(loaded(x), encoder(x), rtol=0.02, atol=0.02)


def test_torch_hub_gives_the_same_encoder(published, monkeypatch):
    _, folder = published
    monkeypatch.setenv("ZOO_CHECKPOINTS", str(folder.parent))
    root = str(zoo.__file__).rsplit("/", 2)[0]
    loaded = torch.hub.load(root, folder.name, source="local")
    assert same_weights(loaded, zoo.load(f"local-dir:{folder}"))


@pytest.mark.parametrize("format", ["onnx", "torch-export"])
def test_exports_give_its_features(published, tmp_path, format):
    if format == "onnx":
        pytest.importorskip("onnxruntime", reason="the extra 'onnx' is not installed")
        pytest.importorskip("onnxscript", reason="the extra 'onnx' is not installed")
    assert export(zoo.load(f"local-dir:{published[1]}"), tmp_path / "encoder.bin", format) <= 1e-4


def test_the_untrained_floor_keeps_the_whitening_and_nothing_else(published):
    loaded = zoo.load(f"local-dir:{published[1]}")
    floor = untrained(loaded, seed=3)
    for name, value in floor.state_dict().items():
        if name in loaded.data_statistics:
            assert torch.equal(value, loaded.state_dict()[name]), name
    torch.manual_seed(3)
    fresh = build(loaded.config.architecture, loaded.input)
    for (name, value), other in zip(floor.state_dict().items(), fresh.state_dict().values(), strict=True):
        assert torch.equal(value, other) == (name not in loaded.data_statistics), name
