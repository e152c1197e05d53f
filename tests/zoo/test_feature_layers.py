"""Features of any depth: layers by name, pooled or whole, in named columns that stream and resume."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch

import zoo
from tests.zoo.feature_fixtures import Images, tiny_encoder
from tests.zoo.timm_checkpoints import SMALL, write_timm
from zoo.errors import InputError, UnknownNameError
from zoo.features.extract import extract
from zoo.features.table import FeatureTable


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    root = tmp_path_factory.mktemp("timm")
    for family in SMALL:
        write_timm(root / family, family)
    return {family: zoo.load(f"local-dir:{root / family}") for family in SMALL}


def batch(encoder, count=2):
    torch.manual_seed(3)
    return torch.rand(count, 3, *encoder.input.size)


@pytest.mark.parametrize("family", SMALL)
@torch.inference_mode()
def test_every_layer_is_a_map_as_timm_gives_it(encoders, family):
    encoder = encoders[family]
    x, names = batch(encoder), encoder.layers
    maps = encoder.forward_intermediates(x)
    assert tuple(maps) == names and names[-1] == "features" and len(names) >= 3
    own = encoder.backbone.forward_intermediates(x, output_fmt="NCHW", intermediates_only=True)
    for name, wanted in zip(names, own, strict=False):
        assert torch.equal(maps[name], wanted)
    last = encoder.forward_features(x)
    assert last.shape[:1] == (2,) and last.ndim == 4
    torch.testing.assert_close(maps["features"], last, rtol=1e-5, atol=1e-5)
    some = encoder.forward_intermediates(x, [names[1], "features", names[0]])
    assert list(some) == [names[1], "features", names[0]] and torch.equal(some[names[0]], maps[names[0]])


@torch.inference_mode()
def test_class_and_register_tokens_lie_apart(encoders):
    encoder = encoders["vit_registers"]
    x = batch(encoder)
    raw = encoder.backbone.forward_features(x)
    layer = encoder.intermediates(x, ["features"])["features"]
    assert raw.shape[1] == 1 + 4 + 36 and layer.map.shape == (2, 24, 6, 6) and layer.prefix.shape == (2, 5, 24)
    assert torch.equal(layer.map.flatten(2).transpose(1, 2), raw[:, 5:])
    assert torch.equal(layer.cls, raw[:, 0]) and torch.equal(layer.prefix, raw[:, :5])
    # Rows of the map are rows of the image: what changes below leaves the patch embedding above as it was.
    changed = x.clone()
    changed[:, :, 24:] = 0
    embedded = encoder.backbone.patch_embed(changed) - encoder.backbone.patch_embed(x)
    assert embedded.abs().amax(-1).view(2, 6, 6)[:, :3].max() == 0


@torch.inference_mode()
def test_registers_without_a_class_token_are_none():
    model = timm.create_model("vit_tiny_patch16_224", depth=1, embed_dim=24, num_heads=2, reg_tokens=2,
                              class_token=False, global_pool="avg", img_size=32)  # fmt: skip
    encoder = tiny_encoder()
    encoder.backbone = model.eval()
    layer = encoder._layer(model.forward_features(torch.rand(1, 3, 32, 32)), torch.rand(1, 3, 32, 32))
    assert layer.cls is None and layer.prefix.shape == (1, 2, 24)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".parquet"])
def test_named_columns_equal_a_plain_loop(encoders, tmp_path, suffix):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow", reason="the extra 'parquet' is not installed")
    encoder, data = encoders["vit_registers"], Images(7)
    names = [encoder.layers[0], "features"]
    x = torch.stack([encoder.transform()(image) for image in data.pixels])
    with torch.inference_mode():
        found = encoder.intermediates(x, names)
    wanted = {
        "mean": [layer.map.mean((2, 3)) for layer in found.values()],
        "max": [layer.map.amax((2, 3)) for layer in found.values()],
        "cls": [layer.cls for layer in found.values()],
        "mean+cls": [torch.cat([layer.map.mean((2, 3)), layer.cls], 1) for layer in found.values()],
        "none": [layer.map for layer in found.values()],
    }
    for pool, parts in wanted.items():
        out = tmp_path / f"{pool}{suffix}"
        extract(encoder, data, layers=names, pool=pool, out=out, batch_size=3, precision="fp32")
        table = FeatureTable.load(out)
        assert [name for name, _ in table.columns] == names
        for name, part in zip(names, parts, strict=True):
            assert table.column(name).shape == part.shape
            np.testing.assert_allclose(table.column(name), part.numpy(), rtol=1e-4, atol=1e-5)
    with pytest.raises(UnknownNameError, match="did you mean 'features'"):
        table.column("feature")
    if suffix == ".parquet":
        from pyarrow import parquet

        names_on_disk = parquet.read_schema(out).names
        assert names_on_disk == ["key", "label", "class", f"feature:{names[0]}", "feature:features"]


def test_layers_stream_and_resume(tmp_path):
    encoder, data = tiny_encoder(), Images(50)
    options = {"layers": encoder.layers[:3], "pool": "none", "batch_size": 16, "precision": "fp32"}
    whole = extract(encoder, data, **options)

    class Stop(Exception):
        pass

    def stop(done, total):
        if done >= 32:
            raise Stop

    with pytest.raises(Stop):
        extract(encoder, data, out=tmp_path / "f.npy", progress=stop, **options)
    calls = []
    table = extract(encoder, data, out=tmp_path / "f.npy", progress=lambda *done: calls.append(done), **options)
    assert calls[0][0] > 32 and isinstance(table.features, np.memmap)
    assert np.array_equal(table.features, whole.features) and table.columns == whole.columns
    assert np.shares_memory(table.column(encoder.layers[1]), table.features), "a column of a mapped table is no copy"
    again = extract(encoder, data, out=tmp_path / "f.npy", **{**options, "pool": "max"})
    assert again.origin != table.origin and again.features.shape[1] < table.features.shape[1]


def test_the_pooled_features_are_as_before(encoders):
    encoder, data = tiny_encoder(), Images(5)
    plain = extract(encoder, data, precision="fp32")
    assert plain.columns == () and "layers" not in plain.origin
    mean = extract(encoder, data, pool="mean", precision="fp32")
    np.testing.assert_allclose(mean.column("features"), plain.features, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"layers": ["layer9"]}, "has no layer 'layer9'; did you mean"),
        ({"layers": []}, "layers is empty"),
        ({"layers": ["features"], "pool": "median"}, "pool must be one of"),
        ({"pool": "cls"}, "has no class token"),
    ],
)
def test_wrong_layers_and_pools(options, said):
    with pytest.raises(InputError, match=said):
        extract(tiny_encoder(), Images(2), **options)


def test_skeletons_have_no_layers():
    from zoo.architectures import build
    from zoo.preprocessing.skeleton import SkeletonInput
    from zoo.strict import Architecture

    encoder = build(
        Architecture(family="skeleton_gru", arguments={"hidden": 6, "layers": 1}),
        SkeletonInput(layout="kinect_v1", frames=20, steps=("align_mean",)),
    ).eval()
    assert encoder.layers == ()
    with pytest.raises(InputError, match="image encoders only"):
        encoder.forward_intermediates(torch.rand(1, 5, 20, 3), ["features"])
