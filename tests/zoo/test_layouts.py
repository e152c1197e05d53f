"""Folders as people have them: what is understood, what is left out and said, and what is asked instead of guessed."""

from __future__ import annotations

import os
import unicodedata
import warnings

import numpy as np
import pytest

from tests.data_fixtures import make_folder, write_image
from tests.zoo.feature_fixtures import tiny_encoder
from zoo.data.addresses import available_splits, open_dataset
from zoo.data.pairs import check_pair, describe
from zoo.errors import DataError, DataWarning
from zoo.features.extract import embed
from zoo.preprocessing import picture

pytestmark = pytest.mark.filterwarnings("ignore::zoo.errors.DataWarning")


def opened(root, **options):
    return {split: open_dataset(root, split, **options) for split in available_splits(root, **options)}


# --- splits -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (("training", "testing"), ["train", "test"]),
        (("training_set", "test_set"), ["train", "test"]),
        (("Train", "TEST"), ["train", "test"]),
        (("train", "eval"), ["train", "val"]),
        (("train", "dev", "test"), ["train", "val", "test"]),
        (("trainset", "test data"), ["train", "test"]),
    ],
)
def test_split_folders_have_many_names(tmp_path, names, splits):
    make_folder(tmp_path, splits=names, per_class=1)
    found = opened(tmp_path)
    assert list(found) == splits
    assert all(data.class_names == ("cat", "dog") and len(data) == 2 for data in found.values())
    assert len(open_dataset(tmp_path, names[0])) == 2  # by its own name as well


def test_flat_splits_beside_a_folder_of_another_meaning(tmp_path):
    for split in ("train", "test", "extra"):
        write_image(tmp_path / split / "0.png", len(split))
    train = open_dataset(tmp_path, "train")
    assert available_splits(tmp_path) == ["train", "test"] and train.labels is None
    assert train.report.left == {"pictures in folders beside the splits (extra)": ("extra/0.png",)}


def test_two_folders_of_one_split_are_a_question(tmp_path):
    make_folder(tmp_path, splits=("val", "eval", "train"), per_class=1)
    with pytest.raises(DataError, match="'eval' and 'val', which name the same split"):
        available_splits(tmp_path)


def test_class_folders_without_splits_are_divided_by_chance(tmp_path):
    make_folder(tmp_path / "pets", splits=(), per_class=10)
    train, test, everything = opened(tmp_path / "pets").values()
    assert (len(train), len(test), len(everything)) == (16, 4, 20)
    assert np.bincount(train.labels).tolist() == [8, 8] and not set(train.keys) & set(test.keys)
    assert train.split == "train[80% of each class, seed 0]" and "drawn by chance" in str(train.report)
    other = open_dataset(tmp_path / "pets", "test", test_share=0.5, seed=1)
    assert len(other) == 10 and list(other.keys) != list(open_dataset(tmp_path / "pets", "test", test_share=0.5).keys)
    assert list(other.keys) == list(open_dataset(tmp_path / "pets", "test", test_share=0.5, seed=1).keys)
    with pytest.raises(DataError, match="test_share=1 does not lie strictly between 0 and 1"):
        open_dataset(tmp_path / "pets", "test", test_share=1)


def test_a_class_with_one_picture_is_said(tmp_path):
    make_folder(tmp_path, splits=(), per_class=4)
    write_image(tmp_path / "rare" / "0.png", 99)
    assert "1 classes have a single sample, which is in train" in str(open_dataset(tmp_path, "test").report)


def test_data_with_splits_is_not_divided_again(tmp_path):
    make_folder(tmp_path)
    with pytest.raises(DataError, match=r"splits of its own \(train, test\); leave test_share="):
        open_dataset(tmp_path, "test", test_share=0.3)
    write_image(tmp_path / "flat" / "x.png", 0)
    with pytest.raises(DataError, match="as it has no labels"):
        open_dataset(tmp_path / "flat", test_share=0.3)
    with pytest.raises(DataError, match=r"digits takes no test_share='0\.3'; that is for a folder"):
        open_dataset("digits", "test", test_share=0.3)


# --- classes ----------------------------------------------------------------------------------------


@pytest.fixture
def groceries(tmp_path):
    """As a real fine-grained photo set has it: groups, then kinds, some of them deeper still."""
    for i, place in enumerate(("Fruit/Apple/Golden", "Fruit/Apple/Pink", "Fruit/Banana", "Packages/Milk/Arla")):
        for k in range(2):
            write_image(tmp_path / "shop" / "train" / place / f"{k}.png", 10 * i + k)
            write_image(tmp_path / "shop" / "test" / place / f"{k}.png", 100 + 10 * i + k)
    return tmp_path / "shop"


def test_nested_class_folders_are_a_question(groceries):
    with pytest.raises(DataError) as error:
        open_dataset(groceries, "train")
    assert "set classes='top' (2: Fruit, Packages), classes='leaf' (4: Arla, Banana, Golden, ...) or" in str(
        error.value
    )
    assert "Fruit/Apple/Golden/0.png" in str(error.value)


@pytest.mark.parametrize(
    ("classes", "names"),
    [
        ("top", ("Fruit", "Packages")),
        ("leaf", ("Arla", "Banana", "Golden", "Pink")),
        ("level:1", ("Fruit", "Packages")),
        ("level:2", ("Apple", "Banana", "Milk")),
    ],
)
def test_nested_class_folders_with_an_answer(groceries, classes, names):
    for data in opened(groceries, classes=classes).values():
        assert data.class_names == names and len(data) == 8
        for key, label in zip(data.keys, data.labels, strict=True):
            assert names[label] in key.split("/")


@pytest.mark.parametrize(("classes", "message"), [("level:3", "Banana.* lies in 2 folders"), ("deep", "expected top")])
def test_a_wrong_answer_is_said(groceries, classes, message):
    with pytest.raises(DataError, match=message):
        open_dataset(groceries, "train", classes=classes)


def test_images_and_masks_are_a_question(tmp_path):
    make_folder(tmp_path, splits=("images", "masks"), per_class=1)
    with pytest.raises(DataError, match=r"'top' \(2: images, masks\), classes='leaf' \(2: cat, dog\)"):
        open_dataset(tmp_path)
    assert open_dataset(tmp_path, classes="leaf").class_names == ("cat", "dog")


def test_one_folder_that_holds_everything_says_nothing(tmp_path):
    make_folder(tmp_path / "zip" / "pets", splits=())
    assert open_dataset(tmp_path / "zip").class_names == ("cat", "dog")
    make_folder(tmp_path / "other" / "pets")
    assert available_splits(tmp_path / "other") == ["train", "test"]
    for split in ("train", "test"):  # each split with one folder more
        make_folder(tmp_path / "more" / split / "images", splits=(), per_class=1)
    assert open_dataset(tmp_path / "more", "train").class_names == ("cat", "dog")


def test_one_folder_inside_each_class_says_nothing(tmp_path):
    for name in ("n01", "n02"):  # Tiny ImageNet
        write_image(tmp_path / "train" / name / "images" / "0.png", len(name))
        write_image(tmp_path / "val" / name / "images" / "0.png", 9)
    assert open_dataset(tmp_path, "train").class_names == ("n01", "n02")


def test_two_unicode_forms_of_a_name_are_one_class(tmp_path):
    for split, form in (("train", "NFC"), ("test", "NFD")):
        for name in ("café", "dog"):
            write_image(tmp_path / split / unicodedata.normalize(form, name) / "0.png", len(name + split))
    train, test = opened(tmp_path).values()
    assert train.class_names == test.class_names == (unicodedata.normalize("NFC", "café"), "dog")
    check_pair(train, test)


@pytest.mark.parametrize("names", [("Cat", "cat"), ("cat", "cat "), ("cat", "ｃａｔ")])
def test_names_that_look_alike_across_splits_are_refused_by_name(tmp_path, names):
    for split, name in zip(("train", "test"), names, strict=True):
        write_image(tmp_path / split / name / "0.png", len(split))
        write_image(tmp_path / split / "dog" / "0.png", 5)
    with pytest.raises(DataError, match="differ only in case, spaces or Unicode form") as error:
        open_dataset(tmp_path, "train")
    assert all(f"{name!r} ({split})" in str(error.value) for split, name in zip(("train", "test"), names, strict=True))


def test_letters_in_both_cases_are_two_classes(tmp_path):
    make_folder(tmp_path, classes=("A", "a"))
    assert open_dataset(tmp_path, "train").class_names == ("A", "a")


# --- what is left out -------------------------------------------------------------------------------


def test_every_file_is_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(picture, "has_heif", lambda: False)
    names = ("1.png", "2.jpg", "3.jfif", "4.jpe", "5.tga", "6.heic", "7.dcm", "noending")
    for name in ("a", "b"):
        picture_file = write_image(tmp_path / name / "1.png", 0)
        for other in names[1:]:
            (tmp_path / name / other).write_bytes(picture_file.read_bytes())
    with pytest.warns(
        DataWarning, match="16 seen, 10 taken, 6 left out: 2 .heic .*encoder-zoo.heif.*, 2 .dcm, 2 without"
    ):
        data = open_dataset(tmp_path)
    assert len(data) == 10 and data.report.saw == 16
    assert data.report.left[".dcm"] == ("a/7.dcm", "b/7.dcm")
    assert describe(data) == (
        '10 images, 2 classes (a, b), 6 files left out: 2 .heic (pip install "encoder-zoo[heif]"), 2 .dcm, '
        "2 without an ending"
    )


def test_a_heic_picture_says_what_it_needs(tmp_path, monkeypatch):
    monkeypatch.setattr(picture, "has_heif", lambda: False)
    (tmp_path / "x.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(12))
    with pytest.raises(DataError, match=r'holds no image .* but 1 \.heic \(pip install "encoder-zoo\[heif\]"\)'):
        open_dataset(tmp_path)
    with pytest.raises(DataError, match=r'is a HEIC picture, which needs another package: pip install "encoder-zoo'):
        picture.to_rgb(tmp_path / "x.heic")


def test_a_heic_picture_opens_with_the_extra(tmp_path):
    heif = pytest.importorskip("pillow_heif")
    pixels = np.full((16, 16, 3), 200, np.uint8)
    heif.from_bytes("RGB", (16, 16), pixels.tobytes()).save(tmp_path / "x.heic")
    assert np.asarray(picture.to_rgb(open_dataset(tmp_path).sample(0))).mean() == pytest.approx(200, abs=3)


def test_system_folders_are_no_classes(tmp_path):
    names = ("cat", "dog", "@eaDir", "$RECYCLE.BIN", "__MACOSX", ".git", "System Volume Information")
    make_folder(tmp_path, splits=(), classes=names, per_class=1)
    data = open_dataset(tmp_path)
    assert data.class_names == ("cat", "dog")
    assert len(data.report.left["system folders"]) == 4


def test_a_link_to_a_folder_above_is_followed_once(tmp_path):
    make_folder(tmp_path, splits=(), classes=("a", "b"), per_class=1)
    os.symlink("..", tmp_path / "a" / "again")
    os.symlink(tmp_path / "b", tmp_path / "c")  # a link to another folder is a folder like any other
    data = open_dataset(tmp_path)
    assert list(data.keys) == ["a/0.png", "b/0.png", "c/0.png"]
    assert data.report.left == {"links to a folder that they lie in": ("a/again",)}


def test_bad_files_are_named_at_once_or_left_out(tmp_path):
    make_folder(tmp_path, splits=(), per_class=6)
    for name in ("cat/1.png", "dog/0.png", "dog/5.png"):
        (tmp_path / name).write_bytes(b"no picture")
    encoder = tiny_encoder(8)
    with pytest.raises(DataError, match=r"3 of 12 samples of .* cannot be read \(skip_bad=True leaves") as error:
        embed(encoder, open_dataset(tmp_path), batch_size=2)
    assert all(name in str(error.value) for name in ("cat/1.png", "dog/0.png", "dog/5.png"))
    data = open_dataset(tmp_path, skip_bad=True)
    assert len(data) == 9 and np.bincount(data.labels).tolist() == [5, 4] and "dog/5.png" not in data.keys
    assert len(embed(encoder, data)) == 9
    assert "12 seen, 9 taken, 3 left out: 3 unreadable" in str(data.report)
    assert data.report.left["unreadable"][0].startswith("cat/1.png: ")
    fingerprint = data.fingerprint
    for path in ("cat/1.png", "dog/0.png", "dog/5.png"):
        (tmp_path / path).unlink()
    assert fingerprint == open_dataset(tmp_path).fingerprint  # as if they had never been there
    assert open_dataset(tmp_path, "test", skip_bad=True).split.startswith("test")


def test_nothing_readable_is_an_error(tmp_path):
    (tmp_path / "x.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"x\.png cannot be decoded"):
        open_dataset(tmp_path, skip_bad=True)


def test_skipping_keeps_the_right_pixels_in_the_store(tmp_path):
    from zoo.data.stores.pixels import pixel_cache

    make_folder(tmp_path, splits=(), per_class=3)
    (tmp_path / "cat" / "1.png").write_bytes(b"x")
    data = open_dataset(tmp_path, skip_bad=True)
    pixels = pixel_cache(data, 8, cache_dir=tmp_path.parent / "cache")
    assert len(pixels) == 5 and pixels.std(axis=(1, 2, 3)).min() > 5


# --- two parts side by side -------------------------------------------------------------------------


def test_the_same_samples_as_train_and_test_are_refused(tmp_path):
    make_folder(tmp_path / "pets", splits=())
    whole = open_dataset(tmp_path / "pets", "all")
    with pytest.raises(DataError, match="share 10 of 10 samples"):
        check_pair(whole, whole)
    with pytest.raises(DataError, match="share 2 of 2 samples"):
        check_pair(whole, open_dataset(tmp_path / "pets", "test"))
    with pytest.raises(DataError, match="share 10 of 10 samples"):
        check_pair(whole, whole.without({}))
    check_pair(open_dataset(tmp_path / "pets", "train"), open_dataset(tmp_path / "pets", "test"))
    make_folder(tmp_path / "linked", splits=("train",))
    os.symlink("train", tmp_path / "linked" / "test")
    with pytest.raises(DataError, match="share 10 of 10 samples"):
        check_pair(*opened(tmp_path / "linked").values())
    digits = open_dataset("digits", "train")
    with pytest.raises(DataError, match="share 3 of 3 samples"):
        check_pair(digits, digits.subset([4, 5, 6]))
    with pytest.raises(DataError, match="share 539 of 539 samples"):
        check_pair(open_dataset("digits", "all"), open_dataset("digits", "test"))


def test_classes_are_compared_by_name(tmp_path):
    make_folder(tmp_path / "a", splits=(), classes=("cat", "dog"))
    make_folder(tmp_path / "b", splits=(), classes=("dog", "eel"))
    with pytest.raises(DataError, match="only in all 'cat', only in all 'eel'"):
        check_pair(open_dataset(tmp_path / "a"), open_dataset(tmp_path / "b"))
    make_folder(tmp_path / "c", classes=("ant", "bee"), per_class=1)
    write_image(tmp_path / "c" / "test" / "cow" / "0.png", 77)
    with pytest.raises(DataError, match="1 classes of test have no sample in train: 'cow'"):
        check_pair(*opened(tmp_path / "c").values())


def test_one_line_says_what_was_understood(tmp_path):
    make_folder(tmp_path, classes=("ant", "bee", "cow", "dog"), per_class=3)
    (tmp_path / "train" / "ant" / "notes.txt").write_text("x")
    assert describe(*opened(tmp_path).values()) == (
        "24 images, 4 classes (ant, bee, cow, ...), train 12 / test 12, 1 file left out: 1 .txt"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert describe(open_dataset("digits", "test")).startswith("539 images, 10 classes (0, 1, 2, ...), test 539")
