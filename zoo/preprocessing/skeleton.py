"""Skeleton preprocessing as named steps, so that it travels with the weights as text.

A step maps a sequence `(T, M, V, C)` (frames, bodies, joints, x y z in metres; y up) to another of the
same layout; only `resample` and `drop_empty` change T. A joint at exactly (0, 0, 0) was not tracked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field, ValidationInfo, field_validator

from zoo.errors import InputError
from zoo.preprocessing.joints import layout
from zoo.preprocessing.steps import parse_step, resample, untracked
from zoo.strict import Strict

if TYPE_CHECKING:
    from torch import Tensor


class SkeletonInput(Strict):
    """Skeleton preprocessing that belongs to the weights (see `SkeletonTransform` below).

    `layout`: joint names and graph, one of `joints.LAYOUTS`; `joints`: points per body, by default the
    layout's. `bodies`: persons side by side along V, so that `forward` takes `(N, T, bodies * joints, channels)`.
    `steps`: named steps in order, such as `("align_mean", "resample:52")`. `frames`: longest sequence; longer ones
    are resampled to it.
    """

    modality: Literal["skeleton"] = "skeleton"
    layout: str = "kinect_v1"
    joints: int = Field(default=0, ge=0, le=512, validate_default=True)
    bodies: int = Field(default=1, ge=1, le=4)
    channels: Literal[3] = 3
    frames: int | None = Field(default=None, ge=1, le=4096)
    steps: tuple[str, ...] = Field(default=(), max_length=32)

    @field_validator("joints")
    @classmethod
    def _joints(cls, value: int, info: ValidationInfo) -> int:
        from zoo.preprocessing.joints import layout

        if "layout" not in info.data:
            return value
        wanted = len(layout(info.data["layout"]))
        if value not in (0, wanted):
            raise ValueError(f"layout {info.data['layout']!r} has {wanted} joints")
        return wanted

    @field_validator("steps")
    @classmethod
    def _steps(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        from zoo.preprocessing.steps import parse_step

        for step in value:
            parse_step(step)
        return value

    def transform(self) -> SkeletonTransform:
        """The preprocessing of one sequence."""
        return SkeletonTransform(self)


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
        import torch

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
    import torch

    lengths = torch.tensor([len(sequence) for sequence in sequences], device="cpu")
    first = sequences[0]
    shape = (len(sequences), frames or int(lengths.max()), *first.shape[1:])
    padded = torch.zeros(shape, dtype=torch.float32, device="cpu")
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
    from torch import Tensor  # here, as `zoo list` reads specifications without torch

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
