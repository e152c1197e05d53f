"""Which views a list of crops makes, native patches pixel by pixel, and crops that are refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.training.test_loop import tiny
from training.__main__ import main
from training.augment.crops import Crop, crop_augments, draw_together, draw_views
from training.augment.image import ImageAugment
from training.augment.parameters import PRESETS, ImageAugmentConfig, sample
from training.augment.render import render_batched, render_grouped
from zoo.architectures import family_class
from zoo.errors import ConfigError, InputError
from zoo.strict import validate

#: Nothing but the crop.
PLAIN = ImageAugmentConfig(flip_p=0, jitter_p=0, greyscale_p=0, blur_p=0)


def pictures(n: int = 6, side: int = 12) -> Tensor:
    generator = torch.Generator().manual_seed(5)
    images = torch.randint(0, 256, (n, 3, side, side), generator=generator, dtype=torch.uint8)
    return images.contiguous(memory_format=torch.channels_last)


def seeded(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def views(crops: list[Crop], view_size: int = 12) -> list[Tensor]:
    augments = crop_augments(ImageAugment(PRESETS["cifar"], 12), crops, 12)
    return draw_views(augments, pictures(), seeded(), view_size, 12)


# -- lists of crops --------------------------------------------------------------------------------


def test_each_view_of_a_crop_has_its_own_draws_and_size():
    one, two, small = views([Crop(count=2), Crop(size=8)])
    assert one.shape == two.shape == (6, 3, 12, 12) and small.shape == (6, 3, 8, 8)
    assert not torch.equal(one, two)


def test_a_crop_without_settings_is_the_augmentation_itself():
    augment = ImageAugment(PRESETS["cifar"], 12)
    generator = seeded()
    expected = [augment(pictures(), generator) for _ in range(2)]
    for crops in ([Crop(count=2)], [Crop(), Crop()]):
        assert all(torch.equal(*pair) for pair in zip(views(crops), expected, strict=True))


def test_smaller_stages_shrink_every_view():
    assert [v.shape[-1] for v in views([Crop(), Crop(size=8), Crop(size=8, native=True)], 6)] == [6, 4, 4]


def test_scale_is_the_area_of_the_crop():
    """A crop of an image whose brightness grows to the right shows a part as wide as its area says."""
    ramp = torch.arange(64, dtype=torch.uint8).expand(50, 3, 64, 64).contiguous()
    for scale in (0.0625, 0.25):
        config = PLAIN.model_copy(update={"crop_ratio": (1.0, 1.0)})
        (augment,) = crop_augments(ImageAugment(config, 16), [Crop(scale=(scale, scale))], 16)
        view = augment(ramp, seeded()) * 255
        width = (view[:, 0, 0, -1] - view[:, 0, 0, 0]) * 16 / 15
        assert width.mean().item() == pytest.approx(64 * scale**0.5, rel=0.1)


# -- native patches --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("render", [render_grouped, render_batched])
@pytest.mark.parametrize("flip_p", [0.0, 0.5, 1.0])
def test_a_patch_is_cut_pixel_for_pixel(render, dtype, flip_p):
    images = pictures(40)
    config = PLAIN.model_copy(update={"flip_p": flip_p})
    p = sample(config, 40, 12, 12, seeded(), patch=5)
    given = images if dtype == torch.uint8 else images / 255
    patches = render(given, p, config, 5, True)
    assert patches.shape == (40, 3, 5, 5) and p.flip.float().mean() == pytest.approx(flip_p, abs=0.2)
    for image, patch, top, left, flip in zip(images, patches, p.top, p.left, p.flip, strict=True):
        expected = image[:, top : top + 5, left : left + 5] / 255
        torch.testing.assert_close(patch, expected.flip(2) if flip else expected, rtol=1e-6, atol=1e-7)


def test_both_renderers_colour_a_patch_alike():
    config = PRESETS["imagenet"]
    p = sample(config, 6, 12, 12, seeded(), patch=8)
    grouped, batched = (render(pictures(), p, config, 8, True) for render in (render_grouped, render_batched))
    torch.testing.assert_close(grouped, batched, rtol=1e-4, atol=1e-5)


def test_every_place_is_as_likely_as_another():
    p = sample(PLAIN, 20000, 12, 10, seeded(), patch=8)
    for place, places in ((p.top, 5), (p.left, 3)):
        share = torch.bincount(place, minlength=places) / len(place)
        assert len(share) == places and (share - 1 / places).abs().max() < 0.02


def test_a_patch_as_large_as_the_image_is_the_image():
    patch = ImageAugment(PLAIN, 12, native=True)(pictures(), seeded())
    torch.testing.assert_close(patch, pictures() / 255)


def test_a_patch_larger_than_the_image_is_refused():
    with pytest.raises(InputError, match="patch of 13 px does not fit into images of 12x12 px"):
        ImageAugment(PLAIN, 13, native=True)(pictures(), seeded())


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ({"count": 0}, r"count.*greater than or equal to 1"),
        ({"size": 4}, "size"),
        ({"scale": (0.5, 0.2)}, "0 < low <= high <= 1"),
        ({"native": True, "scale": (0.2, 0.5)}, "must be left out"),
        ({"sise": 16}, "did you mean 'size'"),
    ],
)
def test_wrong_crops_are_explained(raw, said):
    with pytest.raises(ConfigError, match=said):
        validate(Crop, raw, "recipe")


GROWING = [{"until": 0.5, "size": 16}, {"until": 1.0, "size": 32}]
QUEUE = {"queue_size": 64, "bn_groups": 4}
METHODS = {
    "simclr": lambda crops: {"name": "simclr", "views": crops},
    "moco": lambda crops: {"name": "moco", **QUEUE, "views": crops},
    "clsa_weak": lambda crops: {"name": "clsa", **QUEUE, "weak": crops},
    "clsa_strong": lambda crops: {"name": "clsa", **QUEUE, "strong": crops},
}


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_views_that_do_not_fit_are_refused_with_the_recipe(method, monkeypatch):
    native = [{"count": 2, "size": 24, "native": True}]
    assert tiny(method=method(native), view_sizes=GROWING).smallest_view() == 12
    with pytest.raises(ConfigError, match=r"recipe tiny: a native patch of 24 px .* stored images of 20 px"):
        tiny(method=method(native), data={"dataset": "synthetic:shapes?n=120", "store_size": 20})
    monkeypatch.setattr(family_class("timm"), "min_side", 16)
    tiny(method=method(native))
    with pytest.raises(
        ConfigError, match=r"view of 12 px \(size 24 while view_sizes is at 16\) is too small: .* 16 px"
    ):
        tiny(method=method(native), view_sizes=GROWING)


def test_usual_views_below_what_the_encoder_takes_are_refused(monkeypatch):
    monkeypatch.setattr(family_class("timm"), "min_side", 20)
    with pytest.raises(ConfigError, match="too small: the encoder takes 20 px or more"):
        tiny(view_sizes=GROWING)


def test_nothing_is_written_for_a_refused_recipe(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for views in ("[{size: 40, native: true, count: 2}]", "[{count: 0}]", "[{}]"):
        assert main(["smoke", "--device", "cpu", f"method.views={views}"]) == 2
    said = capsys.readouterr().err
    assert (
        "raise data.store_size to 40" in said and "method.views.0.count" in said and "at least 2 views, got 1" in said
    )
    assert not list(tmp_path.iterdir())


def test_views_of_one_augmentation_are_made_in_one_call_where_kernels_are_dear():
    """What an accelerator does: each view is an image's own, in its own place, and no two views are equal."""
    calls = []

    class Counting(ImageAugment):
        def __call__(self, images, generator=None, size=None):
            calls.append((len(images), size))
            return super().__call__(images, generator, size)

    plain, other = (Counting(PLAIN, 16) for _ in range(2))
    # Images of one grey value each, which crop and flip leave alone: a view tells which image it shows.
    images = torch.tensor([40, 120, 200], dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 3, 16, 16).contiguous()
    views = draw_together([plain, other, plain, plain], [images] * 4, torch.Generator().manual_seed(0), [16, 16, 16, 8])
    assert calls == [(6, 16), (3, 16), (3, 8)]
    assert [tuple(view.shape) for view in views] == [(3, 3, 16, 16)] * 3 + [(3, 3, 8, 8)]
    for view in views:
        torch.testing.assert_close(view.mean((1, 2, 3)) * 255, torch.tensor([40.0, 120.0, 200.0]))
    noise = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    first, second = draw_together([plain, plain], [noise] * 2, torch.Generator().manual_seed(0), [16, 16])
    assert not torch.equal(first, second)
