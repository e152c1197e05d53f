"""NTU as CTR-GCN prepares it."""

from __future__ import annotations

import numpy as np
import pytest

from zoo.data.addresses import available_splits, open_dataset
from zoo.data.pairs import check_pair
from zoo.errors import DataError, DataWarning

RNG = np.random.default_rng(0)


def ctr_gcn(path, **changes):
    """Four training and two test sequences of up to 6 frames, two of them of one body; the last has no frame."""
    content = {}
    for split, lengths in (("train", (6, 2, 4, 0)), ("test", (3, 5))):
        x = np.zeros((len(lengths), 6, 150), np.float32)
        for row, length in enumerate(lengths):
            x[row, :length] = RNG.random((length, 150))
            if row % 2:
                x[row, :, 75:] = 0  # a single body
        content |= {f"x_{split}": x, f"y_{split}": np.eye(60)[np.arange(len(lengths))]}
    np.savez(path, **(content | changes))
    return content | changes


def test_both_splits_as_the_authors_read_them(tmp_path):
    path = tmp_path / "NTU60_CS.npz"
    content = ctr_gcn(path)
    assert available_splits(path) == ["train", "test"]
    with pytest.warns(DataWarning, match="4 seen, 3 taken, 1 left out: 1 sequences without a frame"):
        train = open_dataset(path, "train")
    test = open_dataset(path, "test")
    assert train.name == "ntu60_cs" and train.layout == "kinect_v2" and len(train.class_names) == 60
    assert train.labels.tolist() == [0, 1, 2] and [len(train.sample(i)) for i in range(3)] == [6, 2, 4]
    # Their feeder: (N, T, 2 bodies, 25 joints, 3).
    expected = content["x_train"][0].reshape(6, 2, 25, 3)
    assert np.array_equal(train.sample(0).reshape(6, 2, 25, 3), expected)
    assert train.sample(1)[:, :25].all() and not train.sample(1)[:, 25:].any()
    assert open_dataset(f"ctrgcn:{path}", "test").fingerprint == test.fingerprint
    check_pair(train, test)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_train": np.zeros((4, 6, 75), np.float32)}, r"floats \(N, T, 150\), got float32 \(4, 6, 75\)"),
        ({"y_train": np.zeros((4, 60))}, "row 0 of y_train must have a single class, got 0"),
        ({"y_train": np.zeros(3, int)}, r"y_train must be \(4, classes\) or \(4,\)"),
        ({"x_train": np.zeros((4, 6, 150), np.float32)}, "every sequence of x_train is empty"),
    ],
)
def test_other_arrays_are_refused(tmp_path, changes, message):
    ctr_gcn(tmp_path / "x.npz", **changes)
    with pytest.raises(DataError, match=message):
        open_dataset(tmp_path / "x.npz", "train")
