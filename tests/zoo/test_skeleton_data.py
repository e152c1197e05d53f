"""Readers of skeleton formats: what they give, what they leave out, and what broken files say."""

from __future__ import annotations

import json
import logging
import os
import pickle
import struct

import numpy as np
import pytest

from zoo.config import SkeletonInput
from zoo.data import available_splits, open_dataset
from zoo.data.motion import ACTIONS, forward_kinematics, rotation_matrices
from zoo.data.restricted_pickle import load_plain
from zoo.data.sequence_store import sequence_store
from zoo.data.skeleton import facts_of, summarise
from zoo.data.skeleton_arrays import save_npz
from zoo.data.skeleton_ntu import SUBJECTS_60, SUBJECTS_120
from zoo.errors import DataError, UnknownNameError
from zoo.skeleton_transforms import SkeletonTransform

RNG = np.random.default_rng(0)

# -- N-UCLA ----------------------------------------------------------------------------------------


def write_nucla(folder, action, subject, episode, view, frames=None, label=None, **changes):
    frames = RNG.normal(size=(5, 20, 3)).round(4) if frames is None else frames
    name = f"a{action:02d}_s{subject:02d}_e{episode:02d}_v{view:02d}"
    item = {"file_name": name, "skeletons": np.asarray(frames).tolist(), "label": action if label is None else label}
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps({**item, **changes}))
    return np.asarray(frames)


@pytest.fixture
def nucla(tmp_path):
    """Four training sequences (cameras 1, 2), three of camera 3, of which one is a copy from camera 2."""
    root = tmp_path / "nucla"
    write_nucla(root, 1, 1, 0, 1)
    copied = write_nucla(root, 1, 1, 0, 2)
    write_nucla(root, 2, 2, 0, 1)
    write_nucla(root, 2, 2, 1, 2, frames=RNG.normal(size=(1, 20, 3)))
    write_nucla(root, 1, 1, 0, 3, frames=copied)
    write_nucla(root, 2, 2, 0, 3)
    write_nucla(root, 2, 2, 1, 3)
    return root


def test_nucla_has_an_official_and_a_leak_free_split(nucla, caplog):
    assert available_splits(nucla) == ["train", "test", "train-leakfree", "test-leakfree", "all"]
    with caplog.at_level(logging.WARNING, logger="zoo.data"):
        test = open_dataset(nucla, "test")
    assert "1 of 3 test sequences (33.3 %) are identical" in caplog.text
    assert facts_of(test).notes and test.modality == "skeleton"
    counts = {split: len(open_dataset(nucla, split)) for split in available_splits(nucla)}
    assert counts == {"train": 4, "test": 3, "train-leakfree": 3, "test-leakfree": 2, "all": 7}
    assert "a01_s01_e00_v02" not in open_dataset(nucla, "train-leakfree").keys
    assert "a01_s01_e00_v03" not in open_dataset(nucla, "test-leakfree").keys
    train = open_dataset(f"nucla:{nucla}", "train")
    assert train.labels.tolist() == [0, 0, 1, 1] and facts_of(train).groups.tolist() == [1, 1, 2, 2]
    assert [train.sample(i).shape for i in range(4)] == [(5, 20, 3)] * 3 + [(1, 20, 3)]
    assert facts_of(train.subset([2, 0])).groups.tolist() == [2, 1]
    assert summarise(open_dataset(nucla, "all")).duplicates == 1
    with pytest.raises(UnknownNameError, match="test-leakfree"):
        open_dataset(nucla, "test-leakfre")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"skeletons": [[[0, 0, 0]] * 25]}, "got shape"),
        ({"skeletons": []}, "T >= 1"),
        ({"skeletons": [[[float("nan"), 0, 0]] * 20]}, "finite"),
        ({"label": 0}, "1..10"),
        ({"label": 11}, "off by one"),
        ({"label": "1"}, "1..10"),
        ({"label": 3}, "expected one label"),
    ],
)
def test_nucla_refuses_what_cannot_be_right(nucla, changes, message):
    write_nucla(nucla, 1, 3, 0, 1, **{"label": 1, **changes})
    with pytest.raises(DataError, match=message):
        open_dataset(nucla, "train")


def test_a_damaged_nucla_file_is_named(nucla):
    (nucla / "a01_s01_e00_v01.json").write_text("{")
    with pytest.raises(DataError, match=r"a01_s01_e00_v01\.json"):
        open_dataset(nucla, "train")


def test_fingerprint_follows_the_content(nucla):
    before = open_dataset(nucla, "train").fingerprint
    assert before == open_dataset(nucla, "train").fingerprint != open_dataset(nucla, "test").fingerprint
    write_nucla(nucla, 2, 2, 0, 1)
    assert open_dataset(nucla, "train").fingerprint != before


@pytest.mark.skipif(not os.path.isdir("data/nucla"), reason="needs the real data in data/nucla")
def test_the_real_nucla():
    counts = {split: len(open_dataset("data/nucla", split)) for split in available_splits("data/nucla")}
    assert counts == {"train": 1020, "test": 464, "train-leakfree": 925, "test-leakfree": 369, "all": 1484}
    with open("data/nucla_duplicates.txt") as file:
        pairs = [line.split() for line in file]
    assert not {copy for copy, _ in pairs} & set(open_dataset("data/nucla", "test-leakfree").keys)
    assert not {original for _, original in pairs} & set(open_dataset("data/nucla", "train-leakfree").keys)


# -- NTU RGB+D -------------------------------------------------------------------------------------


def ntu_text(bodies_per_frame) -> str:
    """`[[(id, xyz (25, 3)), ...], ...]` as the text of a `.skeleton` file."""
    lines = [str(len(bodies_per_frame))]
    for bodies in bodies_per_frame:
        lines.append(str(len(bodies)))
        for name, xyz in bodies:
            lines += [f"{name} 0 1 1 1 1 0 0.1 0.2 2", "25"]
            lines += [" ".join(f"{v:.6f}" for v in point) + " 1 2 3 4 0 0 0 1 2" for point in xyz]
    return "\n".join(lines) + "\n"


@pytest.fixture
def ntu(tmp_path):
    root = tmp_path / "skeletons"
    root.mkdir()
    still = np.ones((25, 3))
    for name, frames in {
        "S001C001P001R001A001": [[("7", still + t)] for t in range(3)],
        "S001C002P003R001A050": [[("7", still)], [("7", still), ("9", still * 2 + 1)], [("9", still * 3)]],
        "S002C003P001R002A060": [[], [("7", still)]],
        "S001C001P003R001A002": [[("7", still)]],
    }.items():
        (root / f"{name}.skeleton").write_text(ntu_text(frames))
    (tmp_path / "NTU_RGBD_samples_with_missing_skeletons.txt").write_text("header\nS001C001P003R001A002\n")
    return root


def test_ntu_bodies_splits_and_missing_list(ntu):
    assert available_splits(ntu) == ["xsub-train", "xsub-test", "xview-train", "xview-test", "all"]
    data = open_dataset(ntu, "all")
    assert data.keys == ["S001C001P001R001A001", "S001C002P003R001A050", "S002C003P001R002A060"]
    assert data.labels.tolist() == [0, 49, 59] and len(data.class_names) == 60
    assert "1 files on the list" in facts_of(data).notes[0]
    assert [data.sample(i).shape for i in range(3)] == [(3, 50, 3), (3, 50, 3), (2, 50, 3)]
    pair = data.sample(1).reshape(3, 2, 25, 3)
    np.testing.assert_allclose(pair[2, 1, 0] + pair[2, 0, 0], [3, 3, 3])
    assert not pair[0].any(axis=(1, 2)).all(), "a body that comes later is zero before"
    assert not data.sample(2)[0].any()
    assert open_dataset(ntu, "xsub-train").keys == ["S001C001P001R001A001", "S002C003P001R002A060"]
    assert open_dataset(ntu, "xview-test").keys == ["S001C001P001R001A001"]
    assert available_splits(f"ntu120:{ntu}") == ["xsub-train", "xsub-test", "xset-train", "xset-test", "all"]
    assert open_dataset(f"ntu120:{ntu}", "xset-train").keys == ["S002C003P001R002A060"]
    assert len(data.fingerprint) == 64


def test_ntu_subject_lists():
    assert len(set(SUBJECTS_60)) == 20 and len(set(SUBJECTS_120)) == 53 and set(SUBJECTS_60) < set(SUBJECTS_120)


def test_ntu_nan_lines_are_untracked(ntu):
    xyz = np.ones((25, 3))
    xyz[4] = np.nan
    (ntu / "S001C001P001R001A001.skeleton").write_text(ntu_text([[("7", xyz)]]))
    x = open_dataset(ntu, "all").sample(0)
    assert not x[0, 4].any() and x[0, 5].all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no NTU skeleton file"),
        ("2\n1\n", "ends too early|no NTU"),
        ("99999999\n", "a count of"),
        ("1\n1\n7 0\n24\n", "25 joints"),
        ("0\n", "no frame"),
        ("binary \x00\n", "no NTU skeleton file"),
    ],
)
def test_a_damaged_ntu_file_is_named(ntu, text, message):
    (ntu / "S001C001P001R001A001.skeleton").write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        open_dataset(ntu, "all").sample(0)
    assert "S001C001P001R001A001.skeleton" in str(caught.value)


# -- PKU-MMD ---------------------------------------------------------------------------------------


@pytest.fixture
def pku(tmp_path):
    root = tmp_path / "pku"
    for name, count in (("0002-L", 10), ("0003-M", 6)):
        for folder in ("skeleton", "label", "split"):
            (root / folder).mkdir(parents=True, exist_ok=True)
        rows = np.arange(count)[:, None] + np.zeros(150)
        (root / "skeleton" / f"{name}.txt").write_text("\n".join(" ".join(f"{v:g}" for v in row) for row in rows))
    (root / "label" / "0002-L.txt").write_text("1,1,3,2\n51,8,99,1\n4,7,5,1\n")
    (root / "label" / "0003-M.txt").write_text("2,2,2,1\n")
    (root / "split" / "cross-subject.txt").write_text("Training videos:\n0002-L, \nValidation videos:\n0003-M, \n")
    return root


def test_pku_clips(pku):
    data = open_dataset(pku, "all")
    assert data.keys == ["0002-L:1-3", "0002-L:8-99", "0003-M:2-2"] and data.labels.tolist() == [0, 50, 1]
    assert [data.sample(i)[:, 0, 0].tolist() for i in range(3)] == [[0, 1, 2], [7, 8, 9], [1]]
    assert "1 label lines" in facts_of(data).notes[0] and data.sample(0).shape == (3, 50, 3)
    assert open_dataset(f"pku:{pku}", "xsub-train").labels.tolist() == [0, 50]
    assert open_dataset(pku, "xsub-test").labels.tolist() == [1]
    with pytest.raises(DataError, match="cross-view"):
        open_dataset(pku, "xview-train")
    (pku / "label" / "0003-M.txt").write_text("52,1,2,1\n")
    with pytest.raises(DataError, match=r"line 1: class 52"):
        open_dataset(pku, "all")


# -- pyskl, and the restricted pickle ---------------------------------------------------------------


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
    assert facts_of(train).layout == "kinect_v2"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"annotations": []}, "'annotations'"),
        ({"split": ["a"]}, "must map names"),
        ({"annotations": [annotation(shape=(1, 4, 17, 2))]}, "2-D files"),
        ({"annotations": [annotation(shape=(1, 4, 17, 3))]}, "17"),
        ({"annotations": [annotation(shape=(1, 0, 25, 3))]}, "got shape"),
        ({"annotations": [annotation(label=-1)]}, "count from 0"),
        ({"annotations": [{"label": 1}]}, "'keypoint'"),
    ],
)
def test_pyskl_refuses_other_contents(tmp_path, changes, message):
    with pytest.raises(DataError, match=message):
        open_dataset(pyskl(tmp_path / "x.pkl", **changes), "all")


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


# -- NumPy files -----------------------------------------------------------------------------------


def test_npz_round_trip(tmp_path):
    data = open_dataset("synthetic:motion?n=16", "train")
    save_npz(data, tmp_path / "motion.npz")
    assert available_splits(tmp_path / "motion.npz") == ["train"]
    again = open_dataset(tmp_path / "motion.npz")
    assert all(np.array_equal(again.sample(i), data.sample(i)) for i in range(16))
    assert again.labels.tolist() == data.labels.tolist() and again.class_names == data.class_names
    assert facts_of(again).groups.tolist() == facts_of(data).groups.tolist() and again.licence == data.licence
    assert again.fingerprint == data.fingerprint


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": None}, "has no frames"),
        ({"frames": np.zeros((5, 20, 2))}, r"\(F, V, 3\)"),
        ({"frames": np.full((5, 20, 3), np.inf)}, "finite"),
        ({"frames": np.zeros((5, 17, 3))}, "layout"),
        ({"lengths": np.array([5, 0])}, "leave empty sequences out"),
        ({"lengths": np.array([5, 1])}, "sum to 6"),
        ({"labels": np.array([0])}, r"expected \(2,\)"),
        ({"labels": np.array([0.0, 1.0])}, "whole numbers"),
        ({"labels": np.array([0, 5]), "class_names": np.array(["a", "b"])}, "expected 0..1"),
        ({"keys": np.array([{}, {}], dtype=object)}, "without pickle"),
    ],
)
def test_npz_refuses_what_does_not_fit(tmp_path, changes, message):
    content = {"frames": np.zeros((5, 20, 3)), "lengths": np.array([3, 2]), **changes}
    np.savez(tmp_path / "x.npz", **{key: value for key, value in content.items() if value is not None})
    with pytest.raises(DataError, match=message):
        open_dataset(tmp_path / "x.npz", "all")


def test_nctvm_arrays(tmp_path):
    data = np.zeros((3, 3, 8, 25, 2), np.float32)
    data[0, :, :5], data[1, :, :8, :, 0], data[2] = 1.0, 2.0, 0.0
    np.save(tmp_path / "train_data_joint.npy", data)
    (tmp_path / "train_label.pkl").write_bytes(pickle.dumps((["a", "b", "c"], [4, 0, 1])))
    found = open_dataset(tmp_path / "train_data_joint.npy")
    assert [len(found.sample(i)) for i in range(3)] == [5, 8, 1] and found.keys == ["a", "b", "c"]
    assert found.labels.tolist() == [4, 0, 1] and not found.sample(1)[:, 25:].any()
    np.save(tmp_path / "train_num_frame.npy", np.array([2, 3, 4]))
    assert [len(open_dataset(tmp_path / "train_data_joint.npy").sample(i)) for i in range(3)] == [2, 3, 4]
    (tmp_path / "train_label.pkl").write_bytes(pickle.dumps((["a"], [4])))
    with pytest.raises(DataError, match="labels of shape"):
        open_dataset(tmp_path / "train_data_joint.npy")
    (tmp_path / "train_label.pkl").unlink()
    with pytest.raises(DataError, match="no label file"):
        open_dataset(tmp_path / "train_data_joint.npy")
    np.save(tmp_path / "train_data_joint.npy", data[:, :, :, :17])
    with pytest.raises(DataError, match=r"\(N, 3, T, V, M\)"):
        open_dataset(tmp_path / "train_data_joint.npy")


# -- synthetic motion, and the store ---------------------------------------------------------------


def test_motion_is_reproducible_labelled_and_plausible():
    train, test = (open_dataset("synthetic:motion?n=40&seed=3", split) for split in ("train", "test"))
    assert train.fingerprint == open_dataset("synthetic:motion?n=40&seed=3", "train").fingerprint
    assert train.fingerprint != open_dataset("synthetic:motion?n=40&seed=4", "train").fingerprint
    assert train.class_names == tuple(ACTIONS) and (np.bincount(train.labels) == 5).all()
    assert not set(facts_of(train).groups) & set(facts_of(test).groups)
    lengths = {len(train.sample(i)) for i in range(40)}
    assert min(lengths) >= 20 and len(lengths) > 10
    for i in range(8):
        x = train.sample(i)
        thigh = np.linalg.norm(x[:, 13] - x[:, 12], axis=-1)
        assert 0.3 < thigh.mean() < 0.6 and thigh.std() < 0.05, "bones keep their length"
    with pytest.raises(DataError, match="n must be a whole number"):
        open_dataset("synthetic:motion?n=2", "train")
    with pytest.raises(UnknownNameError, match="'seed'"):
        open_dataset("synthetic:motion?sed=2", "train")


def test_forward_kinematics():
    angles = np.zeros((1, 20, 3))
    offsets = np.zeros((20, 3))
    offsets[[1, 2, 3]] = [0, 1, 0]
    angles[0, 1] = [0, 0, np.pi / 2]
    x = forward_kinematics(angles, offsets)
    np.testing.assert_allclose(x[0, [1, 2, 3]], [[0, 1, 0], [-1, 1, 0], [-2, 1, 0]], atol=1e-12)
    matrices = rotation_matrices(RNG.normal(size=(5, 3)))
    np.testing.assert_allclose(matrices @ matrices.swapaxes(1, 2), np.broadcast_to(np.eye(3), (5, 3, 3)), atol=1e-12)


def test_the_store_holds_what_the_transform_gives(nucla, tmp_path):
    data, transform = open_dataset(nucla, "train"), SkeletonTransform(SkeletonInput(steps=("centre_frames",)))
    store = sequence_store(data, transform, cache_dir=tmp_path / "cache")
    assert len(store) == 4 and store.lengths.tolist() == [5, 5, 5, 1]
    for i in range(4):
        np.testing.assert_array_equal(store.sequence(i), transform.frames(data.sample(i)))
    files = sorted((tmp_path / "cache" / "sequences").glob("*.npy"))
    assert len(files) == 2
    files[0].write_bytes(files[0].read_bytes()[:-8])
    again = sequence_store(data, transform, cache_dir=tmp_path / "cache")
    np.testing.assert_array_equal(again.frames, store.frames)
    with pytest.raises(DataError, match="joint layout"):
        sequence_store(data, SkeletonTransform(SkeletonInput(layout="kinect_v2")), cache_dir=tmp_path / "cache")
    with pytest.raises(DataError, match="takes skeletons"):
        sequence_store(open_dataset("synthetic:shapes?n=8", "train"), transform)
