"""Readers of NTU RGB+D and PKU-MMD: bodies, splits, clips, and what damaged files say."""

from __future__ import annotations

import numpy as np
import pytest

from zoo.data.addresses import available_splits, open_dataset
from zoo.data.readers.ntu import SUBJECTS_60, SUBJECTS_120
from zoo.errors import DataError

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
    assert "1 files on the list" in str(data.report)
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
    assert "1 label lines" in str(data.report) and data.sample(0).shape == (3, 50, 3)
    assert open_dataset(f"pku:{pku}", "xsub-train").labels.tolist() == [0, 50]
    assert open_dataset(pku, "xsub-test").labels.tolist() == [1]
    with pytest.raises(DataError, match="cross-view"):
        open_dataset(pku, "xview-train")
    (pku / "label" / "0003-M.txt").write_text("52,1,2,1\n")
    with pytest.raises(DataError, match=r"line 1: class 52"):
        open_dataset(pku, "all")
