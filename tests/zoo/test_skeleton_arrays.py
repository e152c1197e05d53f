"""Skeletons in NumPy files, and drawn motion."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from zoo.data.addresses import available_splits, open_dataset
from zoo.data.readers.synthetic_motion import ACTIONS, forward_kinematics, rotation_matrices
from zoo.errors import DataError, UnknownNameError

RNG = np.random.default_rng(0)


def save_npz(dataset, path):
    """Write any skeleton dataset as the `.npz` that `open_npz` reads."""
    sequences = [dataset.sample(i) for i in range(len(dataset))]
    content = {
        "frames": np.concatenate(sequences).astype(np.float32),
        "lengths": np.array([len(x) for x in sequences], dtype=np.int64),
        "keys": np.array([str(key) for key in dataset.keys]),
        "split": np.array([dataset.split] * len(dataset)),
        "layout": np.array(dataset.layout),
        "licence": np.array(dataset.licence),
    }
    if dataset.labels is not None:
        content |= {"labels": dataset.labels, "class_names": np.array(dataset.class_names)}
    if "person" in dataset.groups:
        content["groups"] = dataset.groups["person"]
    np.savez_compressed(path, **content)


# -- NumPy files -----------------------------------------------------------------------------------


def test_npz_round_trip(tmp_path):
    data = open_dataset("synthetic:motion?n=16", "train")
    save_npz(data, tmp_path / "motion.npz")
    assert available_splits(tmp_path / "motion.npz") == ["train"]
    again = open_dataset(tmp_path / "motion.npz")
    assert all(np.array_equal(again.sample(i), data.sample(i)) for i in range(16))
    assert again.labels.tolist() == data.labels.tolist() and again.class_names == data.class_names
    assert again.groups["person"].tolist() == data.groups["person"].tolist() and again.licence == data.licence
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
    assert not set(train.groups["person"]) & set(test.groups["person"])
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
