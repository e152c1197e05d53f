from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

from tests.data_fixtures import make_folder, noise, write_image
from zoo.data.addresses import available_splits, open_dataset
from zoo.data.stores.pixels import pixel_cache
from zoo.errors import DataError, UnknownNameError
from zoo.preprocessing.image import ImageInput, ImageTransform, to_rgb


def test_splits_and_classes(tmp_path):
    make_folder(tmp_path / "pets")
    assert available_splits(tmp_path / "pets") == ["train", "test"]
    train = open_dataset(tmp_path / "pets", "train")
    assert (train.name, train.split, len(train), train.class_names) == ("pets", "train", 10, ("cat", "dog"))
    assert train.labels.tolist() == [0] * 5 + [1] * 5 and train.labels.dtype == np.int64
    assert train.keys[0] == "cat/0.png" and train.keys[-1] == "dog/4.png"
    assert np.array_equal(np.asarray(train.sample(7)), noise(7))
    assert np.array_equal(np.asarray(open_dataset(str(tmp_path / "pets"), "test").sample(0)), noise(10))


def test_classes_without_splits(tmp_path):
    make_folder(tmp_path, splits=(), classes=("b", "a", "c"))
    data = open_dataset(tmp_path)
    assert available_splits(tmp_path) == ["train", "test", "all"] and data.split == "all"
    assert data.class_names == ("a", "b", "c") and np.bincount(data.labels).tolist() == [5, 5, 5]


def test_flat_folder_has_no_labels(tmp_path):
    for i in range(3):
        write_image(tmp_path / f"{i}.jpg", i)
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / ".hidden.png").write_text("not an image either")
    data = open_dataset(tmp_path)
    assert data.labels is None and data.class_names == () and list(data.keys) == ["0.jpg", "1.jpg", "2.jpg"]


def test_class_indices_agree_between_splits(tmp_path):
    make_folder(tmp_path, classes=("ant", "bee", "cow"))
    shutil.rmtree(tmp_path / "test" / "ant")
    test = open_dataset(tmp_path, "test")
    assert test.class_names == ("ant", "bee", "cow") and set(test.labels.tolist()) == {1, 2}


def test_nested_files_belong_to_their_class(tmp_path):
    write_image(tmp_path / "a" / "2024" / "x.png", 0)
    write_image(tmp_path / "b" / "y.png", 1)
    assert list(open_dataset(tmp_path).keys) == ["a/2024/x.png", "b/y.png"]


def test_train_can_be_a_class(tmp_path):
    make_folder(tmp_path, splits=(), classes=("car", "plane", "train"))
    assert open_dataset(tmp_path).class_names == ("car", "plane", "train")


@pytest.mark.parametrize("asked", ["val", "valid", "validation"])
def test_validation_has_three_names(tmp_path, asked):
    make_folder(tmp_path, splits=("train", "valid"))
    assert open_dataset(tmp_path, asked).split == "val"


def test_split_must_be_named_and_known(tmp_path):
    make_folder(tmp_path)
    with pytest.raises(UnknownNameError, match=r"has the splits train, test; name one"):
        open_dataset(tmp_path)
    with pytest.raises(UnknownNameError, match=r"no split 'tset'; did you mean 'test'"):
        open_dataset(tmp_path, "tset")


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [("RGB", "png"), ("L", "png"), ("P", "png"), ("RGBA", "png"), ("LA", "png"), ("1", "png"), ("I;16", "png")]
    + [("CMYK", "jpg"), ("L", "jpg"), ("P", "gif"), ("RGB", "webp"), ("RGB", "bmp"), ("CMYK", "tif")],
)
def test_modes_pass_through_and_become_rgb(tmp_path, mode, suffix):
    write_image(tmp_path / f"x.{suffix}", 3, mode)
    image = open_dataset(tmp_path).sample(0)
    assert image.mode == mode or (image.mode.startswith("I;16") and mode == "I;16")
    rgb = to_rgb(image)
    assert rgb.mode == "RGB" and rgb.size == (16, 12)
    assert np.asarray(rgb).std() > 20  # neither black nor white
    assert pixel_cache(open_dataset(tmp_path), 8).shape == (1, 8, 8, 3)


def test_sixteen_bits_keep_their_top_eight(tmp_path):
    write_image(tmp_path / "x.png", 3, "I;16")
    grey = noise(3)[..., 0]
    assert np.abs(np.asarray(to_rgb(open_dataset(tmp_path).sample(0)))[..., 1].astype(int) - grey).max() <= 1


def test_transparent_pixels_become_white(tmp_path):
    Image.new("RGBA", (4, 4), (10, 20, 30, 0)).save(tmp_path / "x.png")
    assert np.asarray(to_rgb(open_dataset(tmp_path).sample(0))).min() == 255


def test_one_pixel_image(tmp_path):
    Image.new("RGB", (1, 1), (9, 8, 7)).save(tmp_path / "x.png")
    assert (pixel_cache(open_dataset(tmp_path), 8) == [9, 8, 7]).all()


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp"])
def test_exif_orientation_is_applied(tmp_path, suffix):
    pixels = np.zeros((16, 32, 3), dtype=np.uint8)
    pixels[:, :16] = 255  # left half white
    exif = Image.Exif()
    exif[0x0112] = 6  # stored rotated: turn 90 degrees clockwise to view
    Image.fromarray(pixels).save(tmp_path / f"x.{suffix}", exif=exif)
    image = open_dataset(tmp_path).sample(0)
    assert image.size == (16, 32)
    top = np.asarray(to_rgb(image))
    assert top[:12].mean() > 245 and top[20:].mean() < 10


def test_fingerprint_follows_content_keys_and_labels(tmp_path):
    make_folder(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")

    def mark(name):
        return open_dataset(tmp_path / name, "train").fingerprint

    assert mark("a") == mark("a") == mark("b") and len(mark("a")) == 64
    assert mark("a") != open_dataset(tmp_path / "a", "test").fingerprint
    write_image(tmp_path / "b" / "train" / "cat" / "0.png", 99)
    changed = mark("b")
    assert changed != mark("a")
    (tmp_path / "b" / "train" / "cat" / "0.png").rename(tmp_path / "b" / "train" / "dog" / "00.png")
    assert mark("b") not in (changed, mark("a"))


def test_fingerprint_reads_unchanged_files_once(tmp_path, monkeypatch):
    make_folder(tmp_path)
    first = open_dataset(tmp_path, "train").fingerprint
    again = open_dataset(tmp_path, "train")
    monkeypatch.setattr(again, "content", lambda index: pytest.fail("an unchanged file was read again"))
    assert again.fingerprint == first


def test_fingerprint_survives_a_useless_cache_folder(tmp_path, monkeypatch):
    make_folder(tmp_path / "data")
    first = open_dataset(tmp_path / "data", "train").fingerprint
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "file" / "below"))
    assert open_dataset(tmp_path / "data", "train").fingerprint == first


def test_cached_pixels_are_those_of_the_transform(tmp_path):
    make_folder(tmp_path)
    data = open_dataset(tmp_path, "train")
    transform = ImageTransform(ImageInput(size=(8, 8)))
    cache = pixel_cache(data, 8)
    for i in range(len(data)):
        assert np.array_equal(cache[i], transform.pixels(data.sample(i)))


BROKEN = {"empty": b"", "text": b"hello", "truncated": None}


@pytest.mark.parametrize("kind", BROKEN)
def test_corrupt_image_is_named(tmp_path, kind):
    make_folder(tmp_path)
    path = tmp_path / "train" / "cat" / "2.png"
    path.write_bytes(path.read_bytes()[:200] if kind == "truncated" else BROKEN[kind])
    data = open_dataset(tmp_path, "train")
    with pytest.raises(DataError, match=r"2\.png cannot be decoded as an image") as error:
        data.sample(2)
    assert "BytesIO" not in str(error.value) and "\n" not in str(error.value)
    assert data.sample(3).size == (16, 12)


def test_file_that_vanished_is_named(tmp_path):
    make_folder(tmp_path)
    data = open_dataset(tmp_path, "train")
    (tmp_path / "train" / "cat" / "0.png").unlink()
    with pytest.raises(DataError, match=r"0\.png cannot be read"):
        data.sample(0)
    with pytest.raises(DataError, match=r"0\.png cannot be read"):
        data.fingerprint  # noqa: B018


def test_folders_that_hold_nothing(tmp_path):
    with pytest.raises(DataError, match="holds no image"):
        open_dataset(tmp_path)
    (tmp_path / "readme.txt").write_text("x")
    with pytest.raises(DataError, match="holds no image"):
        open_dataset(tmp_path)
    make_folder(tmp_path, splits=("train",))
    (tmp_path / "test").mkdir()
    with pytest.raises(DataError, match="holds no image"):
        open_dataset(tmp_path, "test")


def test_images_beside_classes(tmp_path):
    make_folder(tmp_path, splits=())
    write_image(tmp_path / "preview.png", 0)
    with pytest.raises(DataError, match=r"holds 1 images \(such as preview.png\) beside 2 folders"):
        open_dataset(tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("x.png", "is a single image; open the folder"),
        ("x.pth", "is a file of weights"),
        ("x.tar.gz", "is an archive; unpack it"),
        ("x.csv", "holds no dataset"),
    ],
)
def test_file_instead_of_folder(tmp_path, name, message):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(DataError, match=message):
        open_dataset(tmp_path / name)


def test_missing_folder(tmp_path):
    with pytest.raises(DataError, match="does not exist; expected a folder of images"):
        open_dataset(str(tmp_path / "nowhere"))
