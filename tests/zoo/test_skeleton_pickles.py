"""pyskl annotation files, and the pickle reader that runs nothing."""

from __future__ import annotations

import os
import pickle
import struct

import numpy as np
import pytest

from zoo.data.addresses import available_splits, open_dataset
from zoo.data.pairs import check_pair
from zoo.data.readers.restricted_pickle import load_plain
from zoo.errors import DataError, DataWarning


def annotation(name="a", label=0, shape=(1, 4, 25, 3), dtype=np.float16):
    return {"frame_dir": name, "label": label, "total_frames": shape[1], "keypoint": np.ones(shape, dtype)}


def pyskl(path, protocol=4, **changes):
    items = [annotation("a"), annotation("b", 2, (2, 3, 25, 3)), annotation("c", np.int64(1))]
    content = {"split": {"xsub_train": ["a", "c"], "xsub_val": ["b"]}, "annotations": items, **changes}
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", range(6))
def test_pyskl_files_of_every_protocol(tmp_path, protocol):
    path = pyskl(tmp_path / "ntu60_3danno.pkl", protocol)
    assert available_splits(path) == ["xsub_train", "xsub_val", "all"]
    train = open_dataset(path, "xsub_train")
    assert train.keys == ["a", "c"] and train.labels.tolist() == [0, 1] and len(train.class_names) == 3
    x = train.sample(0)
    assert x.shape == (4, 50, 3) and x[:, :25].all() and not x[:, 25:].any() and x.dtype == np.float32
    assert open_dataset(path, "xsub_val").sample(0).all()
    assert train.layout == "kinect_v2"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"annotations": []}, "'annotations'"),
        ({"split": ["a"]}, "must map names"),
        ({"annotations": [annotation(shape=(1, 4, 17, 2))]}, "2-D files"),
        ({"annotations": [annotation(shape=(1, 4, 17, 3))]}, "17"),
        ({"annotations": [annotation(shape=(1, 0, 25, 3))]}, "1 annotations without a body or frame"),
        ({"annotations": [annotation("a", "wave"), annotation("b", 1)]}, "1 as text and 1 as numbers"),
        ({"annotations": [annotation(label=0.5)]}, "labels must be whole numbers from 0, or all text, got 0.5"),
        ({"annotations": [annotation(label=-1)]}, "count from 0"),
        ({"annotations": [{"label": 1}]}, "'keypoint'"),
    ],
)
def test_pyskl_refuses_other_contents(tmp_path, changes, message):
    with pytest.raises(DataError, match=message):
        open_dataset(pyskl(tmp_path / "x.pkl", **changes), "all")


def test_what_a_split_lacks_is_counted_and_said(tmp_path):
    items = [annotation(name) for name in "ab"] + [
        annotation("c", shape=(0, 4, 25, 3)),
        annotation("d") | {"keypoint": []},
    ]
    path = pyskl(
        tmp_path / "x.pkl", split={"xsub_train": ["a", "c", "d", "y", "z"], "xsub_val": ["a", "b"]}, annotations=items
    )
    with pytest.warns(DataWarning, match="5 seen, 1 taken, 4 left out: 2 sequences that the split lists") as said:
        train = open_dataset(path, "xsub_train")
    assert train.keys == ["a"] and train.report.left["annotations without a body or frame"] == ("c", "d")
    assert train.report.left["sequences that the split lists but the file does not hold"] == ("y", "z")
    assert "1 of its sequences are in xsub_val as well, such as a" in str(said[0].message)
    with pytest.raises(DataError, match="share 1 of 2 samples"):
        check_pair(train, open_dataset(path, "xsub_val"))


def test_text_labels_and_groups_from_names(tmp_path):
    names = [f"S00{i}C00{3 - i}P01{i}R001A00{i}" for i in (1, 2)]
    items = [annotation(names[0], "wave"), annotation(names[1], "clap")]
    data = open_dataset(pyskl(tmp_path / "x.pkl", split={"xsub_train": names}, annotations=items), "xsub_train")
    assert data.class_names == ("clap", "wave") and data.labels.tolist() == [1, 0]
    groups = {kind: values.tolist() for kind, values in data.groups.items()}
    assert groups == {"person": [11, 12], "camera": [2, 1], "setup": [1, 2]}


class Evil:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    "value",
    [
        Evil(os.system, "touch owned"),
        Evil(eval, "open('owned', 'w')"),
        Evil(np.load, "owned"),
        Evil(getattr, 1, "real"),
        Evil(np.ndarray, (10**6,)),
        np.array([Evil(os.system, "touch owned")], dtype=object),
        np.zeros(2, dtype=[("a", "f4")]),
        object(),
    ],
    ids=["system", "eval", "np.load", "getattr", "huge array", "object array", "record array", "object"],
)
def test_a_pickle_of_anything_else_is_refused_unrun(tmp_path, monkeypatch, value):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps({"annotations": [value]}))
    with pytest.raises(DataError, match="refused"):
        load_plain(path)
    assert not (tmp_path / "owned").exists()


def test_plain_values_come_back_as_they_were(tmp_path):
    shared = [1, 2]
    value = {
        "list": [shared, shared],
        "tuple": (1.5, "ä", None, True, b"x"),
        "f": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "big": np.arange(3, dtype=">i4"),
        "text": np.array(["a", "bc"]),
        "bool": np.array([True, False]),
        "empty": np.zeros((0, 3), np.float32),
        "scalar": np.float32(2.5),
        "objects": np.array([[1], [2, 3]], dtype=object),
    }
    for protocol in range(6):
        path = tmp_path / "plain.pkl"
        path.write_bytes(pickle.dumps(value, protocol=protocol))
        found = load_plain(path)
        for key in ("f", "big", "text", "bool", "empty"):
            np.testing.assert_array_equal(found[key], value[key])
            assert found[key].dtype == value[key].dtype
        assert found["list"] == value["list"] and found["tuple"] == value["tuple"] and found["scalar"] == 2.5
        assert found["objects"] == [[1], [2, 3]]


def test_a_pickle_cannot_ask_for_memory_nesting_or_circles(tmp_path):
    path = tmp_path / "x.pkl"
    content = pickle.dumps(np.zeros(4, np.float64), protocol=2)
    path.write_bytes(content.replace(b"K\x04\x85", b"J" + struct.pack("<i", 2**31 - 1) + b"\x85"))
    with pytest.raises(DataError, match="does not fit its bytes"):
        load_plain(path)
    circle: list = []
    circle.append(circle)
    deep: list = []
    for _ in range(100):
        deep = [deep]
    for value in (circle, deep):
        path.write_bytes(pickle.dumps(value))
        with pytest.raises(DataError, match="nested too deep"):
            load_plain(path)
    wide: list = [0]
    for _ in range(25):
        wide = [wide, wide]
    path.write_bytes(pickle.dumps(wide))
    assert len(load_plain(path)) == 2


def test_hundreds_of_damaged_pickles_end_in_one_error(tmp_path):
    good = pyskl(tmp_path / "good.pkl", protocol=2).read_bytes()
    generator, path = np.random.default_rng(0), tmp_path / "bad.pkl"
    refused = 0
    for _ in range(300):
        data = bytearray(good)
        for _ in range(3):
            data[generator.integers(len(data))] = generator.integers(256)
        path.write_bytes(data[: generator.integers(1, len(data) + 1)])
        try:
            load_plain(path)
        except DataError:
            refused += 1
    assert refused > 150
