"""Skeleton preprocessing as named steps, so that it travels with the weights as text.

A step maps a sequence `(T, M, V, C)` (frames, bodies, joints, x y z in metres; y up) to another of the
same layout; only `resample` and `drop_empty` change T. A joint at exactly (0, 0, 0) was not tracked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.config import SkeletonInput
from zoo.errors import ConfigError, InputError, nearest
from zoo.skeletons import Layout, layout

#: Keeps a division by a zero length finite; far below a millimetre.
EPSILON = 1e-10


def untracked(x: np.ndarray) -> np.ndarray:
    """Joints at exactly zero: `(..., V, C)` -> bool `(..., V)`."""
    return (x == 0).all(axis=-1)


def fill_untracked(x: np.ndarray, graph: Layout) -> np.ndarray:
    """Interpolate untracked joints over time between tracked frames; a joint never tracked stays zero."""
    missing = untracked(x)
    if not missing.any():
        return x
    out, time = x.copy(), np.arange(len(x))
    for body, joint in zip(*np.nonzero(missing.any(axis=0) & ~missing.all(axis=0)), strict=True):
        known = ~missing[:, body, joint]
        for axis in range(x.shape[-1]):
            out[:, body, joint, axis] = np.interp(time, time[known], x[known, body, joint, axis])
    return out


def drop_empty(x: np.ndarray, graph: Layout) -> np.ndarray:
    """Leave out frames in which no joint of any body is tracked; at least one frame stays."""
    full = ~untracked(x).all(axis=(1, 2))
    return x[full] if full.any() else x[:1]


def despike(x: np.ndarray, graph: Layout) -> np.ndarray:
    """Median over three frames per coordinate: removes single-frame jumps of a joint, keeps motion."""
    if len(x) < 3:
        return x
    inner = np.median(np.stack([x[:-2], x[1:-1], x[2:]]), axis=0)
    return np.concatenate([x[:1], inner, x[-1:]])


def ms2l_frames(x: np.ndarray, graph: Layout) -> np.ndarray:
    """MS2L's per-frame normalisation of N-UCLA (released code, NormDataSet).

    Each frame: origin at the mean of lower spine and hips, divided by the Frobenius norm of its joints, turned
    so that the left hip is the x axis and the lower spine lies in the x-y plane. Travel and turning are lost.
    """
    lower, _, left, right, _, _ = graph.axes
    centred = x - x[..., [lower, left, right], :].mean(axis=-2, keepdims=True)
    scaled = centred / (np.sqrt(np.square(centred).sum(axis=(-2, -1), keepdims=True)) + EPSILON)
    return np.where(untracked(x)[..., None].all(axis=-2, keepdims=True), 0.0, _turn(scaled, *_frame_of(scaled, graph)))


def _frame_of(x: np.ndarray, graph: Layout) -> tuple[np.ndarray, np.ndarray]:
    lower, _, left, *_ = graph.axes
    return x[..., left, :], x[..., lower, :]


def centre_frames(x: np.ndarray, graph: Layout) -> np.ndarray:
    """Subtract the first body's lower spine in every frame: removes travel."""
    return _shifted(x, x[:, :1, graph.axes[0] : graph.axes[0] + 1])


def centre_sequence(x: np.ndarray, graph: Layout) -> np.ndarray:
    """Subtract the first body's lower spine of the first frame: keeps travel."""
    return _shifted(x, x[:1, :1, graph.axes[0] : graph.axes[0] + 1])


def align_first(x: np.ndarray, graph: Layout) -> np.ndarray:
    """Turn the sequence so that the first body's spine in frame 0 points along y and its left side along x.

    2s-AGCN's alignment (there with z up): a change of the camera's place and tilt is undone.
    """
    return _turn(x, *body_axes(x[:1, 0], graph))


def align_mean(x: np.ndarray, graph: Layout) -> np.ndarray:
    """`align_first` with the axes averaged over all frames: one badly tracked frame does no harm."""
    return _turn(x, *body_axes(x[:, 0], graph))


def scale_torso(x: np.ndarray, graph: Layout) -> np.ndarray:
    """Divide by the median length of the first body's trunk: people of all sizes alike."""
    lower, upper, *_ = graph.axes
    length = np.median(np.linalg.norm(x[:, 0, upper] - x[:, 0, lower], axis=-1))
    return x / length if length > 1e-3 else x


def minmax(x: np.ndarray, graph: Layout) -> np.ndarray:
    """Each axis of the whole sequence to [-1, 1], as CTR-GCN's N-UCLA feeder; a flat axis becomes 0."""
    low, high = x.min(axis=(0, 1, 2)), x.max(axis=(0, 1, 2))
    span = high - low
    return np.where(span > EPSILON, 2 * (x - low) / np.maximum(span, EPSILON) - 1, 0.0)


def resample(x: np.ndarray, graph: Layout, frames: int) -> np.ndarray:
    """`frames` frames, evenly spaced from the first to the last, linear in between."""
    position = np.linspace(0, len(x) - 1, frames)
    before = np.minimum(position.astype(np.int64), len(x) - 1)
    after = np.minimum(before + 1, len(x) - 1)
    weight = (position - before)[:, None, None, None]
    return x[before] * (1 - weight) + x[after] * weight


def body_axes(frames: np.ndarray, graph: Layout) -> tuple[np.ndarray, np.ndarray]:
    """The direction to the person's left and the spine's direction, `(3,)` each, averaged over `(T, V, 3)`."""
    lower, upper, left_hip, right_hip, left_shoulder, right_shoulder = graph.axes
    side = frames[:, left_hip] - frames[:, right_hip] + frames[:, left_shoulder] - frames[:, right_shoulder]
    spine = frames[:, upper] - frames[:, lower]
    up = _unit(spine.mean(axis=0))
    across = side.mean(axis=0)
    return across - (across @ up) * up, up


def rotation(x_axis: np.ndarray, y_axis: np.ndarray) -> np.ndarray:
    """Rotation matrices `(..., 3, 3)` whose rows are x, y made orthogonal to x, and x cross y.

    Degenerate axes (a missing spine, hips in one point) give the identity.
    """
    x_unit = _unit(x_axis)
    y_unit = _unit(y_axis - (y_axis * x_unit).sum(axis=-1, keepdims=True) * x_unit)
    matrix = np.stack([x_unit, y_unit, np.cross(x_unit, y_unit)], axis=-2)
    usable = np.abs(np.linalg.det(matrix) - 1) < 1e-3
    return np.where(usable[..., None, None], matrix, np.eye(3))


def _turn(x: np.ndarray, x_axis: np.ndarray, y_axis: np.ndarray) -> np.ndarray:
    return x @ np.swapaxes(rotation(x_axis, y_axis), -1, -2)


def _unit(v: np.ndarray) -> np.ndarray:
    return v / (np.linalg.norm(v, axis=-1, keepdims=True) + EPSILON)


def _shifted(x: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """`x - origin`; an absent body stays zero."""
    absent = untracked(x).all(axis=-1)
    return np.where(absent[..., None, None], x, x - origin)


#: name -> function of (sequence, layout); `resample:52` passes the number on.
STEPS: dict[str, Callable[..., np.ndarray]] = {
    "fill_untracked": fill_untracked,
    "drop_empty": drop_empty,
    "despike": despike,
    "ms2l_frames": ms2l_frames,
    "centre_frames": centre_frames,
    "centre_sequence": centre_sequence,
    "align_first": align_first,
    "align_mean": align_mean,
    "scale_torso": scale_torso,
    "minmax": minmax,
    "resample": resample,
}
MAX_FRAMES = 4096


def parse_step(step: str) -> Callable[[np.ndarray, Layout], np.ndarray]:
    """`"align_mean"` or `"resample:52"` -> the function to call.

    Raises:
        ConfigError: no such step (names the nearest), or a missing, superfluous or wrong number.
    """
    name, separator, text = step.partition(":")
    if name not in STEPS:
        raise ConfigError(f"unknown skeleton step {name!r}; {nearest(name, list(STEPS))}")
    if name != "resample":
        if separator:
            raise ConfigError(f"skeleton step {name!r} takes no number, got {step!r}")
        return STEPS[name]
    if not text.isdecimal() or not 1 <= int(text) <= MAX_FRAMES:
        raise ConfigError(f"skeleton step 'resample' needs a number of frames in 1..{MAX_FRAMES}, got {step!r}")
    return lambda x, graph: resample(x, graph, int(text))


class SkeletonTransform:
    """A sequence as a dataset gives it -> `(T, bodies * joints, 3)` float32 tensor for `Encoder.forward`.

    One body where the encoder takes two: the second is zeros. Two where it takes one: the one that moves most.
    Sequences longer than `input.frames` are resampled to it.
    """

    def __init__(self, input: SkeletonInput) -> None:
        self.input = input
        self.layout = layout(input.layout)
        self._steps = [parse_step(step) for step in input.steps]

    def __call__(self, sequence: Any) -> Tensor:
        return torch.from_numpy(self.frames(sequence))

    def frames(self, sequence: Any) -> np.ndarray:
        """One sequence `(T, V, C)` -> `(T', bodies * joints, C)` float32.

        Raises:
            InputError: no frame, wrong rank, joints or channels, NaN or infinite coordinates.
        """
        x = self._bodies(_checked(sequence, self.input))
        for step in self._steps:
            x = step(x, self.layout)
        if self.input.frames is not None and len(x) > self.input.frames:
            x = resample(x, self.layout, self.input.frames)
        return np.ascontiguousarray(x.reshape(len(x), -1, x.shape[-1]), dtype=np.float32)

    def _bodies(self, x: np.ndarray) -> np.ndarray:
        x = x.reshape(len(x), -1, self.input.joints, x.shape[-1])
        wanted = self.input.bodies
        if x.shape[1] > wanted:
            x = x[:, np.sort(most_moving(x)[:wanted])]
        if x.shape[1] < wanted:
            x = np.pad(x, ((0, 0), (0, wanted - x.shape[1]), (0, 0), (0, 0)))
        return x

    def collate(self, sequences: Sequence[np.ndarray | Tensor]) -> tuple[Tensor, Tensor]:
        """Transformed sequences -> `(N, T, V, C)` float32 padded with zeros, and `(N,)` int64 lengths."""
        return pad_sequences(sequences)

    def __repr__(self) -> str:
        return f"SkeletonTransform({self.input!r})"


def pad_sequences(sequences: Sequence[np.ndarray | Tensor], frames: int | None = None) -> tuple[Tensor, Tensor]:
    """`(T_i, V, C)` each -> `(N, T, V, C)` float32, zeros after the end, and `(N,)` int64 lengths.

    `frames`: T; default the longest.
    """
    lengths = torch.tensor([len(sequence) for sequence in sequences])
    first = sequences[0]
    padded = torch.zeros(len(sequences), frames or int(lengths.max()), *first.shape[1:])
    for row, sequence in zip(padded, sequences, strict=True):
        row[: len(sequence)] = torch.as_tensor(sequence)
    return padded, lengths


def most_moving(x: np.ndarray) -> np.ndarray:
    """Bodies of `(T, M, V, C)` by variance of their tracked coordinates over the sequence, greatest first."""
    tracked = ~untracked(x)
    variance = np.zeros(x.shape[1])
    for body in range(x.shape[1]):
        points = x[:, body][tracked[:, body]]
        variance[body] = points.var(axis=0).sum() if len(points) else -1.0
    return np.argsort(-variance, kind="stable")


def _checked(sequence: Any, input: SkeletonInput) -> np.ndarray:
    if isinstance(sequence, Tensor):
        sequence = sequence.detach().cpu().numpy()
    try:
        x = np.asarray(sequence, dtype=np.float64)
    except (TypeError, ValueError):
        came = f"{type(sequence).__name__}" + (f" of {sequence.dtype}" if isinstance(sequence, np.ndarray) else "")
        raise InputError(f"expected a skeleton sequence (T, V, C) of numbers, got {came}") from None
    wanted = f"(T, {input.joints}, {input.channels})"
    if x.ndim != 3:
        raise InputError(f"expected one skeleton sequence {wanted}, got shape {x.shape}")
    frames, joints, channels = x.shape
    if frames == 0:
        raise InputError(f"the skeleton sequence has no frame; expected {wanted} with T >= 1")
    if joints == 0 or joints % input.joints or channels != input.channels:
        raise InputError(
            f"expected a skeleton sequence {wanted} ({input.layout}; several bodies side by side along V), "
            f"got {x.shape}; check the joint layout and the order of the axes"
        )
    if not np.isfinite(x).all():
        bad = int(np.flatnonzero(~np.isfinite(x).all(axis=(1, 2)))[0])
        raise InputError(
            f"the skeleton sequence holds NaN or infinite coordinates, first in frame {bad}; "
            "mark untracked joints by zeros"
        )
    return x
