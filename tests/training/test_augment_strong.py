"""The 14 strong operations against Pillow, their draws, and the chain around them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from training.augment import eight_bit, strong
from training.augment.image import ImageAugment
from training.augment.parameters import PRESETS
from training.augment.strong import OPERATIONS, Draws, StrongAugment, StrongConfig, sample
from zoo.errors import InputError

LEVELS = range(1, 10)


def pictures(height: int = 32, width: int = 32) -> Tensor:
    """Smooth, noisy, dark, constant, two-valued and nearly white images."""
    g = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (3, height, width), generator=g)
    ramp = (torch.arange(height)[:, None] * 3 + torch.arange(width) * 4).clamp(max=255).expand(3, -1, -1)
    kinds = [noise, ramp, noise // 5, torch.full_like(noise, 77), (noise > 99) * 200, 255 - noise // 40]
    return torch.stack(kinds).to(torch.uint8)


def pillow(name: str, image: Image.Image, level: int, sign: int) -> Image.Image:
    """The released magnitudes (simclr_clsa.md 2.2), each through Pillow's own function."""
    factor, amount = level * 0.9 / 10 + 0.05, sign * (level * 0.3 / 10)
    width, height = image.size

    def transform(*matrix: float) -> Image.Image:
        return image.transform(image.size, Image.Transform.AFFINE, matrix)

    return {
        "auto_contrast": lambda: ImageOps.autocontrast(image),
        "equalize": lambda: ImageOps.equalize(image),
        "identity": lambda: image,
        "brightness": lambda: ImageEnhance.Brightness(image).enhance(factor),
        "color": lambda: ImageEnhance.Color(image).enhance(factor),
        "contrast": lambda: ImageEnhance.Contrast(image).enhance(factor),
        "sharpness": lambda: ImageEnhance.Sharpness(image).enhance(factor),
        "rotate": lambda: image.rotate(sign * 30 * level / 10),
        "shear_x": lambda: transform(1, amount, 0, 0, 1, 0),
        "shear_y": lambda: transform(1, 0, 0, amount, 1, 0),
        "translate_x": lambda: transform(1, 0, int(amount * width), 0, 1, 0),
        "translate_y": lambda: transform(1, 0, 0, 0, 1, int(amount * height)),
        "posterize": lambda: ImageOps.posterize(image, [4, 4, 5, 5, 6, 6, 6, 7, 7][level - 1]),
        "solarize": lambda: ImageOps.solarize(image, 256 - int(25.6 * level)),
    }[name]()


def draws_of(name: str, n: int, level: int, negative: bool) -> Draws:
    return Draws(
        torch.full((n,), OPERATIONS.index(name)), torch.full((n,), level), torch.full((n,), negative, dtype=torch.bool)
    )


def as_pillow(images: Tensor, name: str, level: int, sign: int) -> Tensor:
    out = [pillow(name, Image.fromarray(i.permute(1, 2, 0).numpy()), level, sign) for i in images]
    return torch.stack([torch.from_numpy(np.array(o)).permute(2, 0, 1) for o in out])


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("shape", [(32, 32), (19, 24)])
def test_equals_pillow(name, shape):
    """Tolerance 0: every value of every operation at every level and sign is the same byte."""
    images = pictures(*shape)
    for level in LEVELS:
        for sign in (1, -1):
            ours = strong.apply(images, draws_of(name, len(images), level, sign < 0))
            expected = as_pillow(images, name, level, sign)
            assert ours.dtype == torch.uint8
            assert torch.equal(ours, expected), (level, sign, int((ours != expected).sum()))


@pytest.mark.parametrize("name", ["auto_contrast", "equalize", "brightness", "color", "contrast", "sharpness"])
def test_is_close_to_torchvision(name):
    """Within one level of 255 of torchvision, whose grey value is not rounded; posterize, solarize: equal."""
    from torchvision.transforms.v2 import functional as tv

    images = pictures()
    level = 4
    factor = 0.09 * level + 0.05
    theirs = {
        "auto_contrast": tv.autocontrast,
        "equalize": tv.equalize,
        "brightness": lambda x: tv.adjust_brightness(x, factor),
        "color": lambda x: tv.adjust_saturation(x, factor),
        "contrast": lambda x: tv.adjust_contrast(x, factor),
        "sharpness": lambda x: tv.adjust_sharpness(x, factor),
    }[name](images)
    ours = strong.apply(images, draws_of(name, len(images), level, False))
    assert int((ours.int() - theirs.int()).abs().max()) <= 1


def test_each_image_gets_its_own_operation():
    """A mixed batch equals its images one by one, on the CPU's path and on the accelerator's."""
    images = pictures()[torch.arange(40) % 6]
    g = torch.Generator().manual_seed(3)
    (draws,) = sample(StrongConfig(draws=1, p=1.0), 40, g)
    mixed = strong.apply(images, draws)
    for i in range(40):
        name = OPERATIONS[int(draws.operation[i])]
        alone = as_pillow(images[i : i + 1], name, int(draws.level[i]), -1 if draws.negative[i] else 1)
        assert torch.equal(mixed[i], alone[0]), name


def test_the_path_without_a_wait_gives_the_same(monkeypatch):
    def everywhere(chosen, images, change):
        return torch.where(chosen.view(-1, *[1] * (images.ndim - 1)), change(slice(None)), images)

    images = pictures()[torch.arange(60) % 6]
    (draws,) = sample(StrongConfig(draws=1, p=1.0), 60, torch.Generator().manual_seed(4))
    expected = strong.apply(images, draws)
    monkeypatch.setattr(strong, "_where", everywhere)
    assert torch.equal(strong.apply(images, draws), expected)


def test_draws_follow_the_released_distribution():
    config = StrongConfig()
    draws = sample(config, 20000, torch.Generator().manual_seed(0))
    assert len(draws) == 5
    operations = torch.cat([d.operation for d in draws])
    levels = torch.cat([d.level for d in draws])
    negative = torch.cat([d.negative for d in draws]).float()
    share = torch.bincount(operations, minlength=14) / len(operations)
    identity = OPERATIONS.index("identity")
    assert share[identity] == pytest.approx(0.5 + 0.5 / 14, abs=0.01)
    others = torch.cat([share[:identity], share[identity + 1 :]])
    assert torch.allclose(others, torch.full((13,), 0.5 / 14), atol=0.003)
    assert levels.unique().tolist() == list(LEVELS)
    assert torch.allclose(torch.bincount(levels)[1:] / len(levels), torch.full((9,), 1 / 9), atol=0.005)
    assert float(negative.mean()) == pytest.approx(0.5, abs=0.01)
    assert not torch.equal(draws[0].operation, draws[1].operation)


def test_no_draw_is_the_weak_view_in_eight_bits():
    weak = ImageAugment(PRESETS["moco_cifar"], size=24)
    images = pictures()
    for config in (StrongConfig(draws=0), StrongConfig(p=0.0)):
        view = StrongAugment(weak, config)(images, torch.Generator().manual_seed(1))
        expected = weak(images, torch.Generator().manual_seed(1))
        assert view.shape == (6, 3, 24, 24)
        assert torch.equal(view, (expected * 255).round() / 255)


def test_normalisation_comes_last():
    config = PRESETS["moco_cifar"].model_copy(update={"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)})
    images = pictures()
    plain = StrongAugment(ImageAugment(PRESETS["moco_cifar"], size=32), StrongConfig(p=1.0))
    normalised = StrongAugment(ImageAugment(config, size=32), StrongConfig(p=1.0))
    a = plain(images, torch.Generator().manual_seed(2))
    b = normalised(images, torch.Generator().manual_seed(2))
    mean, std = torch.tensor(config.mean).view(3, 1, 1), torch.tensor(config.std).view(3, 1, 1)
    torch.testing.assert_close(b, (a - mean) / std)
    assert a.min() >= 0 and a.max() <= 1
    assert torch.equal(a, (a * 255).round() / 255)


def test_is_a_function_of_the_generator_and_stronger_than_weak():
    weak = ImageAugment(PRESETS["moco_cifar"], size=32)
    augment = StrongAugment(weak, StrongConfig())
    images = pictures()[torch.arange(48) % 6].contiguous(memory_format=torch.channels_last)
    a = augment(images, torch.Generator().manual_seed(7), size=16)
    b = augment(images, torch.Generator().manual_seed(7), size=16)
    assert torch.equal(a, b) and a.shape == (48, 3, 16, 16)
    assert a.is_contiguous(memory_format=torch.channels_last)
    weak_view = weak(images, torch.Generator().manual_seed(7), size=16)
    changed = ((a - weak_view).abs().amax((1, 2, 3)) > 0.01).float().mean()
    # P(nothing happens in 5 draws) = (1/2 + 1/28)^5 = 0.044; some operations leave some images alone.
    assert changed > 0.8


def test_wrong_input_is_refused():
    augment = StrongAugment(ImageAugment(PRESETS["moco_cifar"], size=32), StrongConfig())
    with pytest.raises(InputError, match=r"\(N, 3, H, W\)"):
        augment(torch.zeros(3, 32, 32))
    with pytest.raises(ValueError, match="levels"):
        StrongConfig(levels=(5, 11))
    with pytest.raises(ValueError, match="levels"):
        StrongConfig(levels=(5, 4))


@pytest.mark.gpu
def test_on_cuda_equals_the_cpu():
    images = pictures(96, 96)[torch.arange(60) % 6]
    (draws,) = sample(StrongConfig(draws=1, p=1.0), 60, torch.Generator().manual_seed(4))
    expected = strong.apply(images, draws)
    there = Draws(draws.operation.cuda(), draws.level.cuda(), draws.negative.cuda())
    ours = strong.apply(images.cuda(), there).cpu()
    # A fused multiply-add may round a blend the other way.
    assert int((ours.int() - expected.int()).abs().max()) <= 1 or float((ours != expected).float().mean()) < 1e-3


def test_tiny_images():
    """One pixel, one row: nothing to smooth, nothing to fail."""
    for shape in [(1, 1), (1, 7), (2, 5)]:
        images = pictures(*shape)
        for name in OPERATIONS:
            ours = strong.apply(images, draws_of(name, len(images), 5, False))
            assert torch.equal(ours, as_pillow(images, name, 5, 1)), (name, shape)
        assert eight_bit.look_up(images, eight_bit.identity_tables(images)).equal(images)
