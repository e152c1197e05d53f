"""The named steps of skeleton preprocessing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from zoo.errors import ConfigError, nearest
from zoo.preprocessing.joints import Layout

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
