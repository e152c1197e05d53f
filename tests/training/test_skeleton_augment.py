"""Skeleton augmentation: every op against its definition, and what must never change."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from training.augment.skeleton import SkeletonAugment, SkeletonAugmentConfig, at_positions, mirrored, rotations, warped
from zoo.preprocessing.joints import LAYOUTS
from zoo.preprocessing.skeleton import SkeletonInput

INPUT = SkeletonInput()
STILL = {"crop": (1.0, 1.0), "rotate": (0.0, 0.0, 0.0), "shear": 0.0, "scale": 0.0}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def batch(frames=(12, 1, 5)):
    torch.manual_seed(2)
    lengths = torch.tensor(frames)
    x = torch.randn(len(frames), max(frames), 20, 3)
    return x * (torch.arange(max(frames)) < lengths[:, None])[..., None, None], lengths


def augment(x, lengths, seed=0, input=INPUT, **changes):
    return SkeletonAugment(SkeletonAugmentConfig(**{**STILL, **changes}), input)(x, lengths, generator(seed))


def test_nothing_drawn_is_the_identity():
    x, lengths = batch()
    view, counts = augment(x, lengths)
    assert counts.tolist() == lengths.tolist()
    torch.testing.assert_close(view, x)


def test_a_view_depends_on_the_generator_only():
    x, lengths = batch()
    changes = {"crop": (0.3, 1.0), "warp": 0.5, "rotate": (9.0, 50.0, 9.0), "offset": 0.1, "drift": 0.1, "drop": 0.2}
    first, again, other = (augment(x, lengths, seed, **changes) for seed in (1, 1, 2))
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert first[0].shape != other[0].shape or not torch.equal(first[0], other[0])


def test_the_input_is_not_edited():
    x, lengths = batch()
    before = x.clone(), lengths.clone()
    augment(x, lengths, crop=(0.5, 0.9), offset=0.3, drop=0.5, mirror=1.0)
    assert torch.equal(x, before[0]) and torch.equal(lengths, before[1])


@pytest.mark.parametrize("frames", [None, 7])
def test_crops_are_runs_of_the_true_frames(frames):
    lengths = torch.tensor([40, 1, 3, 25] * 50)
    x = torch.zeros(200, 40, 20, 3) + (torch.arange(40.0) + 1)[:, None, None]
    x = x * (torch.arange(40) < lengths[:, None])[..., None, None]
    view, counts = augment(x, lengths, crop=(0.5, 0.8), frames=frames)
    for row, n, true in zip(view[:, :, 0, 0], counts.tolist(), lengths.tolist(), strict=True):
        run, rest = row[:n], row[n:]
        assert not rest.any() and run[0] >= 1 and run[-1] <= true + 1e-4
        assert n == frames or 0.5 * (true - 1) - 0.5 <= n - 1 <= 0.8 * (true - 1) + 0.5
        steps = run.diff()
        torch.testing.assert_close(steps, steps[:1].expand_as(steps), atol=1e-4, rtol=0)
        if true > 1:
            assert 0.5 * (true - 1) - 1e-3 <= run[-1] - run[0] <= 0.8 * (true - 1) + 1e-3 or n == 1


def test_reading_between_frames():
    x = torch.arange(4.0).view(1, 4, 1, 1) ** 2
    got = at_positions(x, torch.tensor([[0.0, 0.5, 2.25, 3.0]])).flatten()
    torch.testing.assert_close(got, torch.tensor([0.0, 0.5, 5.25, 9.0]))


def test_the_warp_is_monotone_and_keeps_the_ends():
    phase = torch.linspace(0, 1, 50).expand(30, -1)
    got = warped(phase, torch.randn(30, 6, generator=generator()))
    assert (got.diff(dim=1) > 0).all()
    torch.testing.assert_close(got[:, [0, -1]], torch.tensor([[0.0, 1.0]]).expand(30, -1))
    torch.testing.assert_close(warped(phase, torch.zeros(30, 6)), phase, atol=1e-6, rtol=0)


def test_rotations_turn_about_the_named_axis():
    quarter = np.pi / 2
    about_x, about_y, about_z = rotations(torch.eye(3) * quarter)
    x, y, z = torch.eye(3)
    for matrix, start, end in ((about_x, y, z), (about_y, z, x), (about_z, x, y)):
        torch.testing.assert_close(matrix @ start, end, atol=1e-6, rtol=0)
    matrices = rotations(torch.randn(9, 3, generator=generator()))
    torch.testing.assert_close(matrices @ matrices.transpose(1, 2), torch.eye(3).expand(9, 3, 3), atol=1e-5, rtol=0)


def test_a_rotation_keeps_lengths_and_its_limits():
    x, lengths = batch((6,) * 200)
    view, _ = augment(x, lengths, rotate=(0.0, 30.0, 0.0))
    torch.testing.assert_close(view.norm(dim=-1), x.norm(dim=-1), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(view[..., 1], x[..., 1])
    angle = torch.atan2(view[:, 0, 0, 0], view[:, 0, 0, 2]) - torch.atan2(x[:, 0, 0, 0], x[:, 0, 0, 2])
    angle = torch.rad2deg(torch.atan2(angle.sin(), angle.cos()))
    assert angle.abs().max() <= 30.01 and angle.min() < -20 and angle.max() > 20


def test_scale_and_shear_are_linear_and_the_same_in_all_frames():
    x, lengths = batch((6,) * 4)
    view, _ = augment(x, lengths, scale=0.2, shear=0.3)
    for a, b in zip(x, view, strict=True):
        matrix = torch.linalg.lstsq(a[0], b[0]).solution
        torch.testing.assert_close(a @ matrix, b, atol=1e-4, rtol=1e-4)


def test_offsets_last_and_drifts_change():
    x, lengths = batch((10,) * 300)
    shift = augment(x, lengths, offset=0.2)[0] - x
    torch.testing.assert_close(shift, shift[:, :1].expand_as(shift), atol=1e-5, rtol=0)
    assert shift.std() == pytest.approx(0.2, rel=0.05)
    drift = augment(x, lengths, drift=0.2)[0] - x
    assert drift.diff(dim=1).abs().mean() > 0.01 and drift.diff(dim=1).std() < 0.2


def test_untracked_joints_padding_and_absent_bodies_stay_zero():
    pair = SkeletonInput(bodies=2)
    x, lengths = batch((8, 3))
    x[0, 4, 7] = 0
    both = torch.cat([x, torch.zeros_like(x)], dim=2)
    view, counts = augment(both, lengths, input=pair, offset=0.5, drift=0.5, rotate=(10.0, 10.0, 10.0))
    assert not view[:, :, 20:].any() and not view[0, 4, 7].any() and view[0, 3, 7].any()
    assert not view[1, 3:].any() and counts.tolist() == [8, 3]


def test_dropped_joints_are_dropped_for_the_whole_view():
    x, lengths = batch((10,) * 400)
    view, _ = augment(x, lengths, drop=0.25)
    gone = ~view.any(dim=-1)
    assert torch.equal(gone.any(dim=1), gone.all(dim=1))
    assert gone[:, 0].float().mean() == pytest.approx(0.25, abs=0.02)


def test_mirroring_twice_is_nothing_and_swaps_sides():
    x, lengths = batch()
    graph = LAYOUTS["kinect_v1"]
    view, _ = augment(x, lengths, mirror=1.0)
    left, right = graph.joints.index("left hand"), graph.joints.index("right hand")
    torch.testing.assert_close(view[0, :, left], x[0, :, right] * torch.tensor([-1.0, 1.0, 1.0]))
    torch.testing.assert_close(mirrored(mirrored(x, list(graph.mirror)), list(graph.mirror)), x)
    share = (augment(*batch((4,) * 500), mirror=0.3)[0] != batch((4,) * 500)[0]).any(dim=(1, 2, 3)).float().mean()
    assert share == pytest.approx(0.3, abs=0.06)


@pytest.mark.parametrize(
    "bad", [{"crop": (0.0, 1.0)}, {"crop": (0.9, 0.5)}, {"rotate": (0.0, 200.0, 0.0)}, {"drop": 1.0}]
)
def test_wrong_settings_are_refused(bad):
    with pytest.raises(ValidationError):
        SkeletonAugmentConfig(**bad)
