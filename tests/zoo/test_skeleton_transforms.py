"""Skeleton steps: what each removes, what it keeps, and what broken input gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from zoo.errors import ConfigError, InputError
from zoo.preprocessing.image import ImageInput, ImageTransform
from zoo.preprocessing.joints import LAYOUTS, layout
from zoo.preprocessing.skeleton import SkeletonInput, SkeletonTransform, most_moving
from zoo.preprocessing.steps import STEPS, body_axes, parse_step, rotation

GRAPH = LAYOUTS["kinect_v1"]
EVERY_STEP = [name if name != "resample" else "resample:7" for name in STEPS]


def person(frames: int = 9, seed: int = 0) -> np.ndarray:
    """A standing person with some motion: `(T, 20, 3)`."""
    from zoo.data.readers.synthetic_motion import act

    generator = np.random.Generator(np.random.PCG64(seed))
    x = act("wave", 1, 0.3, generator).astype(np.float64)
    return x[np.linspace(0, len(x) - 1, frames).astype(int)]


def turned(x: np.ndarray, seed: int = 1) -> np.ndarray:
    """Another camera: a random rotation and shift of the whole sequence."""
    generator = np.random.default_rng(seed)
    matrix = np.linalg.qr(generator.normal(size=(3, 3)))[0]
    matrix *= np.sign(np.linalg.det(matrix))
    return x @ matrix.T + generator.normal(size=3)


def apply(x: np.ndarray, *steps: str, bodies: int = 1) -> np.ndarray:
    return SkeletonTransform(SkeletonInput(steps=steps, bodies=bodies)).frames(x)


@pytest.mark.parametrize("name", list(LAYOUTS))
def test_a_layout_is_a_tree_with_a_mirror_image(name):
    graph = layout(name)
    assert len(graph.edges) == len(graph) - 1
    for joint in range(len(graph)):
        seen = set()
        while graph.parents[joint] != joint:
            assert joint not in seen
            seen.add(joint)
            joint = graph.parents[joint]
    assert [graph.mirror[i] for i in graph.mirror] == list(range(len(graph)))
    assert graph.mirror[graph.joints.index("left knee")] == graph.joints.index("right knee")
    assert sorted(j for part in graph.parts.values() for j in part) == list(range(len(graph)))
    for joint, parent in graph.edges:
        sides = {graph.joints[i].split(" ")[0] for i in (joint, parent)} & {"left", "right"}
        assert len(sides) <= 1


def test_kinect_v1_edges_are_those_of_the_data():
    pairs = "0-1 1-2 3-2 4-2 5-4 6-5 7-6 8-2 9-8 10-9 11-10 12-0 13-12 14-13 15-14 16-0 17-16 18-17 19-18"
    expected = {frozenset(map(int, pair.split("-"))) for pair in pairs.split()}
    assert {frozenset(edge) for edge in GRAPH.edges} == expected


@pytest.mark.parametrize(
    "steps", [("ms2l_frames",), ("centre_sequence", "align_first"), ("centre_frames", "align_mean")]
)
def test_alignment_does_not_depend_on_the_camera(steps):
    x = person()
    np.testing.assert_allclose(apply(x, *steps), apply(turned(x), *steps), atol=1e-5)


def test_ms2l_frames_puts_the_left_hip_on_x_and_scales_to_one():
    out = apply(person(), "ms2l_frames").astype(np.float64)
    left, centre = GRAPH.joints.index("left hip"), 0
    np.testing.assert_allclose(out[:, left, 1:], 0, atol=1e-6)
    assert (out[:, left, 0] > 0).all()
    np.testing.assert_allclose(out[:, centre, 2], 0, atol=1e-6)
    assert (out[:, centre, 1] > 0).all()
    np.testing.assert_allclose(np.sqrt(np.square(out).sum((1, 2))), 1, atol=1e-6)
    hips = out[:, [0, left, GRAPH.joints.index("right hip")]].mean(1)
    np.testing.assert_allclose(hips, 0, atol=1e-6)


def test_alignment_can_be_undone():
    x = person()
    matrix = rotation(*body_axes(x[:1], GRAPH))
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-9)
    assert np.linalg.det(matrix) == pytest.approx(1)
    np.testing.assert_allclose(apply(x, "align_first").astype(np.float64) @ matrix, x, atol=1e-5)


def test_align_first_puts_the_spine_on_y_and_the_left_side_on_x():
    out = apply(person(), "align_first")
    lower, upper, left_hip, right_hip, left_shoulder, right_shoulder = out[0, list(GRAPH.axes)]
    spine = upper - lower
    np.testing.assert_allclose(spine[[0, 2]], 0, atol=1e-5)
    side = left_hip - right_hip + left_shoulder - right_shoulder
    assert spine[1] > 0 and side[0] > 0 and abs(side[2]) < 1e-5


def test_centring_keeps_or_removes_travel():
    x = person()
    x[:, :, 2] += np.linspace(0, 3, len(x))[:, None]
    assert np.ptp(apply(x, "centre_sequence")[:, 0, 2]) > 2
    np.testing.assert_allclose(apply(x, "centre_frames")[:, 0], 0, atol=1e-6)


def test_scale_torso_makes_people_alike():
    x = person()
    np.testing.assert_allclose(apply(x, "scale_torso"), apply(3 * x, "scale_torso"), rtol=1e-5)


def test_resample_keeps_ends_and_interpolates():
    x = np.zeros((3, 20, 3)) + np.array([0.0, 1.0, 2.0])[:, None, None] + 1
    out = apply(x, "resample:5")
    np.testing.assert_allclose(out[:, 0, 0], [1, 1.5, 2, 2.5, 3])
    assert apply(x[:1], "resample:4").shape == (4, 20, 3)


def test_fill_untracked_interpolates_and_leaves_the_rest():
    x = person()
    broken = x.copy()
    broken[4, 7] = 0
    broken[:, 9] = 0
    out = apply(broken, "fill_untracked")
    np.testing.assert_allclose(out[4, 7], (x[3, 7] + x[5, 7]) / 2, rtol=1e-5)
    assert not out[:, 9].any()
    np.testing.assert_array_equal(out[:, 3], x[:, 3].astype(np.float32))


def test_despike_removes_one_bad_frame():
    x = np.broadcast_to(person()[:1], (9, 20, 3)).copy()
    spiked = x.copy()
    spiked[4, 5] += 4.0
    np.testing.assert_allclose(apply(spiked, "despike"), x, rtol=1e-6)


def test_minmax_of_a_flat_sequence_is_finite():
    out = apply(np.ones((1, 20, 3)), "minmax")
    assert np.array_equal(out, np.zeros((1, 20, 3)))
    moving = apply(person(), "minmax")
    assert moving.min() == pytest.approx(-1) and moving.max() == pytest.approx(1)


def test_drop_empty_leaves_one_frame_at_least():
    x = person()
    x[[0, 5]] = 0
    assert len(apply(x, "drop_empty")) == 7
    assert len(apply(np.zeros((4, 20, 3)), "drop_empty")) == 1


@pytest.mark.parametrize("step", EVERY_STEP)
@pytest.mark.parametrize("frames", [1, 2, 9])
def test_every_step_survives_short_and_empty_sequences(step, frames):
    for x in (person(frames), np.zeros((frames, 20, 3)), np.repeat(person(1), frames, axis=0)):
        out = apply(x, step)
        assert np.isfinite(out).all() and out.dtype == np.float32 and out.shape[1:] == (20, 3)
        assert out.any() == x.any() or step == "minmax"


@pytest.mark.parametrize("step", EVERY_STEP)
def test_no_step_edits_its_input(step):
    x = person()
    x[2, 3] = 0
    before = x.copy()
    apply(x, step)
    np.testing.assert_array_equal(x, before)


def test_two_bodies():
    still, moving = np.repeat(person(1), 9, axis=0), person()
    both = np.concatenate([still, moving], axis=1)
    np.testing.assert_array_equal(apply(both), moving.astype(np.float32))
    assert most_moving(both.reshape(9, 2, 20, 3)).tolist() == [1, 0]
    pair = apply(moving, "centre_frames", "align_mean", bodies=2)
    assert pair.shape == (9, 40, 3) and not pair[:, 20:].any() and pair[:, :20].any()
    np.testing.assert_array_equal(apply(both, bodies=2), both.astype(np.float32))


def test_long_sequences_are_resampled_to_the_limit():
    transform = SkeletonInput(frames=6).transform()
    assert transform(person(9)).shape == (6, 20, 3) and transform(person(5)).shape == (5, 20, 3)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros((0, 20, 3)), "no frame"),
        (np.zeros((4, 25, 3)), "joint layout"),
        (np.zeros((4, 20, 2)), "joint layout"),
        (np.zeros((4, 60)), "got shape"),
        (np.full((4, 20, 3), np.nan), "first in frame 0"),
        ("a sequence", "of numbers"),
        ([[1, 2], [3]], "of numbers"),
    ],
)
def test_wrong_sequences_say_what_was_expected(x, message):
    with pytest.raises(InputError, match=message):
        SkeletonTransform(SkeletonInput())(x)


def test_collate_pads_with_zeros():
    transform = SkeletonTransform(SkeletonInput())
    padded, lengths = transform.collate([transform(person(5)), transform.frames(person(3))])
    assert padded.shape == (2, 5, 20, 3) and lengths.tolist() == [5, 3]
    assert not padded[1, 3:].any() and padded[1, :3].any() and padded.dtype == torch.float32


def test_config_fills_joints_and_refuses_what_does_not_exist():
    assert SkeletonInput().joints == 20 and SkeletonInput(layout="kinect_v2").joints == 25
    for bad, message in (
        ({"joints": 25}, "20 joints"),
        ({"layout": "kinect"}, "kinect_v"),
        ({"steps": ("align_men",)}, "align_mean"),
        ({"steps": ("resample",)}, "number of frames"),
        ({"steps": ("minmax:3",)}, "takes no number"),
    ):
        with pytest.raises(ValidationError, match=message):
            SkeletonInput(**bad)
    with pytest.raises(ConfigError):
        parse_step("resample:99999")
    assert isinstance(ImageInput().transform(), ImageTransform)
