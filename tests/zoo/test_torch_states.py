"""`load` gives the same encoder in any state of torch, and `extract` takes encoders as people have them."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from tests.data_fixtures import noise
from tests.zoo.checkpoints import write_small
from tests.zoo.feature_fixtures import tiny_encoder
from zoo.checkpoint import catalog
from zoo.checkpoint.loading import load
from zoo.errors import InputError
from zoo.features.extract import embed, extract
from zoo.features.run import encoder_fingerprint

IMAGES = np.stack([noise(seed, 16, 16) for seed in range(5)])


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint") / "simclr_small_toys"
    write_small(folder)
    return f"local-dir:{folder}"


@pytest.fixture(scope="module")
def encoder():
    return tiny_encoder(16)


@pytest.fixture
def default_dtype(request):
    before = torch.get_default_dtype()
    torch.set_default_dtype(request.param)
    yield request.param
    torch.set_default_dtype(before)


@pytest.mark.parametrize("default_dtype", [torch.float64, torch.bfloat16], indirect=True)
@pytest.mark.parametrize("pretrained", [True, False])
def test_load_under_another_default_dtype(address, default_dtype, pretrained):
    loaded = load(address, pretrained=pretrained)
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    assert torch.get_default_dtype() == default_dtype
    assert loaded.transform()(IMAGES[0]).dtype == torch.float32


@pytest.mark.parametrize("mode", [lambda: torch.device("meta"), torch.inference_mode, torch.no_grad])
def test_load_under_another_device_or_mode(address, mode):
    expected = encoder_fingerprint(load(address))
    with mode():
        loaded = load(address)
        transform = loaded.transform()
    assert encoder_fingerprint(loaded) == expected
    assert all(p.requires_grad and p.device.type == "cpu" and not p.is_inference() for p in loaded.parameters())
    loaded.train()(torch.stack([transform(image) for image in IMAGES[:2]])).sum().backward()


def test_extract_under_another_default(encoder):
    expected = embed(encoder, IMAGES, precision="fp32")
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(torch.float64)
        assert np.array_equal(embed(encoder, IMAGES, precision="fp32"), expected)
    finally:
        torch.set_default_dtype(before)
    with torch.device("meta"):
        assert np.array_equal(embed(encoder, IMAGES, precision="fp32"), expected)


def test_extract_takes_wrapped_encoders_and_addresses(encoder, address):
    expected = extract(encoder, IMAGES, precision="fp32")
    for wrapped in (nn.DataParallel(encoder), torch.compile(encoder), torch.compile(nn.DataParallel(encoder))):
        table = extract(wrapped, IMAGES, precision="fp32")
        assert np.array_equal(table.features, expected.features) and table.origin == expected.origin
    assert np.array_equal(embed(address, IMAGES), embed(load(address), IMAGES))
    with pytest.raises(InputError, match="expected an encoder of the zoo or its address, got a Linear"):
        extract(nn.Linear(2, 2), IMAGES)


@pytest.mark.parametrize(
    ("dtype", "name", "tolerance"),
    [(torch.bfloat16, "bf16", 0.04), (torch.float16, "fp16", 0.01), (torch.float64, "fp32", 1e-5)],
)
def test_extract_casts_to_the_dtype_of_the_weights(encoder, dtype, name, tolerance):
    cast = copy.deepcopy(encoder).to(dtype)
    table = extract(cast, IMAGES)
    assert table.precision == name and table.features.dtype == np.float32
    expected = embed(encoder, IMAGES, precision="fp32")
    np.testing.assert_allclose(table.features, expected, rtol=0, atol=tolerance * expected.max())


def test_what_is_no_sequence_of_pictures_is_refused_in_one_line(encoder):
    with pytest.raises(InputError, match="expected a dataset, a folder, or a sequence of images, got dict"):
        extract(encoder, {"image": IMAGES[0]})


@pytest.mark.parametrize("name", catalog.list_models(modality="image"))
def test_every_published_encoder_can_be_traced(name):
    test_tracing_passes_the_checks_of_the_input(load(name))


def test_tracing_passes_the_checks_of_the_input(encoder):
    x = torch.rand(2, 3, *encoder.input.size)
    with torch.no_grad():
        expected = encoder(x)
        torch.testing.assert_close(torch.jit.trace(encoder, x)(x), expected, rtol=1e-4, atol=1e-5)
        traced = torch.fx.symbolic_trace(encoder, concrete_args={"lengths": None})
        torch.testing.assert_close(traced(x, None), expected, rtol=1e-4, atol=1e-5)
