"""WebDataset shards: what is read equals the folder that they were made from, in threads and processes too."""

from __future__ import annotations

import builtins
import io
import pickle
import tarfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tests.data_fixtures import make_folder, noise
from tests.shard_fixtures import pair, picture, same, shards_of, split_shards, write_tar
from zoo.data.addresses import available_splits, open_dataset
from zoo.data.joined import Joined
from zoo.data.shards import PackedNames, key_and_ending, shard_index
from zoo.errors import ChangedError, DataError, DataWarning


@pytest.fixture
def pets(tmp_path):
    return split_shards(tmp_path)


def test_shards_are_the_folder_they_were_made_from(pets):
    folder, shards = pets
    assert set(available_splits(shards)) == {"train", "test"}
    for address, split in ((shards, "train"), (shards, "test"), (str(shards / "train-*.tar"), None)):
        data = open_dataset(address, split)
        same(data, open_dataset(folder, data.split))
    assert open_dataset(shards, "train").name == "shards"
    joined = open_dataset(shards, "train+test")
    assert isinstance(joined, Joined) and joined.labels.tolist() == open_dataset(folder, "train+test").labels.tolist()
    assert open_dataset(f"webdataset:{shards}", "testing").split == "test"


def test_braces_keep_their_order_and_name_what_is_missing(pets):
    pytest.importorskip("braceexpand")
    _, shards = pets
    data = open_dataset(f"{shards}/train-{{0001,0000}}.tar")
    parts = [open_dataset(shards / f"train-000{i}.tar") for i in (1, 0)]
    assert list(data.keys) == [key for part in parts for key in part.keys]
    with pytest.raises(DataError, match=r"train-0003\.tar, which is part of .*\{0000\.\.0003\}\.tar, names no file"):
        open_dataset(f"{shards}/train-{{0000..0003}}.tar")


def test_braces_without_their_package(pets, monkeypatch):
    real = builtins.__import__

    def missing(name, *others):
        if name == "braceexpand":
            raise ImportError
        return real(name, *others)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(DataError, match=r'need a package: pip install "encoder-zoo\[webdataset\]"'):
        open_dataset(f"{pets[1]}/train-{{0000..0002}}.tar")
    assert len(open_dataset(pets[1], "train")) == 10


def test_samples_are_those_of_the_webdataset_package(tmp_path):
    """Written and read by the package itself; keys with dots, endings with dots, upper case, members of no sample."""
    wds = pytest.importorskip("webdataset")
    with wds.ShardWriter(str(tmp_path / "x-%04d.tar"), maxcount=3, verbose=0) as out:
        for i in range(7):
            out.write({"__key__": f"a.b/{i:03d}", "png": picture(i), "cls": i % 3, "json": {"i": i}, "seg.png": b"x"})
    write_tar(tmp_path / "x-0003.tar", [("./c/9.PNG", picture(9)), ("./c/9.cls", b"1"), ("__info__/x.png", b"")])
    paths = [str(path) for path in sorted(tmp_path.glob("*.tar"))]
    package = list(wds.WebDataset(paths, shardshuffle=False, empty_check=False))
    with pytest.warns(DataWarning, match=r"members of samples that were not used: 7 \.json, 7 \.seg\.png"):
        data = open_dataset(tmp_path)
    assert [key_and_ending(key)[0] for key in data.keys] == [sample["__key__"].removeprefix("./") for sample in package]
    assert [data.content(i) for i in range(len(data))] == [sample["png"] for sample in package]
    assert data.labels.tolist() == [int(sample["cls"]) for sample in package]


@pytest.mark.parametrize(
    ("beside", "options", "labels", "names"),
    [
        ({"cls": b"2"}, "", [0], ("2",)),
        ({"cls": b"cat\n"}, "", [0], ("cat",)),
        ({"json": b'{"Label": "eel", "id": 3}'}, "", [0], ("eel",)),
        ({"json": b'{"label": 7, "kind": "x"}'}, "#label=json:kind", [0], ("x",)),
        ({"txt": b"a cat"}, "", None, ()),
        ({"txt": b"cat"}, "#label=txt", [0], ("cat",)),
        ({"cls": b"3"}, "#label=none", None, ()),
        ({"cls": b"-1"}, "", None, ()),
        ({"cls": b"3"}, "#label=folder", [0], ("pets",)),
        ({"json": b"[1, 2]"}, "", None, ()),
    ],
)
@pytest.mark.filterwarnings("ignore::zoo.errors.DataWarning")
def test_where_labels_come_from(tmp_path, beside, options, labels, names):
    path = write_tar(tmp_path / "x.tar", {"pets/0.png": picture(0), **{f"pets/0.{k}": v for k, v in beside.items()}})
    data = open_dataset(f"{path}{options}", "all")
    assert (None if data.labels is None else data.labels.tolist(), data.class_names) == (labels, names)


@pytest.mark.filterwarnings("ignore::zoo.errors.DataWarning")
def test_labels_divide_shards_without_splits_as_a_folder(tmp_path):
    folder = make_folder(tmp_path / "pets", splits=())
    shards_of(open_dataset(folder, "all"), tmp_path / "shards", 2)
    for split in ("train", "test"):
        same(open_dataset(tmp_path / "shards", split), open_dataset(folder, split))


def test_a_folder_packed_by_tar_needs_no_unpacking(tmp_path):
    folder = make_folder(tmp_path / "pets", splits=())
    with tarfile.open(tmp_path / "pets.tar", "w") as archive:
        archive.add(folder, ".", filter=lambda info: info)
        info = tarfile.TarInfo("./._cat.png")
        archive.addfile(info)
    # tarfile adds in the order of names, as `tar --sort=name` does
    with pytest.warns(DataWarning, match="1 hidden"):
        data = open_dataset(f"{tmp_path / 'pets.tar'}#label=folder", "all")
    same(data, open_dataset(folder, "all"))


def test_folders_of_img2dataset_are_shards_and_folders_of_pictures_are_none(tmp_path):
    write_tar(tmp_path / "a" / "00000.tar", {"000.jpg": picture(0, "JPEG"), "000.txt": b"x", "000.json": b"{}"})
    (tmp_path / "a" / "00000.parquet").write_bytes(b"")
    (tmp_path / "a" / "00000_stats.json").write_text("{}")
    with pytest.warns(DataWarning, match=r"not used: 1 \.json, 1 \.txt"):
        assert len(open_dataset(tmp_path / "a")) == 1
    make_folder(tmp_path / "b")
    write_tar(tmp_path / "b" / "original.tar", {"000.png": picture(0)})
    assert open_dataset(tmp_path / "b", "train").class_names == ("cat", "dog")


# --- changes, caches, threads ----------------------------------------------------------------------


def test_a_shard_that_is_replaced_is_noticed(pets, tmp_path):
    _, shards = pets
    data = open_dataset(shards, "train")
    before = data.fingerprint
    write_tar(shards / "train-0001.tar", pair("cat/77", 77, b"cat"))
    with pytest.raises(ChangedError, match="changed while they were read"):
        data.check_unchanged()
    assert open_dataset(shards, "train").fingerprint != before
    cut = shards / "test-0000.tar"
    test = open_dataset(shards, "test")
    cut.write_bytes(cut.read_bytes()[:600])
    with pytest.raises(DataError, match=r"ends within .*dog/4\.png; it was cut off"):
        test.content(len(test) - 1)
    cut.unlink()
    with pytest.raises(DataError, match=r"test-0000\.tar cannot be read \(No such file"):
        test.content(0)


def test_the_index_is_kept_and_a_damaged_one_is_made_again(pets, monkeypatch, tmp_path):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    path = str(pets[1] / "train-0000.tar")
    first = shard_index(path)
    (kept,) = (tmp_path / "cache" / "shards").glob("*.npz")
    monkeypatch.setattr(tarfile, "open", None)  # a second pass would fail
    again = shard_index(path)
    assert list(again.names) == list(first.names) and again.offsets.tolist() == first.offsets.tolist()
    assert again.values == first.values == ["cat"] and again.codes.dtype == np.int32
    monkeypatch.undo()
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    kept.write_bytes(kept.read_bytes()[:100])
    assert list(shard_index(path).names) == list(first.names)


def test_names_are_packed():
    names = ["a", "", "äö", "x\udcff"]
    blobs = [name.encode("utf-8", "surrogateescape") for name in names]
    packed = PackedNames(b"".join(blobs), np.cumsum([len(blob) for blob in blobs]))
    assert list(packed) == names and packed[-1] == names[-1]
    assert packed[1:3] == names[1:3] and packed[np.int64(2)] == "äö"
    with pytest.raises(IndexError):
        packed[4]


def test_threads_and_pickles_read_the_same(pets):
    data = open_dataset(pets[1], "train")
    whole = [data.content(i) for i in range(len(data))]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(data.content, list(range(len(data))) * 20)) == whole * 20
    other = pickle.loads(pickle.dumps(data))
    assert [other.content(i) for i in range(len(other))] == whole and list(other.keys) == list(data.keys)


def test_long_names(tmp_path):
    """GNU and pax headers hold names of more than 100 letters; a byte order mark and JSON in Latin letters."""
    long = "d" * 120 + "/" + "é" * 90
    for kind in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        path = tmp_path / f"{kind}.tar"
        with tarfile.open(path, "w", format=kind) as archive:
            for name, content in pair(long):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        data = open_dataset(path, "all")
        assert list(data.keys) == [f"{long}.png"] and np.array_equal(np.asarray(data.sample(0)), noise(0))


def test_features_are_those_of_the_folder(pets, tmp_path):
    import zoo

    folder, shards = pets
    encoder = zoo.load("simclr_airbench95_cifar10")
    table = zoo.extract(encoder, open_dataset(shards, "train"), batch_size=4, out=tmp_path / "shards.npz")
    wanted = zoo.extract(encoder, open_dataset(folder, "train"), batch_size=4)
    assert np.array_equal(table.features, wanted.features) and table.labels.tolist() == wanted.labels.tolist()
    assert list(table.keys) == list(wanted.keys) and table.origin == wanted.origin


def test_the_command_line_extracts_from_a_pattern(pets, tmp_path, monkeypatch):
    from zoo import cli

    out = tmp_path / "features.npz"
    assert cli.main(["extract", "simclr_airbench95_cifar10", f"{pets[1]}/test-*.tar", "--out", str(out)]) == 0
    assert len(np.load(out, allow_pickle=False)["features"]) == 10
