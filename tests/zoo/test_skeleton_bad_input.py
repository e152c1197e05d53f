"""What people hand over by mistake, through `zoo.extract`: a clear sentence, or the documented handling."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import zoo
from zoo.architectures import build
from zoo.data.addresses import open_dataset
from zoo.errors import DataError, InputError
from zoo.preprocessing.skeleton import SkeletonInput
from zoo.strict import Architecture


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    steps = ("fill_untracked", "despike", "centre_sequence", "align_mean", "scale_torso", "resample:12")
    return build(Architecture(family="skeleton_gru", arguments={"hidden": 6}), SkeletonInput(steps=steps)).eval()


def walk(frames=10, points=20, channels=3, seed=0):
    return np.random.default_rng(seed).normal(size=(frames, points, channels)).astype(np.float32)


def with_nan():
    x = walk()
    x[3, 4] = np.nan
    return x


@pytest.mark.parametrize(
    ("sequences", "message"),
    [
        ([walk(), walk(0)], "sample '1': the skeleton sequence has no frame"),
        ([], "got an empty one"),
        ([walk(), with_nan()], "sample '1': .* NaN or infinite coordinates, first in frame 3; mark untracked"),
        ([walk(points=25)], r"expected a skeleton sequence \(T, 20, 3\) \(kinect_v1.*got \(10, 25, 3\)"),
        ([walk(channels=2)], r"got \(10, 20, 2\)"),
        ([walk(3, 10, 20)], "the order of the axes"),
        ([walk()[0]], r"expected one skeleton sequence .* got shape \(20, 3\)"),
        (["walk.json"], "of numbers, got ndarray of <U9"),
    ],
)
def test_what_cannot_be_used_is_named(encoder, sequences, message):
    with pytest.raises(InputError, match=message):
        zoo.extract(encoder, sequences)


def test_one_frame_mixed_lengths_and_missing_joints_are_taken(encoder):
    lost = walk()
    lost[:, 5] = 0
    table = zoo.extract(encoder, [walk(1), walk(7), walk(300), lost, np.zeros((9, 20, 3))])
    assert table.features.shape == (5, 12) and np.isfinite(table.features).all()


def test_of_two_bodies_the_one_that_moves_is_taken(encoder):
    still = np.repeat(walk(1, seed=1), 10, axis=0)
    moving = walk()
    both = np.concatenate([still, moving], axis=1)
    alone, chosen = (zoo.extract(encoder, [x], precision="fp32").features for x in (moving, both))
    np.testing.assert_array_equal(chosen, alone)


def test_labels_off_by_one_are_seen_even_where_each_is_possible(tmp_path):
    for action, label in ((1, 2), (2, 3), (8, 8)):
        item = {"file_name": "x", "skeletons": walk(4).tolist(), "label": label}
        (tmp_path / f"a{action:02d}_s01_e00_v01.json").write_text(json.dumps(item))
    with pytest.raises(DataError, match=r"a01 \(pick up with one hand\) carry label 2, expected 1; are labels off"):
        open_dataset(tmp_path, "train")
    (tmp_path / "a01_s01_e00_v01.json").write_text(json.dumps({**item, "label": 1}))
    (tmp_path / "a02_s01_e00_v01.json").rename(tmp_path / "a07_s01_e00_v01.json")
    with pytest.raises(DataError, match="no action a07 in N-UCLA; its actions are a01"):
        open_dataset(tmp_path, "train")
