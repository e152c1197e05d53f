"""Batched image augmentation against torchvision, image by image and distribution by distribution."""

from __future__ import annotations

import math
import shutil

import pytest
import torch
import torchvision.transforms.v2 as T
import torchvision.transforms.v2.functional as F
from pydantic import ValidationError
from scipy.stats import ks_2samp, kstest
from torchvision.transforms.v2 import InterpolationMode

from training.augment import colour, geometry, render
from training.augment.image import ImageAugment
from training.augment.parameters import PRESETS, ImageAugmentConfig, sample
from zoo.errors import InputError

# float32 rounding of sums of about 50 products of numbers up to 1, and of the hue's division.
TOLERANCE = 5e-6
STILL = {"flip_p": 0, "jitter_p": 0, "greyscale_p": 0, "blur_p": 0}
FULL_CROP = {"crop_scale": (1.0, 1.0), "crop_ratio": (1.0, 1.0)}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(n: int, height: int, width: int | None = None) -> torch.Tensor:
    """Random uint8 images; the first three are grey, black and white, where hue and saturation are undefined."""
    pixels = torch.randint(0, 256, (n, 3, height, width or height), generator=seeded(), dtype=torch.uint8)
    pixels[0] = pixels[0, :1]
    if n > 2:
        pixels[1], pixels[2] = 0, 255
    return pixels.contiguous(memory_format=torch.channels_last)


def close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=TOLERANCE)


# Operations


@pytest.mark.parametrize("size", [32, 224])
@pytest.mark.parametrize(
    ("ours", "theirs", "low", "high"),
    [
        (colour.adjust_brightness_, F.adjust_brightness, 0, 1.8),
        (colour.adjust_contrast_, F.adjust_contrast, 0, 1.8),
        (colour.adjust_saturation_, F.adjust_saturation, 0, 1.8),
        (colour.adjust_hue_, F.adjust_hue, -0.5, 0.5),
    ],
)
def test_adjustment_equals_torchvision(ours, theirs, low, high, size):
    x = images(9, size).float() / 255
    x[3] = (x[3] * 2).floor() / 2  # ties between channels, where the branches of the hue meet
    factors = torch.linspace(low, high, 9)
    expected = torch.stack([theirs(image, float(f)) for image, f in zip(x, factors, strict=True)])
    result = ours(x.clone(), factors)
    close(result, expected)
    assert result.min() >= 0
    assert result.max() <= 1


def test_hue_of_all_primary_mixtures():
    levels = torch.tensor([0.0, 0.25, 0.5, 1.0])
    x = torch.cartesian_prod(levels, levels, levels).T.reshape(1, 3, 8, 8)
    for shift in torch.linspace(-0.5, 0.5, 13):
        close(colour.adjust_hue_(x.clone(), shift[None]), F.adjust_hue(x, float(shift)))


@pytest.mark.parametrize("size", [32, 224])
def test_greyscale_and_solarize_equal_torchvision(size):
    x = images(4, size).float() / 255
    close(colour.rgb_to_grayscale_(x.clone()), F.rgb_to_grayscale(x, num_output_channels=3))
    close(colour.solarize_(x.clone(), 0.5), F.solarize(x, 0.5))


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize(
    ("shape", "size", "boxes"),
    [
        ((32, 32), 32, [(0, 0, 32, 32), (3, 5, 20, 11), (31, 31, 1, 1), (10, 0, 9, 12)]),
        ((256, 240), 224, [(0, 0, 256, 240), (17, 40, 70, 100), (200, 3, 30, 237)]),
        ((120, 40), 32, [(0, 0, 120, 40), (50, 10, 33, 30)]),
        ((20, 30), 48, [(0, 0, 20, 30), (5, 6, 7, 8)]),
        ((1, 1), 8, [(0, 0, 1, 1)]),
    ],
)
def test_crop_resize_flip_equals_torchvision(shape, size, boxes, interpolation):
    x = images(len(boxes), *shape).float() / 255
    top, left, height, width = torch.tensor(boxes).T
    flip = torch.arange(len(boxes)) % 2 == 0
    rows = geometry.resize_taps(top, height, shape[0], size, interpolation)
    columns = geometry.resize_taps(left, width, shape[1], size, interpolation, flip)
    dense = geometry.separable(x, rows.dense(shape[0]), columns.dense(shape[1]))
    for i, box in enumerate(boxes):
        mode = InterpolationMode(interpolation)
        expected = F.resized_crop(x[i], *box, [size, size], interpolation=mode, antialias=True)
        expected = F.horizontal_flip(expected) if flip[i] else expected
        close(dense[i], expected)
        part = slice(i, i + 1)
        banded = geometry.separable_banded(x[i], rows[part], columns[part], out=torch.empty(3, size, size))
        close(banded, expected)


@pytest.mark.parametrize("size", [32, 224])
def test_blur_equals_torchvision(size):
    x = images(5, size).float() / 255
    sigma = torch.tensor([0.1, 0.5, 1.0, 1.7, 2.0])
    kernel = ImageAugmentConfig().kernel_size(size)
    assert kernel == {32: 3, 224: 23}[size]
    taps = geometry.blur_taps(sigma, kernel, size)
    dense = geometry.separable(x, taps.dense(size), taps.dense(size))
    for i, s in enumerate(sigma.tolist()):
        expected = F.gaussian_blur(x[i], [kernel, kernel], [s, s])
        close(dense[i], expected)
        one = taps[i : i + 1]
        close(geometry.separable_banded(x[i], one, one, out=x[i].clone()), expected)


# The chain


def torchvision_chain(image: torch.Tensor, p, i: int, config: ImageAugmentConfig, size: int) -> torch.Tensor:
    """One view by torchvision's functions, with the parameters `p` of image `i`."""
    box = [int(v[i]) for v in (p.top, p.left, p.height, p.width)]
    mode = InterpolationMode(config.interpolation)
    x = F.resized_crop(image.float() / 255, *box, [size, size], interpolation=mode, antialias=True).clamp(0, 1)
    x = F.horizontal_flip(x) if p.flip[i] else x
    adjustments = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue)
    for k in p.order[i].tolist() if p.jitter[i] else []:
        x = adjustments[k](x, float(p.factors[i, k]))
    x = F.rgb_to_grayscale(x, num_output_channels=3) if p.greyscale[i] else x
    if p.blur[i]:
        x = F.gaussian_blur(x, [config.kernel_size(size)] * 2, [float(p.sigma[i])] * 2)
    x = F.solarize(x, config.solarize_threshold) if p.solarize[i] else x
    return F.normalize(x, config.mean, config.std) if config.mean else x


CHAINS = {
    "32": (images(60, 32), 32, PRESETS["cifar"]),
    "224": (images(8, 250, 260), 224, PRESETS["imagenet"]),
    "multi-crop": (images(12, 110, 90), 48, PRESETS["moco"]),
    "normalised": (images(12, 32), 32, ImageAugmentConfig(mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.1))),
}


@pytest.mark.parametrize("renderer", [render.render_grouped, render.render_batched])
@pytest.mark.parametrize("name", CHAINS)
def test_chain_equals_torchvision(name, renderer):
    pixels, size, config = CHAINS[name]
    p = sample(config, len(pixels), *pixels.shape[2:], generator=seeded(1))
    expected = torch.stack([torchvision_chain(image, p, i, config, size) for i, image in enumerate(pixels)])
    # Chained operations amplify rounding (contrast and saturation by up to 1.8, std by 10).
    torch.testing.assert_close(renderer(pixels, p, config, size), expected, rtol=0, atol=10 * TOLERANCE)


@pytest.mark.parametrize("renderer", [render.render_grouped, render.render_batched])
def test_solarize_in_the_chain(renderer):
    # Identity crop: its values are exact, so none crosses the threshold by rounding.
    config = ImageAugmentConfig(**STILL | FULL_CROP, solarize_p=0.5)
    pixels = images(20, 32)
    p = sample(config, 20, 32, 32, generator=seeded(1))
    assert 0 < p.solarize.sum() < 20
    expected = torch.stack([torchvision_chain(image, p, i, config, 32) for i, image in enumerate(pixels)])
    close(renderer(pixels, p, config, 32), expected)


def test_views_depend_on_the_generator_and_nothing_else(monkeypatch):
    augment, pixels = ImageAugment(PRESETS["cifar"], 32), images(40, 32)
    first = augment(pixels, seeded(3))
    torch.manual_seed(99)
    assert torch.equal(first, augment(pixels, seeded(3)))
    assert not torch.equal(first, augment(pixels, seeded(4)))
    generator = seeded(3)
    augment(pixels, generator)
    assert not torch.equal(first, augment(pixels, generator))
    monkeypatch.setattr(render, "PART_FLOATS", 3 * 32 * 32)
    close(augment(pixels, seeded(3)), first)


def test_output_form_and_input_untouched():
    pixels = images(6, 40, 33)
    before = pixels.clone()
    views = ImageAugment(PRESETS["moco"], 32)(pixels, seeded(), size=24)
    assert views.shape == (6, 3, 24, 24)
    assert views.dtype == torch.float32
    assert views.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(pixels, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_float_images_give_the_views_of_uint8_images(dtype):
    pixels = (images(8, 32) // 85) * 85  # 0, 1/3, 2/3, 1
    augment = ImageAugment(PRESETS["cifar"], 32)
    as_float = (pixels.double() / 255).to(dtype)
    difference = augment(pixels, seeded()) - augment(as_float, seeded())
    assert difference.abs().max() < (0.05 if dtype == torch.bfloat16 else 1e-5)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_memory_format_of_the_input_changes_nothing(memory_format):
    augment, pixels = ImageAugment(PRESETS["cifar"], 32), images(8, 32)
    other = pixels.contiguous(memory_format=memory_format)
    assert torch.equal(augment(pixels, seeded()), augment(other, seeded()))


@pytest.mark.parametrize(
    ("shape", "size"), [((1, 1, 1), 32), ((1, 32, 32), 32), ((3, 200, 9), 32), ((2, 20, 20), 112), ((0, 32, 32), 32)]
)
@pytest.mark.parametrize("preset", PRESETS)
def test_odd_shapes_give_finite_views_in_range(shape, size, preset):
    n, height, width = shape
    pixels = torch.randint(0, 256, (n, 3, height, width), dtype=torch.uint8, generator=seeded())
    config = PRESETS[preset].model_copy(update={"solarize_p": 0.5})
    views = ImageAugment(config, size)(pixels, seeded())
    assert views.shape == (n, 3, size, size)
    assert ((views >= 0) & (views <= 1)).all()


def test_probability_zero_and_one():
    pixels = images(10, 32)
    still = ImageAugmentConfig(**STILL | FULL_CROP)
    close(ImageAugment(still, 32)(pixels, seeded()), pixels / 255)
    flipped = still.model_copy(update={"flip_p": 1.0})
    close(ImageAugment(flipped, 32)(pixels, seeded()), (pixels / 255).flip(3))
    grey = ImageAugment(still.model_copy(update={"greyscale_p": 1.0}), 32)(pixels, seeded())
    close(grey, F.rgb_to_grayscale(pixels / 255, num_output_channels=3))
    p = sample(ImageAugmentConfig(jitter_p=1, blur_p=1, solarize_p=1), 500, 32, 32, seeded())
    assert p.jitter.all()
    assert p.blur.all()
    assert p.solarize.all()
    p = sample(still, 500, 32, 32, seeded())
    assert not (p.flip | p.jitter | p.greyscale | p.blur | p.solarize).any()
    assert (p.factors == torch.tensor(colour.NEUTRAL)).all()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on the CPU")
def test_torch_compile_gives_the_same_views():
    pixels, config = images(4, 32), PRESETS["imagenet"]
    compiled = ImageAugment(config, 32, compile=True)(pixels, seeded())
    expected = ImageAugment(config, 32)(pixels, seeded())
    torch.testing.assert_close(compiled, expected, rtol=0, atol=10 * TOLERANCE)


@pytest.mark.gpu
@pytest.mark.parametrize("native", [False, True])
def test_no_host_synchronisation_on_the_gpu(native):
    augment, pixels = ImageAugment(PRESETS["imagenet"], 96, native=native), images(16, 128)
    on_device, generator = pixels.cuda(), torch.Generator("cuda").manual_seed(0)
    first = augment(on_device, generator)
    torch.cuda.set_sync_debug_mode("error")
    try:
        augment(on_device, generator)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    p = sample(augment.config, 16, 128, 128, torch.Generator("cuda").manual_seed(0), "cuda", 96 if native else None)
    on_host = type(p)(**{name: value.cpu() for name, value in vars(p).items()})
    expected = render.render_grouped(pixels, on_host, augment.config, 96, native)
    torch.testing.assert_close(first.cpu(), expected, rtol=0, atol=10 * TOLERANCE)


# Distributions: the seeds are fixed, so a p-value below the bound means a change, not bad luck.

N = 4000
P_VALUE = 0.005


@pytest.mark.parametrize(
    ("height", "width", "scale", "ratio"),
    [
        (32, 32, (0.08, 1.0), (3 / 4, 4 / 3)),
        (300, 200, (0.08, 1.0), (3 / 4, 4 / 3)),
        (200, 480, (0.2, 1.0), (3 / 4, 4 / 3)),
        (40, 400, (0.9, 1.0), (3 / 4, 4 / 3)),  # nothing fits: the centred box
        (400, 40, (0.9, 1.0), (3 / 4, 4 / 3)),
        (64, 64, (0.99, 1.0), (1.5, 2.0)),
        (64, 64, (0.2, 0.6), (0.5, 1.0)),
    ],
)
def test_crop_boxes_are_distributed_as_torchvisions(height, width, scale, ratio):
    uniform = torch.rand(22, N, generator=seeded(5))
    ours = torch.stack(geometry.crop_boxes(uniform, height, width, scale, ratio), dim=1).double()
    torch.manual_seed(6)
    reference, blank = T.RandomResizedCrop(8, scale, ratio), torch.zeros(3, height, width)
    drawn = [reference.make_params([blank]) for _ in range(N)]
    theirs = torch.tensor([[d["top"], d["left"], d["height"], d["width"]] for d in drawn]).double()
    top, left, h, w = ours.T
    assert (top >= 0).all() and (left >= 0).all() and (h >= 1).all() and (w >= 1).all()
    assert (top + h <= height).all() and (left + w <= width).all()
    quantities = {
        "top": lambda b: b[:, 0],
        "left": lambda b: b[:, 1],
        "height": lambda b: b[:, 2],
        "width": lambda b: b[:, 3],
        "area": lambda b: b[:, 2] * b[:, 3],
        "aspect": lambda b: b[:, 3] / b[:, 2],
    }
    for name, quantity in quantities.items():
        assert ks_2samp(quantity(ours), quantity(theirs)).pvalue > P_VALUE, name


def test_jitter_factors_and_order_are_distributed_as_torchvisions():
    config = ImageAugmentConfig(strength=0.5, jitter_p=1)
    p = sample(config, N, 32, 32, generator=seeded(7))
    torch.manual_seed(8)
    reference = T.ColorJitter(0.4, 0.4, 0.4, 0.1)
    drawn = [reference.make_params([]) for _ in range(N)]
    for k, name in enumerate(("brightness", "contrast", "saturation", "hue")):
        theirs = [d[f"{name}_factor"] for d in drawn]
        assert ks_2samp(p.factors[:, k], theirs).pvalue > P_VALUE, name
    codes = (p.order * torch.tensor([64, 16, 4, 1])).sum(1)
    found, counts = codes.unique(return_counts=True)
    assert len(found) == math.factorial(4)
    expected = N / 24
    # Chi-squared with 23 degrees of freedom: 0.995 quantile.
    assert ((counts - expected) ** 2 / expected).sum() < 44.2


def test_other_draws_are_uniform_and_independent():
    # Crops of one size: of several sizes, a large one leaves little room in both directions.
    config = ImageAugmentConfig(crop_scale=(0.3, 0.3), crop_ratio=(1.0, 1.0), solarize_p=0.3)
    p = sample(config, N, 64, 64, generator=seeded(9))
    assert kstest(p.sigma.double(), "uniform", args=(0.1, 1.9)).pvalue > P_VALUE
    flags = torch.stack([p.flip, p.jitter, p.greyscale, p.blur, p.solarize]).double()
    probabilities = torch.tensor([0.5, 0.8, 0.2, 0.5, 0.3]).double()
    deviation = (flags.mean(1) - probabilities) / (probabilities * (1 - probabilities) / N).sqrt()
    assert deviation.abs().max() < 3
    others = torch.stack([p.top, p.left, *p.factors.T, p.sigma]).double()
    correlation = torch.corrcoef(torch.cat([flags, others]))
    correlation.fill_diagonal_(0)
    assert correlation.abs().max() < 4 / math.sqrt(N)


# Configuration and bad input


def test_presets_are_the_published_settings():
    strength = {name: config.jitter_ranges for name, config in PRESETS.items()}
    assert strength["imagenet"][0] == pytest.approx((0.2, 1.8))
    assert strength["imagenet"][3] == pytest.approx((-0.2, 0.2))
    for name in ("cifar", "moco", "moco_cifar"):
        assert strength[name] == tuple(pytest.approx(r) for r in [(0.6, 1.4)] * 3 + [(-0.1, 0.1)])
    assert {name: config.blur_p for name, config in PRESETS.items()} == {
        "cifar": 0, "imagenet": 0.5, "moco": 0.5, "moco_cifar": 0
    }  # fmt: skip
    assert PRESETS["moco"].crop_scale == (0.2, 1.0) and PRESETS["moco"].interpolation == "bilinear"


@pytest.mark.parametrize(
    "bad",
    [
        {"crop_scale": (0.5, 1.2)},
        {"crop_scale": (0.6, 0.5)},
        {"crop_ratio": (0.0, 1.0)},
        {"blur_sigma": (0.0, 1.0)},
        {"flip_p": 1.1},
        {"hue": 0.6},
        {"strength": -1},
        {"std": (1.0, 0.0, 1.0)},
        {"interpolation": "nearest"},
        {"flip": 0.5},
    ],
)
def test_bad_configuration_is_refused(bad):
    with pytest.raises(ValidationError):
        ImageAugmentConfig(**bad)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (torch.zeros(3, 32, 32), r"\(N, 3, H, W\), got shape \(3, 32, 32\)"),
        (torch.zeros(2, 1, 32, 32), r"got shape \(2, 1, 32, 32\)"),
        (torch.zeros(2, 3, 0, 32), r"got shape \(2, 3, 0, 32\)"),
        (torch.zeros(2, 3, 32, 32, dtype=torch.int64), "int64"),
    ],
)
def test_bad_images_are_refused(bad, message):
    with pytest.raises(InputError, match=message):
        ImageAugment(PRESETS["cifar"], 32)(bad)


def test_a_generator_of_another_device_is_refused():
    with pytest.raises(InputError, match=r"torch.Generator\(device='meta'\)"):
        ImageAugment(PRESETS["cifar"], 32)(torch.zeros(2, 3, 32, 32, device="meta"), seeded())
