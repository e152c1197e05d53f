"""The U-Net encoder and timm backbones with attention pooling: counts, pooling, masks, wrong input, publishing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import zoo
from tests.zoo.checkpoints import same_weights, write_small
from zoo.architectures import build
from zoo.architectures.attention import AttentionPool
from zoo.architectures.attention_picture import mask_over
from zoo.errors import ConfigError, InputError
from zoo.preprocessing.image import ImageInput
from zoo.preprocessing.skeleton import SkeletonInput
from zoo.strict import Architecture

INPUT = ImageInput(size=(32, 32))
SMALL = {"width": 8, "depth": 3}


def unet(input=INPUT, **arguments):
    torch.manual_seed(0)
    return build(Architecture(family="unet", arguments=arguments), input)


def timm_maps(model="resnet18", input=INPUT, **arguments):
    torch.manual_seed(0)
    return build(Architecture(family="timm_maps", arguments={"model": model, **arguments}), input)


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_parameter_counts_of_the_paper():
    encoder = unet(ImageInput(size=(224, 224)))
    assert encoder.num_features == 512
    assert count(encoder.levels) == 4_689_216 and count(encoder.pooling) == 173_441
    assert count(encoder) == 4_689_216 + 173_441
    assert count(unet(pool="average")) == 4_689_216


def test_features_maps_and_mask_have_the_documented_shapes():
    encoder = unet().eval()
    x = torch.rand(2, 3, 32, 32)
    assert encoder(x).shape == (2, 512) and encoder(x).dtype == torch.float32
    features = encoder.forward_features(x)
    assert features.shape == (2, 512, 4, 4) and features.min() >= 0
    assert [tuple(m.shape[1:]) for m in encoder.maps(x)] == [(64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4)]
    mask = encoder.attention_mask(x)
    assert mask.shape == (2, 1, 4, 4) and mask.min() > 0 and mask.max() < 1
    weighted = (features * mask).sum((2, 3)) / mask.sum((2, 3))
    torch.testing.assert_close(encoder(x), weighted, rtol=1e-4, atol=1e-5)


def test_a_constant_mask_is_the_plain_mean():
    pool = AttentionPool(16).eval()
    for p in pool.layers[-1].parameters():
        torch.nn.init.zeros_(p)
    x = torch.rand(3, 16, 5, 4)
    torch.testing.assert_close(pool(x), x.mean((2, 3)), rtol=1e-4, atol=1e-6)


def test_a_mask_that_vanishes_everywhere_gives_no_nan():
    pool = AttentionPool(16).eval()
    torch.nn.init.constant_(pool.layers[-1].bias, -200.0)
    assert torch.isfinite(pool(torch.rand(3, 16, 5, 4))).all()


def test_dropout_acts_on_the_mask_only():
    pool = AttentionPool(16, dropout=0.5)
    for p in pool.layers[-1].parameters():
        torch.nn.init.zeros_(p)  # a constant mask, whatever was dropped
    x = torch.rand(4, 16, 3, 3)
    torch.testing.assert_close(pool.train()(x), x.mean((2, 3)), rtol=1e-4, atol=1e-6)
    fresh = AttentionPool(16, dropout=0.5).train()
    assert not torch.equal(fresh.mask(x), fresh.mask(x))
    assert torch.equal(fresh.eval().mask(x), fresh.mask(x))


def test_pooling_is_float32_under_autocast():
    encoder = unet(**SMALL)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        maps = encoder.maps(torch.rand(2, 3, 32, 32))
        assert maps[-1].dtype == torch.bfloat16 and encoder.pool(maps[-1]).dtype == torch.float32


def test_average_pooling_has_no_mask():
    encoder = unet(pool="average", **SMALL).eval()
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(encoder(x), encoder.forward_features(x).mean((2, 3)))
    with pytest.raises(ConfigError, match="no attention mask: it was built with pool 'average'"):
        encoder.attention_mask(x)


@pytest.mark.parametrize("model", ["resnet18", "vit_tiny_patch16_224"])
def test_timm_backbones_pool_by_attention(model):
    arguments = {"stem": "cifar"} if model == "resnet18" else {"model_args": {"img_size": 32, "depth": 2}}
    encoder = timm_maps(model, **arguments)
    x = torch.rand(2, 3, 32, 32)
    maps = encoder.maps(x)
    assert len({m.shape[-1] for m in maps}) == len(maps), "one map per resolution"
    assert encoder(x).shape == (2, encoder.num_features) and maps[-1].shape[1] == encoder.num_features
    assert encoder.attention_mask(x).shape == (2, 1, *maps[-1].shape[2:])
    encoder(x).sum().backward()
    assert all(p.grad is not None for p in encoder.parameters()), "no layer behind the map is left over"


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: unet(ImageInput(size=(36, 36))), "multiples of 8 px, not 36x36"),
        (lambda: unet(SkeletonInput()), "takes images"),
        (lambda: unet(widht=8), "widht"),
        (lambda: unet(width=4), "width"),
        (lambda: unet(pool="max"), "pool"),
        (lambda: timm_maps("resnet19"), "did you mean"),
        (lambda: timm_maps(pool="max"), "pool"),
        (lambda: timm_maps(model_args={"pretrained": True}), "no argument of the network"),
    ],
)
def test_wrong_arguments_are_explained(call, said):
    with pytest.raises(ConfigError, match=said):
        call()


def test_wrong_input_is_explained():
    encoder = unet(**SMALL).eval()
    for method in (encoder, encoder.maps, encoder.forward_features, encoder.attention_mask):
        with pytest.raises(InputError, match="was trained on 32x32 px, got 16x16"):
            method(torch.rand(1, 3, 16, 16))
    encoder.strict_input = False
    with pytest.raises(InputError, match="multiples of 4 px, got 30x32"):
        encoder(torch.rand(1, 3, 30, 32))


def test_the_whole_way_through_the_zoo(tmp_path):
    encoder = unet(**SMALL)
    encoder.train()(torch.rand(8, 3, 32, 32))
    architecture = Architecture(family="unet", arguments=encoder.arguments.model_dump(mode="json"))
    write_small(tmp_path / "a", "conrec_unet_toys", encoder=encoder, architecture=architecture)
    loaded = zoo.load(f"local-dir:{tmp_path / 'a'}")
    assert same_weights(loaded, zoo.load(f"local-dir:{tmp_path / 'a'}")) and not loaded.training
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(loaded(x), encoder.eval()(x), rtol=1e-2, atol=1e-2)
    assert loaded.attention_mask(x).shape == (2, 1, 8, 8)


def test_a_mask_over_an_image():
    image = np.full((16, 16, 3), 128, dtype=np.uint8)
    mask = np.zeros((4, 4), dtype=np.float32)
    mask[0, 0] = 0.5
    over = mask_over(image, mask)
    assert over.shape == image.shape and over.dtype == np.uint8
    red, blue = over[0, 0, 0], over[0, 0, 2]
    assert red > blue and over[-1, -1, 0] == over[-1, -1, 2] == 96
    assert (mask_over(image, np.full((4, 4), 0.3)) == 96).all()
