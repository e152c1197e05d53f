"""Every dataset of the suites, read from a small copy in its own layout on disk."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from tests.data_fixtures import noise, write_image
from zoo.data.addresses import available_splits, open_dataset
from zoo.data.splits import per_class
from zoo.errors import DataError


def same(dataset, index, seed):
    """Lossless only for PNG content; every fake image is PNG whatever its name says."""
    return np.array_equal(np.asarray(dataset.sample(index)), noise(seed))


def write(path, seed):
    """A PNG under a `.jpg` name: exact pixels, and PIL goes by content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(noise(seed)).save(path, "PNG")


@pytest.fixture
def cub(tmp_path):
    home = tmp_path / "CUB_200_2011"
    names = ["001.Black_footed_Albatross/a.jpg", "002.Laysan_Albatross/b.jpg", "001.Black_footed_Albatross/c.jpg"]
    for seed, name in enumerate(names):
        write(home / "images" / name, seed)
    (home / "images.txt").write_text("".join(f"{i} {name}\n" for i, name in enumerate(names, 1)))
    (home / "classes.txt").write_text("1 001.Black_footed_Albatross\n2 002.Laysan_Albatross\n")
    # Another order than images.txt: the files belong together by number, not by line.
    (home / "image_class_labels.txt").write_text("3 1\n2 2\n1 1\n")
    (home / "train_test_split.txt").write_text("2 1\n1 1\n3 0\n")
    return tmp_path


def test_cub_joins_its_lists_on_the_number(cub):
    assert available_splits("CUB200") == ["train", "test"]
    train, test = open_dataset("CUB200", "train", root=cub), open_dataset("CUB200", "test", root=cub)
    assert train.class_names == ("Black footed Albatross", "Laysan Albatross")
    assert train.labels.tolist() == [0, 1] and test.labels.tolist() == [0]
    assert same(train, 1, 1) and same(test, 0, 2) and train.licence.startswith("see https://www.vision.caltech.edu")
    assert open_dataset("CUB200", "test", root=cub / "CUB_200_2011").fingerprint == test.fingerprint


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda home: (home / "train_test_split.txt").write_text("1 1\n2 0\n"), "lists 2 images, images.txt 3"),
        (lambda home: (home / "classes.txt").unlink(), "classes.txt cannot be read"),
        (lambda home: (home / "images.txt").write_text("1\n"), "not `number text`"),
        (lambda home: (home / "images" / "002.Laysan_Albatross" / "b.jpg").unlink(), r"b.jpg is missing \(1 of 2"),
    ],
)
def test_a_damaged_cub_is_refused(cub, change, message):
    change(cub / "CUB_200_2011")
    with pytest.raises(DataError, match=message):
        open_dataset("CUB200", "train", root=cub)


def dogs(root, labels=(1, 2)):
    home = root / "stanford_dogs"
    files = ["n02085620-Chihuahua/n1.jpg", "n02085782-Japanese_spaniel/n2.jpg"]
    for seed, name in enumerate(files):
        write(home / "Images" / name, seed)
    for split in ("train", "test"):
        cells = np.array(files, dtype=object)[:, None]
        savemat(home / f"{split}_list.mat", {"file_list": cells, "labels": np.array(labels)[:, None]})
    return root


def test_stanford_dogs_reads_its_mat_lists(tmp_path):
    train = open_dataset("StanfordDogs", "train", root=dogs(tmp_path))
    assert train.class_names == ("Chihuahua", "Japanese spaniel") and train.labels.tolist() == [0, 1]
    assert same(train, 1, 1) and train.keys[0] == "Images/n02085620-Chihuahua/n1.jpg"


def test_stanford_dogs_with_shifted_labels_or_no_lists_is_refused(tmp_path):
    with pytest.raises(DataError, match="does not fit the 2 folders"):
        open_dataset("StanfordDogs", "train", root=dogs(tmp_path, labels=(2, 1)))
    (tmp_path / "stanford_dogs" / "test_list.mat").unlink()
    with pytest.raises(DataError, match=r"no test_list\.mat; unpack lists\.tar"):
        open_dataset("StanfordDogs", "test", root=tmp_path)


@pytest.mark.parametrize(("name", "page"), [("CUB200", "caltech"), ("StanfordDogs", "stanford")])
def test_what_is_not_there_says_where_to_get_it(name, page, tmp_path):
    with pytest.raises(DataError, match=f"{name} was not found in .*{page}.*ZOO_DATA"):
        open_dataset(name, "train", root=tmp_path)


def test_fgvc_aircraft(tmp_path):
    data = tmp_path / "fgvc-aircraft-2013b" / "data"
    for seed, name in enumerate(("0000001", "0000002", "0000003")):
        write(data / "images" / f"{name}.jpg", seed)
    (data / "variants.txt").write_text("707-320\nA300B4\n")
    for split, lines in (("train", "0000001 A300B4\n"), ("val", "0000002 707-320\n"), ("test", "0000003 A300B4\n")):
        (data / f"images_variant_{split}.txt").write_text(lines)
    train, val = (open_dataset("FGVCAircraft", split, root=tmp_path) for split in ("train", "val"))
    assert train.class_names == ("707-320", "A300B4") and train.labels.tolist() == [1] and val.labels.tolist() == [0]
    assert same(train, 0, 0) and "non-commercial research" in train.licence


def test_oxford_pets(tmp_path):
    home = tmp_path / "oxford-iiit-pet"
    for seed, name in enumerate(("Abyssinian_1", "beagle_1")):
        write(home / "images" / f"{name}.jpg", seed)
    (home / "annotations").mkdir()
    (home / "annotations" / "trainval.txt").write_text("Abyssinian_1 1 1 1\nbeagle_1 2 2 1\n")
    train = open_dataset("OxfordIIITPet", "trainval", root=tmp_path)
    assert train.class_names == ("Abyssinian", "Beagle") and train.labels.tolist() == [0, 1] and same(train, 1, 1)


def test_stanford_cars_from_a_folder_of_the_user(tmp_path):
    home = tmp_path / "stanford_cars"
    kind = np.dtype([("fname", object), ("class", object)])

    def annotations(rows):
        return {"annotations": np.array(rows, dtype=kind)[None]}

    for folder, seed in (("cars_train", 0), ("cars_train", 1), ("cars_test", 2)):
        write(home / folder / f"0000{seed}.jpg", seed)
    (home / "devkit").mkdir()
    savemat(home / "devkit" / "cars_meta.mat", {"class_names": np.array(["AM General", "Audi"], dtype=object)[None]})
    savemat(home / "devkit" / "cars_train_annos.mat", annotations([("00000.jpg", 2), ("00001.jpg", 1)]))
    savemat(home / "cars_test_annos_withlabels.mat", annotations([("00002.jpg", 2), ("00002.jpg", 1)]))
    train, test = (open_dataset("StanfordCars", split, root=tmp_path) for split in ("train", "test"))
    assert train.class_names == ("AM General", "Audi") and train.labels.tolist() == [1, 0]
    assert same(train, 1, 1) and same(test, 0, 2)
    with pytest.raises(DataError, match="StanfordCars cannot be downloaded: get the images"):
        open_dataset("StanfordCars", "train", root=tmp_path, download=True)


def test_food101(tmp_path):
    home = tmp_path / "food-101"
    for seed, name in enumerate(("apple_pie/1", "waffles/2")):
        write(home / "images" / f"{name}.jpg", seed)
    (home / "meta").mkdir()
    (home / "meta" / "train.json").write_text('{"apple_pie": ["apple_pie/1"], "waffles": ["waffles/2"]}')
    train = open_dataset("Food101", "train", root=tmp_path)
    assert train.labels.tolist() == [0, 1] and train.class_names == ("apple_pie", "waffles") and same(train, 1, 1)


def test_dtd(tmp_path):
    home = tmp_path / "dtd" / "dtd"
    for seed, name in enumerate(("banded/banded_1", "woven/woven_1")):
        write(home / "images" / f"{name}.jpg", seed)
    (home / "labels").mkdir()
    for split, line in (("train", "banded/banded_1.jpg\nwoven/woven_1.jpg\n"), ("test", "woven/woven_1.jpg\n")):
        (home / "labels" / f"{split}1.txt").write_text(line)
    train = open_dataset("DTD", "train", root=tmp_path)
    assert train.class_names == ("banded", "woven") and train.labels.tolist() == [0, 1] and same(train, 1, 1)


def caltech(root, sizes):
    home = root / "caltech101"
    (home / "Annotations").mkdir(parents=True)
    for name, size in sizes.items():
        for i in range(1, size + 1):
            write_image(home / "101_ObjectCategories" / name / f"image_{i:04d}.jpg", i, height=2, width=2)
    return root


def test_caltech101_has_a_stated_seeded_split(tmp_path):
    root = caltech(tmp_path, {"accordion": 33, "ant": 31, "BACKGROUND_Google": 2})
    assert available_splits("Caltech101") == ["all", "train", "test"]
    whole, train, test = (open_dataset("Caltech101", split, root=root) for split in ("all", "train", "test"))
    assert np.bincount(train.labels).tolist() == [30, 30] and np.bincount(test.labels).tolist() == [3, 1]
    assert not set(train.keys) & set(test.keys) and {*train.keys, *test.keys} == set(whole.keys)
    assert train.split == "train[30 per class, seed 0]" and train.class_names == ("accordion", "ant")


def sun(root):
    home = root / "SUN397"
    names = ["a/abbey", "a/airport/terminal"]
    for name in names:
        for i in range(3):
            write(home / name / f"sun_{name[2:5]}{i}.jpg", i)
    (home / "ClassName.txt").write_text("".join(f"/{name}\n" for name in names))
    return home


def test_sun397_takes_the_authors_partition_where_it_lies_there(tmp_path):
    home = sun(tmp_path)
    train = open_dataset("SUN397", "train", root=tmp_path)
    assert train.split == "train[50 per class, seed 0]" and len(train) == 6
    (home / "Training_01.txt").write_text("/a/abbey/sun_abb0.jpg\n/a/airport/terminal/sun_air2.jpg\n")
    with pytest.raises(DataError, match=r"Testing_01\.txt is missing beside"):
        open_dataset("SUN397", "train", root=tmp_path)
    (home / "Testing_01.txt").write_text("/a/abbey/sun_abb1.jpg\n")
    train, test = (open_dataset("SUN397", split, root=tmp_path) for split in ("train", "test"))
    assert train.labels.tolist() == [0, 1] and test.labels.tolist() == [0] and test.split == "test[partition 1]"
    assert same(test, 0, 1) and train.class_names == ("abbey", "airport/terminal")
    (home / "Testing_01.txt").write_text("/a/abbey/gone.jpg\n")
    with pytest.raises(DataError, match=r"lists a/abbey/gone\.jpg.*1 of 1 missing"):
        open_dataset("SUN397", "test", root=tmp_path)


def test_per_class_takes_so_many_of_each_and_repeats():
    labels = np.repeat([0, 1, 2], [5, 2, 9])
    taken, rest = per_class(labels, 3, seed=0)
    assert np.bincount(labels[taken]).tolist() == [3, 2, 3] and np.array_equal(np.sort([*taken, *rest]), np.arange(16))
    assert taken.tolist() == per_class(labels, 3, seed=0)[0].tolist() != per_class(labels, 3, seed=1)[0].tolist()
