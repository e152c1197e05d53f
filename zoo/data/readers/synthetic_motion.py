"""`synthetic:motion`: people who act, by forward kinematics, for tests and the demo; Kinect v1 joints, metres."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from zoo.data.readers.synthetic_shapes import SyntheticReader, parse_parameters
from zoo.data.skeletons import ArraySkeletons
from zoo.preprocessing.joints import LAYOUTS

SPLITS = ("train", "test")
#: parameter -> (default, lowest, highest)
PARAMETERS = {"n": (512, 8, 1_000_000), "seed": (0, 0, 2**31 - 1), "sway": (0, 0, 100)}
SUBJECTS = 10
GRAPH = LAYOUTS["kinect_v1"]
JOINT = {name: i for i, name in enumerate(GRAPH.joints)}
#: Each joint relative to its parent for a person of 1.7 m who stands: x to the person's left, y up, z ahead.
_LIMBS = {
    "spine": (0, 0.2, 0),
    "shoulder centre": (0, 0.3, 0),
    "head": (0, 0.22, 0),
    "left shoulder": (0.19, -0.03, 0),
    "left elbow": (0.03, -0.27, 0),
    "left wrist": (0, -0.25, 0),
    "left hand": (0, -0.08, 0),
    "left hip": (0.1, -0.08, 0),
    "left knee": (0, -0.42, 0),
    "left ankle": (0, -0.4, 0),
    "left foot": (0, -0.05, 0.12),
}
REST = np.zeros((len(GRAPH), 3))
for _name, _offset in _LIMBS.items():
    REST[JOINT[_name]] = _offset
    if _name.startswith("left"):
        REST[JOINT["right" + _name[4:]]] = np.array(_offset) * (-1, 1, 1)
#: Joint -> rotation vectors over the phase 0..1; "travel" and "drop": metres ahead and down.
Pose = dict[str, np.ndarray]
_X, _Z = np.array([1.0, 0, 0]), np.array([0, 0, 1.0])


def _bump(phase: np.ndarray) -> np.ndarray:
    return np.sin(np.pi * phase) ** 2


def _swing(phase: np.ndarray, cycles: float) -> np.ndarray:
    return np.sin(2 * np.pi * cycles * phase)


def _walk(p: np.ndarray) -> Pose:
    s = _swing(p, 2)[:, None]
    return {
        "left hip": -0.5 * s * _X,
        "right hip": 0.5 * s * _X,
        "left knee": 0.5 * np.maximum(s, 0) * _X,
        "right knee": 0.5 * np.maximum(-s, 0) * _X,
        "left shoulder": 0.4 * s * _X,
        "right shoulder": -0.4 * s * _X,
        "travel": 1.6 * p,
    }


def _wave(p: np.ndarray) -> Pose:
    up, shake = np.minimum(1, 3 * _bump(p))[:, None], _swing(p, 3)[:, None]
    return {"right shoulder": -2.4 * up * _Z, "right elbow": (-0.5 + 0.5 * shake) * up * _Z}


def _clap(p: np.ndarray) -> Pose:
    up, beat = np.minimum(1, 3 * _bump(p))[:, None], (0.5 + 0.5 * _swing(p, 3))[:, None]
    return {
        "left shoulder": up * (-1.3 * _X + (0.5 - 0.9 * beat) * _Z),
        "right shoulder": up * (-1.3 * _X - (0.5 - 0.9 * beat) * _Z),
        "left elbow": -0.4 * up * _X,
        "right elbow": -0.4 * up * _X,
    }


def _squat(p: np.ndarray) -> Pose:
    b = _bump(p)[:, None]
    return {
        **{f"{side} hip": -1.5 * b * _X for side in ("left", "right")},
        **{f"{side} knee": 2.1 * b * _X for side in ("left", "right")},
        "spine": 0.5 * b * _X,
        "drop": 0.45 * b[:, 0],
    }


def _kick(p: np.ndarray) -> Pose:
    b, back = _bump(p)[:, None], _bump(np.clip(2 * p, 0, 1))[:, None]
    return {"right hip": (-1.4 * b + 0.5 * back) * _X, "right knee": 1.2 * back * _X, "left shoulder": -0.6 * b * _X}


def _bow(p: np.ndarray) -> Pose:
    b = _bump(p)[:, None]
    return {"spine": 1.3 * b * _X, "head": 0.3 * b * _X}


def _raise_arms(p: np.ndarray) -> Pose:
    b = _bump(p)[:, None]
    return {"left shoulder": 2.8 * b * _Z, "right shoulder": -2.8 * b * _Z}


def _throw(p: np.ndarray) -> Pose:
    wind, release = _bump(np.clip(1.6 * p, 0, 1))[:, None], _bump(np.clip(2 * p - 1, 0, 1))[:, None]
    return {"right shoulder": (1.0 * wind - 2.2 * release) * _X - 0.6 * wind * _Z, "right elbow": -1.4 * wind * _X}


ACTIONS: dict[str, Callable[[np.ndarray], Pose]] = {
    "walk": _walk,
    "wave": _wave,
    "clap": _clap,
    "squat": _squat,
    "kick": _kick,
    "bow": _bow,
    "raise arms": _raise_arms,
    "throw": _throw,
}


def open_motion(address: str, split: str) -> ArraySkeletons:
    """`synthetic:motion[?n=512&seed=0&sway=0]`, splits `train` and `test`.

    `train` has n sequences of subjects 0..7, `test` n // 4 of subjects 8 and 9.
    Cameras of the test split look from other sides than those of the training split. Speed, size, style, hand,
    place and noise are random; `sway`: how much all limbs move besides, in hundredths of a radian, which makes actions
    hard to tell apart. The same address gives the same sequences.

    Raises:
        UnknownNameError, DataError: another parameter, or a value out of range.
    """
    values = parse_parameters(address, PARAMETERS)
    train = split == "train"
    count = values["n"] if train else max(len(ACTIONS), values["n"] // 4)
    generator = np.random.Generator(np.random.PCG64([values["seed"], SPLITS.index(split)]))
    labels = np.arange(count, dtype=np.int64) % len(ACTIONS)
    groups = generator.integers(0, SUBJECTS - 2, count) if train else generator.integers(SUBJECTS - 2, SUBJECTS, count)
    cameras = generator.uniform(-0.9, 0.9, count) if train else generator.uniform(0.9, 1.6, count)
    names = list(ACTIONS)
    sway = values["sway"] / 100
    made = [act(names[c], int(s), float(y), generator, sway) for c, s, y in zip(labels, groups, cameras, strict=True)]
    lengths = np.array([len(x) for x in made])
    keys = [str(i) for i in range(count)]
    frames = np.concatenate(made)
    return ArraySkeletons(
        "synthetic_motion", split, frames, lengths, keys, labels, names, "MIT (generated)", {"person": groups}
    )


def act(action: str, subject: int, camera: float, generator: np.random.Generator, sway: float = 0.0) -> np.ndarray:
    """One sequence `(T, 20, 3)` float32: `subject` performs `action`, seen by a camera turned by `camera` radians.

    `sway`: deviation in radians of slow random turns of every joint.
    """
    style = np.random.Generator(np.random.PCG64([7, subject]))
    size, vigour = style.uniform(0.85, 1.15), style.uniform(0.75, 1.1)
    frames = int(generator.integers(20, 61))
    # Uneven speed: a monotone warp of the phase.
    phase = np.linspace(0, 1, frames) ** generator.uniform(0.75, 1.35)
    pose = ACTIONS[action](phase)
    angles = np.zeros((frames, len(GRAPH), 3))
    for name, value in pose.items():
        if name in JOINT:
            angles[:, JOINT[name]] = vigour * generator.uniform(0.85, 1.15) * value
    if sway:
        knots = sway * generator.normal(size=(4, *angles.shape[1:]))
        at = np.linspace(0, 3, frames)
        low = np.minimum(at.astype(int), 2)
        angles += knots[low] + (at - low)[:, None, None] * (knots[low + 1] - knots[low])
    x = forward_kinematics(angles, REST * size)
    x[..., 2] += size * np.broadcast_to(pose.get("travel", 0.0), frames)[:, None]
    x[..., 1] -= size * np.broadcast_to(pose.get("drop", 0.0), frames)[:, None]
    if generator.random() < 0.5:
        x = x[:, GRAPH.mirror] * (-1, 1, 1)
    turn = camera + generator.normal(0, 0.15)
    rotation = np.array([[np.cos(turn), 0, np.sin(turn)], [0, 1, 0], [-np.sin(turn), 0, np.cos(turn)]])
    place = np.array([generator.uniform(-0.5, 0.5), 0.0, generator.uniform(2, 3.5)])
    noise = generator.normal(0, 0.012, x.shape) + generator.normal(0, 0.012, (1, *x.shape[1:]))
    return (x @ rotation.T + place + noise).astype(np.float32)


def forward_kinematics(angles: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Joint positions `(T, V, 3)` from each joint's rotation vector `(T, V, 3)` and rest offsets `(V, 3)`.

    A joint's rotation turns all that hangs on it; the root stays at the origin.
    """
    local = rotation_matrices(angles)
    turns, places = np.empty_like(local), np.zeros_like(angles)
    for joint, parent in enumerate(GRAPH.parents):  # parents come before their children
        if joint == parent:
            turns[:, joint] = local[:, joint]
            continue
        turns[:, joint] = turns[:, parent] @ local[:, joint]
        places[:, joint] = places[:, parent] + turns[:, parent] @ offsets[joint]
    return places


def rotation_matrices(vectors: np.ndarray) -> np.ndarray:
    """Rotation vectors `(..., 3)`, radians -> matrices `(..., 3, 3)` (Rodrigues' formula)."""
    angle = np.linalg.norm(vectors, axis=-1)[..., None, None]
    x, y, z = np.moveaxis(vectors / np.maximum(angle[..., 0], 1e-12), -1, 0)
    zero = np.zeros_like(x)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=-1).reshape(*x.shape, 3, 3)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * (cross @ cross)


class Motion(SyntheticReader):
    """`synthetic:motion`."""

    example = "'synthetic:motion'"
    names = ("synthetic:motion",)

    def open(self, split: str) -> ArraySkeletons:
        return open_motion(self.address.text, split)
