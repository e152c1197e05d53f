"""The whitening of the airbench family: fitted to images, bounded, and kept as it is."""

from __future__ import annotations

import pytest
import torch

from tests.zoo.checkpoints import same_weights
from tests.zoo.test_airbench import NORMALISED, fresh_buffers, network, photographs, responses
from zoo.architectures import build
from zoo.architectures.whitening import FLOOR, PATCHES
from zoo.errors import InputError
from zoo.preprocessing.image import ImageInput
from zoo.strict import Architecture

# -- whitening -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("input", [NORMALISED, ImageInput(size=(16, 16))])
def test_fitted_responses_have_the_identity_as_covariance(input):
    encoder, images = network(input), photographs()
    encoder.fit_to_data(images)
    y = responses(encoder, images)
    torch.testing.assert_close(torch.cov(y[:12]), torch.eye(12, dtype=torch.float64), atol=0.01, rtol=0)
    assert y.mean(1).abs().max() < 0.01
    torch.testing.assert_close(y[12:], -y[:12])


def test_floats_as_transform_gives_them_are_the_same_as_pixels():
    first, second, images = network(), network(), photographs()
    first.fit_to_data(images)
    second.fit_to_data(first.transform().normalise(images.permute(0, 2, 3, 1)))
    assert same_weights(first, second)


def test_faint_directions_are_not_amplified_without_bound():
    encoder, images = network(ImageInput(size=(16, 16))), photographs()
    images[:, 2] = images[:, 1]
    images[:, 2, ::2, ::2] ^= 1  # blue differs from green by one level in a quarter of the pixels
    encoder.fit_to_data(images)
    variances = torch.cov(responses(encoder, images)[:12]).diagonal()
    mean = torch.cov(torch.nn.functional.unfold(images / 255, 2).transpose(0, 1).flatten(1)).diagonal().mean()
    assert variances.max() < 1.01 and variances.min() < 0.5
    longest = encoder.whitening.weight.flatten(1).norm(dim=1).max()
    torch.testing.assert_close(longest, (FLOOR * mean).rsqrt(), rtol=0.01, atol=0)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.full((20, 3, 20, 20), 77, dtype=torch.uint8), "their pixels deviate by 0 of 255"),
        (photographs()[:, :1].expand(-1, 3, -1, -1), "these fill 4: grey images do so"),
        (photographs(1, 11), f"at least {PATCHES} patches of 2x2 pixels, got 100"),
        (photographs()[0], r"images \(N, 3, H, W\), got \(3, 20, 20\)"),
        (photographs()[:0], r"got \(0, 3, 20, 20\)"),
        (photographs().int(), "uint8 or finite float images, got torch.int32"),
        (torch.full((20, 3, 20, 20), float("nan")), "finite"),
    ],
)
def test_images_that_cannot_be_whitened_change_nothing(images, message):
    encoder = network()
    before = fresh_buffers(encoder)
    with pytest.raises(InputError, match=message):
        encoder.fit_to_data(images)
    assert all(torch.equal(a, b) for a, b in zip(before, encoder.buffers(), strict=True))


def test_without_data_the_components_are_an_orthogonal_basis():
    encoder = network()
    rows = encoder.whitening.weight[:12].flatten(1).double()
    pixels = rows / torch.tensor(NORMALISED.std, dtype=torch.float64).repeat_interleave(4) * 0.25
    torch.testing.assert_close(pixels @ pixels.T, torch.eye(12, dtype=torch.float64), atol=2e-3, rtol=0)
    grey = torch.full((1, 3, 16, 16), 128, dtype=torch.uint8)
    assert responses(encoder, grey).abs().max() < 0.03


def test_float16_holds_the_whitening_unchanged():
    encoder = network()
    encoder.fit_to_data(photographs())
    for name in encoder.data_statistics:
        value = encoder.state_dict()[name]
        assert torch.equal(value.half().float(), value), name


def test_other_families_take_nothing_from_data():
    encoder = build(Architecture(family="unet", arguments={"width": 8, "depth": 2}), ImageInput(size=(16, 16)))
    before = {key: value.clone() for key, value in encoder.state_dict().items()}
    encoder.fit_to_data(photographs())
    assert encoder.data_statistics == ()
    assert all(torch.equal(value, before[key]) for key, value in encoder.state_dict().items())
