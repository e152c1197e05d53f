"""Streaming: crops of whole pictures as torchvision cuts them, the same after a resume, nothing stored."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import resized_crop

from tests.training.test_loop import in_parts, same_state, tiny, trainer_for
from training.augment.crops import draw_together, draw_views
from training.augment.geometry import crop_boxes
from training.augment.image import PRESETS, ImageAugment
from training.stream import CropDraw, StreamBatches, ViewCrops, crop_box, picture_crops, uniforms
from zoo.data.addresses import open_dataset
from zoo.data.stores.whole import WholePictures
from zoo.errors import ConfigError, DataError

SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)
QUEUE = {"queue_size": 64, "bn_groups": 4}
TEACHER = {"name": "distill", "teacher": "distill_airbench_cifar10", "queue_size": 64}
METHODS = (
    {"name": "simclr", "views": [{"count": 2}, {"count": 1, "size": 12}]},
    {"name": "moco", **QUEUE, "views": [{"count": 1}]},
    {"name": "clsa", **QUEUE},
    {**TEACHER, "teacher_sees": "views"},
    {**TEACHER, "teacher_sees": "image"},
)


def smooth(seed: int, width: int, height: int) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """64 JPEGs of several sizes in two classes, one of them turned by its EXIF orientation."""
    root = tmp_path_factory.mktemp("photos")
    for number in range(64):
        path = root / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        exif = Image.Exif()
        exif[0x0112] = 6 if number == 3 else 1
        smooth(number, 160 + number, 120 + number // 2).save(path, quality=92, exif=exif)
    return root


def streamed(folder, **changes):
    data = {"dataset": str(folder), "split": None, "held_out": 0, "stream": True, "stream_workers": 2}
    return tiny(**{"epochs": 2, "monitor": None, **changes, "data": {**data, **changes.pop("data", {})}})


@pytest.mark.parametrize("size", [(375, 500), (500, 375), (64, 64), (40, 400), (400, 40)])
def test_a_box_is_that_of_the_batched_augmentation(size):
    uniform = uniforms([1, 2, 3], 300)
    batched = crop_boxes(torch.from_numpy(uniform.T.copy()), *size, SCALE, RATIO)
    found = [crop_box(row, *size, SCALE, RATIO) for row in uniform.tolist()]
    assert np.array_equal(np.array(found), torch.stack(batched, dim=1).numpy())


def draws(side: int = 32, count: int = 3) -> list[CropDraw]:
    return [CropDraw(SCALE, RATIO, side, "bicubic")] * count


def test_crops_are_those_of_torchvision_and_scaled_decoding_is_near(folder):
    data = open_dataset(str(folder))
    worst = []
    for index in range(12):
        uniform = uniforms([7, index], 3)
        exact = picture_crops(data, index, draws(), uniform, scaled=False)
        picture = Image.open(data.paths[index])
        if picture.getexif().get(0x0112) == 6:
            picture = picture.transpose(Image.Transpose.ROTATE_270)
        for row, crop in zip(uniform.tolist(), exact, strict=True):
            box = crop_box(row, picture.height, picture.width, SCALE, RATIO)
            wanted = resized_crop(picture, *box, [32, 32], InterpolationMode.BICUBIC, antialias=True)
            assert np.array_equal(crop, np.asarray(wanted))
        fast = picture_crops(data, index, draws(), uniform, scaled=True)
        worst.append(np.abs(np.stack(fast).astype(int) - np.stack(exact)).mean())
    assert 0 < max(worst) < 3, "of 255; 0 would mean that nothing was decoded at a part of its resolution"


def test_a_small_crop_is_decoded_whole(folder):
    """The smallest crop decides: none is enlarged from a coarser picture."""
    data = open_dataset(str(folder))
    near = CropDraw((0.05, 0.05), RATIO, 32, "bicubic")
    wide = CropDraw((1.0, 1.0), RATIO, 32, "bicubic")
    uniform = uniforms([0], 2)
    both = picture_crops(data, 0, [near, wide], uniform, scaled=True)
    assert np.array_equal(np.stack(both), np.stack(picture_crops(data, 0, [near, wide], uniform, scaled=False)))


@pytest.mark.parametrize("method", METHODS, ids=lambda method: "-".join(map(str, list(method.values())[:1])))
def test_every_method_that_streams_resumes_bit_for_bit_with_any_number_of_threads(folder, tmp_path, method):
    recipe = streamed(folder, method=method, view_sizes=[{"until": 1.0, "size": 16}])
    whole = trainer_for(tmp_path / "whole", recipe)
    assert isinstance(whole.batches, StreamBatches)
    whole.run()
    other = recipe.model_copy(update={"data": recipe.data.model_copy(update={"stream_workers": 1})})
    parts = in_parts(lambda: trainer_for(tmp_path / "parts", other), 3)
    same_state(whole.state(), parts.state())


def test_nothing_is_stored(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    monitor = {"every_epochs": 1, "train_samples": 20, "held_out_samples": 10, "k": 3}
    trainer = trainer_for(tmp_path / "run", streamed(folder, data={"held_out": 0.25}, monitor=monitor, epochs=1))
    trainer.run()
    assert not list((tmp_path / "cache").glob("**/*.npy"))
    assert any("held_out_knn" in record for record in trainer.folder.records())


def test_whole_pictures_are_those_of_the_pixel_cache(folder):
    data = open_dataset(str(folder))
    rows = np.array([5, 0, 63, 5])
    streamed_rows = WholePictures(data, 16, 2)[rows]
    stored = trainer_array(folder)[rows]
    assert np.array_equal(streamed_rows, stored)


def trainer_array(folder):
    from zoo.data.stores.pixels import pixel_cache

    return pixel_cache(open_dataset(str(folder)), 16)


def test_views_made_together_are_views_of_their_own_crops():
    """As on an accelerator, where one call makes all views of an augmentation."""
    still = PRESETS["cifar"].model_copy(update={"flip_p": 0.0, "jitter_p": 0.0, "greyscale_p": 0.0, "blur_p": 0.0})
    augment = ImageAugment(still, 8)
    crops = [torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8) for _ in range(2)]
    views = draw_together([augment.after_crop] * 2, crops, torch.Generator().manual_seed(0), [8, 8])
    one_by_one = draw_views([augment] * 2, ViewCrops(crops), torch.Generator().manual_seed(0), 8, 8)
    for view, other, crop in zip(views, one_by_one, crops, strict=True):
        assert torch.allclose(view, crop / 255, atol=1e-6) and torch.equal(view, other)


def test_what_cannot_stream_is_refused(folder):
    with pytest.raises(ConfigError, match=r"needs stored images; data.stream is for simclr, moco, clsa and distill"):
        streamed(folder, method={"name": "conrec"}, encoder={"family": "unet", "width": 8, "depth": 2})
    with pytest.raises(ConfigError, match=r"a native patch is cut from stored images"):
        streamed(folder, method={"name": "simclr", "views": [{"count": 2}, {"size": 8, "native": True}]})


def test_a_broken_picture_ends_the_training_with_its_name(folder, tmp_path):
    broken = tmp_path / "photos"
    for path in folder.glob("*/*.jpg"):
        target = broken / path.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes()[: 300 if path.name == "8.jpg" else None])
    trainer = trainer_for(tmp_path / "run", streamed(broken))
    with pytest.raises(DataError, match=r"8\.jpg cannot be decoded"):
        trainer.run()
