"""Batched augmentation of skeleton sequences, on the device, with its own generator.

Sequences `(N, T, V, 3)` come padded, with `lengths`; coordinates are those of the encoder's preprocessing, so
lengths are in its unit (torso lengths after `scale_torso`). An untracked joint, exactly zero, stays zero.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from pydantic import Field, field_validator
from torch import Tensor

from zoo.architectures.skeleton_gru import frame_mask
from zoo.preprocessing.joints import layout
from zoo.preprocessing.skeleton import SkeletonInput
from zoo.strict import Strict


class SkeletonAugmentConfig(Strict):
    """What is drawn for each sequence, and from which ranges."""

    crop: tuple[float, float] = Field(
        default=(0.5, 1.0), description="Share of the frames that a view keeps, one run of them, (low, high)."
    )
    frames: int | None = Field(
        default=None,
        ge=1,
        le=4096,
        description="Number of frames of the view, interpolated; null: the crop's own, at least one.",
    )
    warp: float = Field(
        default=0.0, ge=0, le=3, description="Strength of a random uneven speed: standard deviation of the log speed."
    )
    rotate: tuple[float, float, float] = Field(
        default=(0.0, 54.0, 0.0), description="Greatest angle in degrees about x, y (up) and z."
    )
    shear: float = Field(default=0.2, ge=0, le=2, description="Greatest off-diagonal entry of a random shear.")
    scale: float = Field(default=0.1, ge=0, lt=1, description="Greatest relative change of size.")
    offset: float = Field(
        default=0.0,
        ge=0,
        description="Standard deviation of a displacement per joint that lasts the whole view: "
        "another person's proportions, another camera's idea of a joint.",
    )
    drift: float = Field(
        default=0.0, ge=0, description="Standard deviation of a displacement per joint that changes slowly."
    )
    drop: float = Field(
        default=0.0, ge=0, lt=1, description="Probability that a joint is untracked for the whole view."
    )
    mirror: float = Field(default=0.0, ge=0, le=1, description="Probability of swapping left and right.")

    @field_validator("crop")
    @classmethod
    def _crop(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 < value[0] <= value[1] <= 1:
            raise ValueError(f"must be (low, high) with 0 < low <= high <= 1, got {value}")
        return value

    @field_validator("rotate")
    @classmethod
    def _rotate(cls, value: tuple[float, float, float]) -> tuple[float, float, float]:
        if not all(0 <= angle <= 180 for angle in value):
            raise ValueError(f"angles must lie in 0..180 degrees, got {value}")
        return value


class SkeletonAugment:
    """One random view per sequence: crop in time, then place, shape, mirror image and missing joints."""

    def __init__(self, config: SkeletonAugmentConfig, input: SkeletonInput) -> None:
        self.config = config
        mirror = layout(input.layout).mirror
        self.mirror = [body * input.joints + joint for body in range(input.bodies) for joint in mirror]

    def __call__(self, x: Tensor, lengths: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """`(N, T, V, 3)` and `(N,)` -> a view `(N, T', V, 3)`, zeros beyond its lengths, and `(N,)` int64 lengths."""
        config, n, device = self.config, len(x), x.device
        positions, lengths = self._positions(lengths, generator)
        x = at_positions(x, positions)
        x = torch.where(self._chosen(n, config.mirror, generator, device), mirrored(x, self.mirror), x)
        present = (x != 0).any(dim=-1, keepdim=True) & frame_mask(lengths, x.shape[1])[..., None, None]
        if config.drop:
            present = present & (torch.rand(n, 1, x.shape[2], 1, generator=generator, device=device) >= config.drop)
        x = x @ self._matrices(n, generator, device).to(x.dtype).transpose(1, 2)[:, None]
        return (x + self._displacements(x, generator)) * present, lengths

    def _positions(self, lengths: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Where in its sequence each frame of the view lies, `(N, T')`, and the views' lengths."""
        config, n, device = self.config, len(lengths), lengths.device
        share, start = torch.rand(2, n, generator=generator, device=device)
        low, high = config.crop
        span = (lengths - 1) * (low + (high - low) * share)
        start = start * (lengths - 1 - span)
        if config.frames is not None:
            counts = torch.full_like(lengths, config.frames)
            frames = config.frames
        else:
            counts = (span.round() + 1).to(lengths.dtype)
            frames = int(counts.max())
        steps = torch.arange(frames, device=device) / (counts - 1).clamp_min(1)[:, None]
        phase = steps.clamp(max=1)
        if config.warp:
            phase = warped(phase, config.warp * torch.randn(n, 6, generator=generator, device=device))
        return start[:, None] + span[:, None] * phase, counts

    def _matrices(self, n: int, generator: torch.Generator, device: torch.device) -> Tensor:
        config = self.config
        angle, shear, scale = torch.split(
            2 * torch.rand(n, 13, generator=generator, device=device) - 1, [3, 9, 1], dim=1
        )
        limits = torch.tensor(config.rotate, device=device) * (math.pi / 180)
        off_diagonal = 1 - torch.eye(3, device=device)
        sheared = torch.eye(3, device=device) + config.shear * off_diagonal * shear.view(n, 3, 3)
        return rotations(angle * limits) @ sheared * (1 + config.scale * scale[..., None])

    def _displacements(self, x: Tensor, generator: torch.Generator) -> Tensor | float:
        config, (n, frames, joints, axes) = self.config, x.shape
        total: Tensor | float = 0.0
        if config.offset:
            total = config.offset * torch.randn(n, 1, joints, axes, generator=generator, device=x.device)
        if config.drift:
            knots = torch.randn(n, joints * axes, 5, generator=generator, device=x.device)
            slow = F.interpolate(knots, frames, mode="linear", align_corners=True)
            total = total + config.drift * slow.transpose(1, 2).reshape(n, frames, joints, axes)
        return total

    @staticmethod
    def _chosen(n: int, p: float, generator: torch.Generator, device: torch.device) -> Tensor:
        return (torch.rand(n, generator=generator, device=device) < p).view(n, 1, 1, 1)


def at_positions(x: Tensor, positions: Tensor) -> Tensor:
    """`(N, T, V, C)` read at fractional frames `(N, T')`, linear in between: `(N, T', V, C)`."""
    before = positions.floor().long().clamp(0, x.shape[1] - 1)
    after = (before + 1).clamp(max=x.shape[1] - 1)
    weight = (positions - before)[..., None, None].to(x.dtype)
    row = torch.arange(len(x), device=x.device)[:, None]
    first, second = x[row, before], x[row, after]
    # At a whole frame the next one, perhaps padding, has weight 0.
    return first + (second - first) * weight


def warped(phase: Tensor, log_speed: Tensor) -> Tensor:
    """A phase `(N, T)` in 0..1 run through at uneven speed: exp(`log_speed`) `(N, K)` at K even points of the phase.

    Monotone; 0 stays 0 and 1 stays 1.
    """
    knots = F.pad(torch.cumsum(log_speed.exp(), dim=1), (1, 0))
    knots = knots / knots[:, -1:]
    scaled = phase * log_speed.shape[1]
    before = scaled.floor().long().clamp(max=log_speed.shape[1] - 1)
    low, high = knots.gather(1, before), knots.gather(1, before + 1)
    return low + (high - low) * (scaled - before)


def rotations(angles: Tensor) -> Tensor:
    """Angles `(N, 3)` in radians about x, y, z -> matrices `(N, 3, 3)`: first x, then z, then y."""
    (cx, cy, cz), (sx, sy, sz) = angles.cos().unbind(1), angles.sin().unbind(1)
    one, zero = torch.ones_like(cx), torch.zeros_like(cx)
    about_x = torch.stack([one, zero, zero, zero, cx, -sx, zero, sx, cx], dim=1).view(-1, 3, 3)
    about_y = torch.stack([cy, zero, sy, zero, one, zero, -sy, zero, cy], dim=1).view(-1, 3, 3)
    about_z = torch.stack([cz, -sz, zero, sz, cz, zero, zero, zero, one], dim=1).view(-1, 3, 3)
    return about_y @ about_z @ about_x


def mirrored(x: Tensor, counterpart: list[int]) -> Tensor:
    """Left and right swapped, x negated: `(N, T, V, 3)`."""
    return x[:, :, counterpart] * x.new_tensor([-1.0, 1.0, 1.0])
