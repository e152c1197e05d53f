"""Readers of torchvision sets, Parquet, Hugging Face, digits and synthetic shapes."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import struct
import sys

import numpy as np
import pytest
from PIL import Image

from tests.data_fixtures import make_folder, noise
from zoo.data.addresses import available_splits, open_dataset
from zoo.data.readers.synthetic_shapes import CLASSES
from zoo.data.readers.torchvision_sets import SOURCES
from zoo.errors import DataError, HubError, UnknownNameError

# --- torchvision ---------------------------------------------------------------------------------


@pytest.fixture
def fake_cifar10(tmp_path, monkeypatch):
    """CIFAR-10's on-disk format with 6 training and 4 test images, and its checksums to match."""
    from torchvision.datasets import CIFAR10

    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    images = np.stack([noise(i, 32, 32) for i in range(10)])

    def write(name, content):
        data = pickle.dumps(content)
        (folder / name).write_bytes(data)
        return hashlib.md5(data).hexdigest()

    def batch(part):
        rows = images[part].transpose(0, 3, 1, 2).reshape(-1, 3072)
        return {"data": rows, "labels": [i % 10 for i in range(part.start, part.stop)]}

    names = [f"class {i}" for i in range(10)]
    monkeypatch.setattr(CIFAR10, "train_list", [["data_batch_1", write("data_batch_1", batch(slice(0, 6)))]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", write("test_batch", batch(slice(6, 10)))]])
    meta = {"filename": "batches.meta", "key": "label_names", "md5": write("batches.meta", {"label_names": names})}
    monkeypatch.setattr(CIFAR10, "meta", meta)
    return tmp_path, images


def test_torchvision_arrays(fake_cifar10, monkeypatch):
    root, images = fake_cifar10
    assert available_splits("CIFAR10") == ["train", "test"]
    train = open_dataset("CIFAR10", "train", root=root)
    assert (train.name, len(train), len(train.class_names)) == ("cifar10", 6, 10)
    assert train.labels.tolist() == list(range(6))
    assert np.array_equal(np.asarray(train.sample(5)), images[5])
    monkeypatch.setenv("ZOO_DATA", str(root))
    test = open_dataset("CIFAR10", "test", download=True)  # everything is there: nothing is fetched
    assert test.labels.tolist() == [6, 7, 8, 9] and np.array_equal(np.asarray(test.sample(0)), images[6])
    assert train.fingerprint == open_dataset("CIFAR10", "train").fingerprint != test.fingerprint


def test_torchvision_damaged_file(fake_cifar10):
    root, _ = fake_cifar10
    with open(root / "cifar-10-batches-py" / "test_batch", "ab") as file:
        file.write(b"x")
    with pytest.raises(DataError, match=r"not found .*--download"):
        open_dataset("CIFAR10", "test", root=root)


def test_torchvision_without_files(tmp_path):
    with pytest.raises(DataError, match=r"CIFAR10 was not found in .*pass --download \(download=True\).*ZOO_DATA"):
        open_dataset("CIFAR10", "train", root=tmp_path)


def test_torchvision_download_that_fails(tmp_path, monkeypatch):
    import torchvision.datasets

    def offline(self):
        raise OSError("no route to host")

    monkeypatch.setattr(torchvision.datasets.CIFAR10, "download", offline)
    with pytest.raises(DataError, match=r"downloading CIFAR10 into .* failed: no route to host"):
        open_dataset("CIFAR10", "train", root=tmp_path, download=True)


def test_torchvision_files_and_sorted_order(tmp_path):
    """EuroSAT's folder: files stay files, keys are relative to the root."""
    make_folder(tmp_path / "eurosat" / "2750", splits=(), classes=("River", "Forest"))
    data = open_dataset("EuroSAT", root=tmp_path)
    assert (
        data.split == "all"
        and data.class_names == ("Forest", "River")
        and data.licence == "see https://github.com/phelber/eurosat"
    )
    assert list(data.keys) == sorted(data.keys) and data.keys[0] == "eurosat/2750/Forest/0.png"
    assert np.array_equal(np.asarray(data.sample(0)), noise(5)) and data.labels.tolist() == [0] * 5 + [1] * 5


def test_torchvision_tuple_of_files_and_missing_class_names(tmp_path):
    from scipy.io import savemat

    folder = tmp_path / "flowers-102"
    (folder / "jpg").mkdir(parents=True)
    for i in range(1, 5):
        Image.fromarray(noise(i)).save(folder / "jpg" / f"image_{i:05d}.jpg")
    savemat(folder / "setid.mat", {"trnid": [[3, 1]], "valid": [[2]], "tstid": [[4]]})
    savemat(folder / "imagelabels.mat", {"labels": [[5, 6, 102, 1]]})
    from torchvision.datasets import Flowers102

    original = Flowers102._check_integrity
    Flowers102._check_integrity = lambda self: True
    try:
        train = open_dataset("Flowers102", "train", root=tmp_path)
    finally:
        Flowers102._check_integrity = original
    assert [key[-9:] for key in train.keys] == ["00001.jpg", "00003.jpg"]
    assert train.labels.tolist() == [4, 101] and len(train.class_names) == 102


def test_torchvision_grey_tensors(tmp_path):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    grey = np.stack([noise(i, 28, 28)[..., 0] for i in range(3)])
    for part in ("train", "t10k"):
        (raw / f"{part}-images-idx3-ubyte").write_bytes(struct.pack(">4i", 2051, 3, 28, 28) + grey.tobytes())
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, 3) + bytes([9, 0, 4]))
    data = open_dataset("MNIST", "test", root=tmp_path)
    assert data.sample(1).mode == "L" and np.array_equal(np.asarray(data.sample(1)), grey[1])
    assert data.labels.tolist() == [9, 0, 4] and len(data.class_names) == 10


def test_torchvision_unlabelled_and_channels_first(tmp_path, monkeypatch):
    from torchvision.datasets import STL10

    folder = tmp_path / "stl10_binary"
    folder.mkdir()
    images = np.stack([noise(i, 96, 96) for i in range(2)])
    # STL-10 stores channels, then columns, then rows.
    stored = images.transpose(0, 3, 2, 1).tobytes()
    for name in ("train_X.bin", "unlabeled_X.bin"):
        (folder / name).write_bytes(stored)
    (folder / "train_y.bin").write_bytes(bytes([1, 10]))
    (folder / "class_names.txt").write_text("\n".join(f"c{i}" for i in range(10)))
    monkeypatch.setattr(STL10, "_check_integrity", lambda self: True)
    train = open_dataset("STL10", "train", root=tmp_path)
    assert train.labels.tolist() == [0, 9] and np.array_equal(np.asarray(train.sample(1)), images[1])
    unlabelled = open_dataset("STL10", "unlabeled", root=tmp_path)
    assert unlabelled.labels is None and unlabelled.class_names == () and len(unlabelled) == 2


@pytest.mark.parametrize("name", SOURCES)
def test_torchvision_table_names_what_exists(name, tmp_path):
    """Every split's arguments are accepted: without files the error is that there are none."""
    for split in available_splits(name):
        with pytest.raises(DataError, match=f"{name} was not found in"):
            open_dataset(name, split, root=tmp_path)
    with pytest.raises(UnknownNameError, match="has no split 'nope'"):
        open_dataset(name, "nope", root=tmp_path)


@pytest.mark.parametrize(
    ("name", "clause"), [("CIFAR1O", "'CIFAR10'"), ("cifar10", "'CIFAR10'"), ("digitz", "'digits'"), ("zzzz", "known")]
)
def test_unknown_name(name, clause, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnknownNameError, match=f"no dataset '{name}'.*{clause}"):
        open_dataset(name, "train")


# --- Parquet and Hugging Face --------------------------------------------------------------------


def encoded(seed, format="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(noise(seed)).save(buffer, format)
    return buffer.getvalue()


def write_parquet(path, seeds, labels=None, names=None, nested=True, column="image", rows_per_group=2):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    content = [encoded(seed) for seed in seeds]
    cells = [{"bytes": data, "path": f"{seed}.png"} for seed, data in zip(seeds, content, strict=True)]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    columns = {"id": pa.array(range(len(seeds))), column: pa.array(cells, kind) if nested else pa.array(content)}
    if labels is not None:
        columns["label"] = pa.array(labels)
    table = pa.table(columns)
    if names is not None:
        features = {column: {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": names}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=rows_per_group)
    return path


def test_parquet_file_with_hugging_face_names(tmp_path):
    path = write_parquet(tmp_path / "pets.parquet", range(5), [1, 0, 1, 2, 0], ["cat", "dog", "eel"])
    data = open_dataset(path)
    assert (data.name, data.split, len(data), data.class_names) == ("pets", "all", 5, ("cat", "dog", "eel"))
    assert data.labels.tolist() == [1, 0, 1, 2, 0] and list(data.keys) == list("01234")
    for row in (4, 0, 3, 1, 2):
        assert np.array_equal(np.asarray(data.sample(row)), noise(row))


def test_parquet_folder_with_splits_and_shards(tmp_path):
    write_parquet(tmp_path / "data" / "train-00000-of-00002.parquet", range(3), ["dog", "ant", "dog"])
    write_parquet(tmp_path / "data" / "train-00001-of-00002.parquet", range(3, 5), ["cat", "dog"])
    write_parquet(tmp_path / "data" / "validation-00000-of-00001.parquet", range(5, 7), ["bee", "dog"])
    assert set(available_splits(tmp_path)) == {"train", "val"}
    train, val = open_dataset(tmp_path, "train"), open_dataset(tmp_path, "validation")
    assert train.class_names == val.class_names == ("ant", "bee", "cat", "dog")
    assert train.labels.tolist() == [3, 0, 3, 2, 3] and val.labels.tolist() == [1, 3]
    assert [np.array_equal(np.asarray(train.sample(i)), noise(i)) for i in range(5)] == [True] * 5
    assert np.array_equal(np.asarray(val.sample(1)), noise(6))


def test_parquet_folder_with_loops_and_hidden_folders(tmp_path):
    write_parquet(tmp_path / "a" / "b" / "train-0.parquet", [1, 2], [0, 1])
    expected = list(open_dataset(tmp_path / "a", "train").keys)
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "again").symlink_to(tmp_path / "a" / "b")
    (tmp_path / "a" / ".trash").mkdir()
    (tmp_path / "a" / ".trash" / "train-1.parquet").write_bytes(b"no parquet")
    data = open_dataset(tmp_path / "a", "train")
    assert list(data.keys) == expected and len(data) == 2


def test_parquet_binary_column_without_labels(tmp_path):
    data = open_dataset(write_parquet(tmp_path / "x.parquet", range(3), nested=False, column="png"))
    assert data.labels is None and np.array_equal(np.asarray(data.sample(2)), noise(2))


def test_parquet_whole_numbers_without_names(tmp_path):
    data = open_dataset(write_parquet(tmp_path / "x.parquet", range(3), [0, 3, 1]))
    assert data.class_names == ("0", "1", "3") and data.labels.tolist() == [0, 2, 1]  # the values that occur
    unlabelled = open_dataset(write_parquet(tmp_path / "y.parquet", range(3), [-1, -1, -1], ["a", "b"]))
    assert unlabelled.labels is None


def test_parquet_fingerprint_ignores_sharding_and_sees_changes(tmp_path):
    write_parquet(tmp_path / "a" / "x.parquet", range(4), [0, 1, 0, 1])
    write_parquet(tmp_path / "b" / "x0.parquet", range(2), [0, 1])
    write_parquet(tmp_path / "b" / "x1.parquet", range(2, 4), [0, 1])
    first = open_dataset(tmp_path / "a").fingerprint
    assert first == open_dataset(tmp_path / "b").fingerprint == open_dataset(tmp_path / "a").fingerprint
    write_parquet(tmp_path / "a" / "x.parquet", range(4), [0, 1, 1, 1])
    assert open_dataset(tmp_path / "a").fingerprint != first


def test_parquet_bad_files(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    (tmp_path / "text.parquet").write_text("hello")
    with pytest.raises(DataError, match=r"text\.parquet cannot be read as Parquet"):
        open_dataset(tmp_path / "text.parquet")
    pq.write_table(pa.table({"a": [1], "b": ["x"]}), tmp_path / "table.parquet")
    with pytest.raises(DataError, match=r"has no image column.*a: int64, b: string"):
        open_dataset(tmp_path / "table.parquet")
    for labels, message in (([0, None], "1 labels are null"), ([0.5, 1.0], "whole numbers or text")):
        with pytest.raises(DataError, match=message):
            open_dataset(write_parquet(tmp_path / "labels.parquet", range(2), labels))
    with pytest.raises(DataError, match=r"labels lie in 0\.\.5, expected 0\.\.1"):
        open_dataset(write_parquet(tmp_path / "range.parquet", range(2), [0, 5], ["a", "b"]))


def test_parquet_mixed_folders(tmp_path):
    write_parquet(tmp_path / "a" / "train.parquet", range(2), [0, 1])
    write_parquet(tmp_path / "a" / "more.parquet", range(2), [0, 1])
    with pytest.raises(DataError, match=r"more\.parquet names no split"):
        open_dataset(tmp_path / "a", "train")
    write_parquet(tmp_path / "b" / "0.parquet", range(2), [0, 1])
    write_parquet(tmp_path / "b" / "1.parquet", range(2), [0, 1], column="photo")
    with pytest.raises(DataError, match=r"1\.parquet has other columns than"):
        open_dataset(tmp_path / "b")


def test_parquet_corrupt_and_missing_image(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"image": pa.array([b"broken", None, encoded(0)])}), tmp_path / "x.parquet")
    data = open_dataset(tmp_path / "x.parquet")
    with pytest.raises(DataError, match="row 0 cannot be decoded"):
        data.sample(0)
    with pytest.raises(DataError, match="row 1 holds no image bytes"):
        data.sample(1)


def test_parquet_without_pyarrow(tmp_path, monkeypatch):
    path = write_parquet(tmp_path / "x.parquet", range(2))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(DataError, match=r'pip install "encoder-zoo\[parquet\]"'):
        open_dataset(path)


def test_hugging_face_without_datasets(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r'pip install "encoder-zoo\[datasets\]"'):
        open_dataset("hf:uoft-cs/cifar10", "train")


def test_hugging_face_dataset(tmp_path):
    pytest.importorskip("datasets")
    write_parquet(tmp_path / "pets" / "train.parquet", range(5), [1, 0, 1, 1, 0], ["cat", "dog"])
    write_parquet(tmp_path / "pets" / "validation.parquet", range(5, 7), [0, 1], ["cat", "dog"])
    address = f"hf:{tmp_path / 'pets'}"
    assert available_splits(address) == ["train", "validation"]
    train, val = open_dataset(address, "train"), open_dataset(address, "val")
    assert (train.name, train.class_names, train.labels.tolist()) == ("pets", ("cat", "dog"), [1, 0, 1, 1, 0])
    assert np.array_equal(np.asarray(train.sample(3)), noise(3))
    assert np.array_equal(np.asarray(val.sample(1)), noise(6))
    assert train.fingerprint == open_dataset(tmp_path / "pets", "train").fingerprint
    with pytest.raises(UnknownNameError, match="does not exist"):
        open_dataset(f"hf:{tmp_path / 'nothing'}", "train")


class FakeHub:
    """The two calls of `datasets` that the reader makes, failing as the real ones do."""

    def __init__(self, error):
        self.error = error

    def get_dataset_split_names(self, name, config, revision):
        assert (name, config, revision) == ("org/set", "small", "v2")
        raise self.error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (FileNotFoundError("gone"), UnknownNameError),
        (ConnectionError("no route"), HubError),
        (ValueError("BuilderConfig 'small' not found. Available: ['big']"), UnknownNameError),
    ],
)
def test_hugging_face_errors(monkeypatch, error, expected):
    monkeypatch.setitem(sys.modules, "datasets", FakeHub(error))
    with pytest.raises(expected, match=str(error).split(".")[0]):
        open_dataset("hf:org/set@v2:small", "train")


# --- digits and synthetic ------------------------------------------------------------------------


def test_digits():
    everything, train, test = (open_dataset("digits", split) for split in (None, "train", "test"))
    assert available_splits("digits") == ["train", "test", "all"]
    assert len(everything) == 1797 and everything.sample(0).size == (8, 8) and everything.sample(0).mode == "L"
    assert not set(train.keys) & set(test.keys) and len(train) + len(test) == 1797
    assert np.bincount(test.labels).min() >= 50
    row = int(test.keys[5])
    assert np.array_equal(test.images[5], everything.images[row]) and test.labels[5] == everything.labels[row]
    assert everything.images.max() == 255


def test_synthetic_is_deterministic_and_its_splits_differ():
    train = open_dataset("synthetic:shapes?n=64", "train")
    test = open_dataset("synthetic:shapes?n=64", "test")
    assert (len(train), len(test), train.class_names) == (64, 16, CLASSES)
    assert np.bincount(train.labels).tolist() == [8] * 8 and train.sample(0).size == (32, 32)
    assert train.fingerprint == open_dataset("synthetic:shapes?n=64", "train").fingerprint
    others = [test, open_dataset("synthetic:shapes?n=64&seed=1", "train")]
    assert len({train.fingerprint, *(other.fingerprint for other in others)}) == 3
    assert open_dataset("synthetic:shapes?n=8&size=48", "train").sample(0).size == (48, 48)


def test_synthetic_pixels_are_a_poor_feature():
    from sklearn.neighbors import KNeighborsClassifier

    train, test = (open_dataset("synthetic:shapes?n=1024", split) for split in ("train", "test"))
    knn = KNeighborsClassifier(5).fit(train.images.reshape(1024, -1), train.labels)
    assert knn.score(test.images.reshape(256, -1), test.labels) < 0.3


@pytest.mark.parametrize(
    ("address", "error", "message"),
    [
        ("synthetic:shape", UnknownNameError, "did you mean 'synthetic:shapes'"),
        ("synthetic:shapes?sise=3", UnknownNameError, "did you mean 'size'"),
        ("synthetic:shapes?n=many", DataError, "n must be a whole number"),
        ("synthetic:shapes?size=4", DataError, r"size must be a whole number in 8\.\.256, got '4'"),
    ],
)
def test_synthetic_bad_address(address, error, message):
    with pytest.raises(error, match=message):
        open_dataset(address, "train")
