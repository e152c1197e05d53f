"""Extraction: the same features as a plain loop from all kinds of input, and what bad input says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from tests.zoo.feature_fixtures import Images, tiny_encoder
from zoo.errors import DataError, InputError
from zoo.features import run
from zoo.features.extract import embed, extract, extract_cached
from zoo.features.run import encoder_fingerprint


@pytest.fixture(scope="module")
def encoder():
    return tiny_encoder()


def naive(encoder, images, batch_size=32, precision=torch.float32):
    transform, rows = encoder.transform(), []
    for low in range(0, len(images), batch_size):
        x = torch.stack([transform(image) for image in images[low : low + batch_size]])
        with torch.no_grad(), torch.autocast("cpu", precision, enabled=precision != torch.float32):
            rows.append(encoder(x.contiguous(memory_format=torch.channels_last)))
    return torch.cat(rows).numpy()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_extract_equals_a_naive_loop(encoder, precision):
    data = Images()
    table = extract(encoder, data, batch_size=32, precision=precision, workers=3)
    expected = naive(encoder, list(data.pixels), 32, {"fp32": torch.float32, "bf16": torch.bfloat16}[precision])
    np.testing.assert_allclose(table.features, expected, rtol=1e-5, atol=1e-6 if precision == "fp32" else 1e-2)
    assert table.features.dtype == np.float32 and table.precision == precision
    assert table.labels.tolist() == data.labels.tolist() and table.keys == data.keys
    assert (table.dataset, table.split, table.class_names) == ("random", "train", data.class_names)


@pytest.mark.parametrize("crop_fraction", [1.0, 0.875])
def test_all_kinds_of_images_give_the_same_features(crop_fraction, tmp_path):
    encoder = tiny_encoder(crop_fraction=crop_fraction)
    data = Images(6)
    paths = []
    for key, pixels in zip(data.keys, data.pixels, strict=True):
        (tmp_path / "class").mkdir(exist_ok=True)
        paths.append(tmp_path / "class" / key)
        Image.fromarray(pixels).save(paths[-1])
    expected = embed(encoder, data)
    kinds = [
        data.pixels,
        list(data.pixels),
        [Image.fromarray(p) for p in data.pixels],
        paths,
        [str(p) for p in paths],
        data.subset([0, 1, 2, 3, 4, 5]),
        tmp_path,
        str(tmp_path),
        data.pixels.astype(np.float64) / 255,
    ]
    for kind in kinds:
        assert np.array_equal(embed(encoder, kind), expected), type(kind)
    assert extract(encoder, tmp_path).class_names == ("class",)
    assert extract(encoder, paths).keys == [str(p) for p in paths]


def test_subset_of_stored_pixels_takes_its_own_samples(encoder):
    from zoo.data.images import ArrayImages

    data = Images(20)
    stored = ArrayImages("stored", "train", data.pixels, data.labels, data.class_names)
    whole = embed(encoder, stored, batch_size=1)
    assert np.array_equal(embed(encoder, stored.subset([7, 3, 3]), batch_size=1), whole[[7, 3, 3]])


def test_same_call_gives_the_same_bits(encoder):
    runs = [embed(encoder, Images(), batch_size=32, workers=w) for w in (1, 1, 4)]
    assert np.array_equal(runs[0], runs[1]) and np.array_equal(runs[0], runs[2])


def test_a_short_last_batch_changes_nothing(encoder):
    data = Images(33)
    whole = embed(encoder, data, batch_size=33, precision="fp32")
    split = embed(encoder, data, batch_size=32, precision="fp32")
    np.testing.assert_allclose(split, whole, rtol=1e-4, atol=1e-5)


def test_encoder_comes_back_as_it_was(encoder):
    encoder = tiny_encoder()
    encoder.train()
    encoder.backbone.layer1.eval()
    modes = [m.training for m in encoder.modules()]
    pointers = [t.data_ptr() for t in encoder.state_dict().values()]
    before = encoder_fingerprint(encoder)
    with pytest.warns(UserWarning, match="was in training mode"):
        features = embed(encoder, Images(8))
    assert np.array_equal(features, embed(tiny_encoder(), Images(8)))
    assert [m.training for m in encoder.modules()] == modes
    assert [t.data_ptr() for t in encoder.state_dict().values()] == pointers
    assert encoder_fingerprint(encoder) == before and encoder.strict_input
    assert not torch.is_inference_mode_enabled()


def test_fingerprint_follows_the_weights(encoder):
    other = tiny_encoder()
    assert encoder_fingerprint(other) == encoder_fingerprint(encoder)
    with torch.no_grad():
        next(other.parameters())[0, 0, 0, 0] += 1e-6
    assert encoder_fingerprint(other) != encoder_fingerprint(encoder)


def test_a_cold_cached_extraction_hashes_the_weights_once(encoder, tmp_path, monkeypatch):
    hashed = []
    real = run.encoder_fingerprint
    monkeypatch.setattr(run, "encoder_fingerprint", lambda network: hashed.append(network) or real(network))
    table = extract_cached(encoder, Images(8), folder=tmp_path)
    assert len(hashed) == 1 and table.encoder_sha256 == real(encoder)
    assert [path.name for path in tmp_path.glob("*.npy")] == [f"{table.origin}.npy"]


def test_progress_counts_samples(encoder):
    calls = []
    extract(encoder, Images(70), batch_size=32, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(32, 70), (64, 70), (70, 70)]


class TestBadInput:
    def test_nan_features_name_the_samples(self):
        encoder = tiny_encoder()
        with torch.no_grad():
            encoder.backbone.layer4[0].conv1.weight.fill_(float("nan"))
        with pytest.raises(InputError, match=r"NaN or infinite features for 'image 0.png', .* and 27 more"):
            extract(encoder, Images(40), batch_size=32)
        assert encoder.strict_input

    def test_broken_file_is_named_and_progress_is_kept(self, encoder, tmp_path):
        paths = []
        for i in range(6):
            paths.append(tmp_path / f"{i}.png")
            Image.fromarray(Images(6).pixels[i]).save(paths[-1])
        good = paths[5].read_bytes()
        paths[5].write_bytes(good[:60])
        with pytest.raises(DataError, match=r"5\.png"):
            extract(encoder, paths, batch_size=2)
        paths[5].unlink()
        with pytest.raises(DataError, match=r"5\.png"):
            extract(encoder, paths, batch_size=2, out=tmp_path / "f.npy")

    @pytest.mark.parametrize(
        ("data", "error", "message"),
        [
            ([], DataError, "no samples"),
            (np.zeros((4, 64)), InputError, "expected an array of images"),
            (3, InputError, "put a single image"),
            ([np.zeros((8, 8), np.uint8), np.full((8, 8), 7.0)], InputError, "sample '1'.*divide"),
            ([np.zeros((8, 8), np.uint8), "no such file.png"], DataError, "no such file.png"),
            ([object()], InputError, "sample '0'.*object"),
        ],
    )
    def test_input_that_is_no_image(self, encoder, data, error, message):
        with pytest.raises(error, match=message):
            embed(encoder, data)

    def test_other_arguments(self, encoder, tmp_path):
        with pytest.raises(InputError, match="precision"):
            extract(encoder, Images(2), precision="int8")
        with pytest.raises(InputError, match="batch_size"):
            extract(encoder, Images(2), batch_size=0)
        with pytest.raises(DataError, match=r"\.csv"):
            extract(encoder, Images(2), out=tmp_path / "features.csv")
        skeletons = Images(2)
        skeletons.modality = "skeleton"
        with pytest.raises(InputError, match="skeleton data"):
            extract(encoder, skeletons)


@pytest.mark.gpu
def test_gpu_agrees_with_cpu(tmp_path):
    encoder, data = tiny_encoder(), Images()
    cpu = embed(encoder, data, device="cpu", precision="fp32")
    tf32 = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        np.testing.assert_allclose(embed(encoder, data, device="cuda", precision="fp32"), cpu, rtol=1e-3, atol=1e-4)
    finally:
        torch.backends.cudnn.allow_tf32 = tf32
    table = extract(encoder, data, batch_size=16, out=tmp_path / "f.npy")
    assert table.precision == "bf16" and np.array_equal(table.features, embed(encoder, data, batch_size=16))
    np.testing.assert_allclose(table.features, cpu, rtol=0.1, atol=0.05)
    assert next(encoder.parameters()).device.type == "cpu"
