"""Skeleton encoder: a bidirectional GRU over frames, as MS2L's released code uses it."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from zoo.encoder import Encoder
from zoo.errors import ConfigError, InputError
from zoo.preprocessing.joints import layout
from zoo.preprocessing.skeleton import SkeletonInput
from zoo.strict import Strict

Stream = Literal["joint", "bone", "motion"]


class SkeletonGRUArguments(Strict):
    """Arguments of the `skeleton_gru` family.

    `hidden`: units per direction; `layers`. `streams`: what the GRU sees of each frame, side by side: joints, bones
    (joint minus parent), motion (next frame minus this one, 0 in the last). `padding`: `"skip"` runs each sequence
    over its own frames only; `"feed"` pads all to `input.frames` and runs over the padding, as the released code
    does. `pool`: `"mean"` over true frames; `"ms2l"`, their sum over n + 0.01; `"mean_max"`, mean and maximum side by
    side, which doubles the features. `fusion`: `"early"`, one GRU sees all streams; `"late"`, each stream has a GRU of
    its own, and their outputs stand side by side. `norm`: `"batch"` ends in a batch norm without weights, so that no
    feature outweighs the others where neighbours are compared; untrained it changes nothing.
    """

    hidden: int = Field(default=300, ge=1, le=8192)
    layers: int = Field(default=2, ge=1, le=8)
    streams: tuple[Stream, ...] = ("joint",)
    padding: Literal["skip", "feed"] = "skip"
    pool: Literal["mean", "ms2l", "mean_max"] = "mean"
    fusion: Literal["early", "late"] = "early"
    norm: Literal["none", "batch"] = "none"

    @field_validator("streams")
    @classmethod
    def _streams(cls, value: tuple[Stream, ...]) -> tuple[Stream, ...]:
        if not value or len(set(value)) != len(value):
            raise ValueError(
                f"streams must name each of joint, bone, motion at most once, and at least one, got {value}"
            )
        return value


class SkeletonGRU(Encoder):
    """`(N, T, V, 3)` and `lengths` -> `(N, 2 * hidden)`; twice that with `pool="mean_max"`, for each stream if late.

    The default, 2 layers of 300 units per direction, is the structure of MS2L's released code (Lin et al., ACM MM
    2020); hidden 30 with one layer is the structure that the paper prints.
    """

    Arguments = SkeletonGRUArguments

    def __init__(self, arguments: SkeletonGRUArguments, input: SkeletonInput) -> None:
        super().__init__()
        if not isinstance(input, SkeletonInput):
            raise ConfigError(f"skeleton_gru takes skeletons; set input.modality to 'skeleton', not {input.modality!r}")
        if arguments.padding == "feed" and input.frames is None:
            raise ConfigError("padding 'feed' needs input.frames, the length that all sequences are padded to")
        self.input, self.arguments = input, arguments
        networks = len(arguments.streams) if arguments.fusion == "late" else 1
        #: length of the features of one frame
        self.frame_features = 2 * arguments.hidden * networks
        self.num_features = self.frame_features * (2 if arguments.pool == "mean_max" else 1)
        points = input.bodies * input.joints
        width = points * input.channels * (len(arguments.streams) // networks)
        shape = (width, arguments.hidden, arguments.layers)
        if arguments.fusion == "late":
            self.grus = nn.ModuleList(nn.GRU(*shape, batch_first=True, bidirectional=True) for _ in arguments.streams)
            for gru in self.grus:
                initialise_gru(gru)
        else:
            self.gru = nn.GRU(*shape, batch_first=True, bidirectional=True)
            initialise_gru(self.gru)
        self.norm: nn.Module = nn.Identity()
        if arguments.norm == "batch":
            # Slow, so that the statistics are those of a whole small data set.
            self.norm = nn.BatchNorm1d(self.num_features, affine=False, momentum=0.02)
        parents = layout(input.layout).parents
        every = [body * input.joints + parent for body in range(input.bodies) for parent in parents]
        self.register_buffer("parents", torch.tensor(every), persistent=False)

    def _features(self, x: Tensor, lengths: Tensor | None) -> Tensor:
        """`(N, T, frame_features)`, zeros beyond the true frames."""
        frames = x.shape[1]
        whole = torch.full((len(x),), frames, device=x.device)
        lengths = whole if lengths is None else lengths.to(x.device)
        valid = frame_mask(lengths, frames)
        streams = self.streams(x, valid)
        feed = self.arguments.padding == "feed"  # which runs over the padding in any case
        whole_batch = not feed and (lengths is whole or torch.equal(lengths.cpu(), whole.cpu()))
        if self.arguments.fusion == "late":
            parts = zip(self.grus, streams.split(self.input.channels, dim=-1), strict=True)
            out = torch.cat([self._run(gru, part.flatten(2), lengths, whole_batch) for gru, part in parts], dim=-1)
        else:
            out = self._run(self.gru, streams.flatten(2), lengths, whole_batch)
        return out * valid[..., None]

    def _run(self, gru: nn.GRU, rows: Tensor, lengths: Tensor, whole: bool) -> Tensor:
        """`(N, T, D)` -> `(N, T, 2 * hidden)`; `whole`: no sequence has padding."""
        frames = rows.shape[1]
        if self.arguments.padding == "feed":
            return gru(nn.functional.pad(rows, (0, 0, 0, self.input.frames - frames)))[0][:, :frames]
        if whole:
            return gru(rows)[0]  # no padding: 1.5 times as fast as packed
        packed = pack_padded_sequence(rows, lengths.cpu(), batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(gru(packed)[0], batch_first=True, total_length=frames)[0]

    def streams(self, x: Tensor, valid: Tensor) -> Tensor:
        """`(N, T, V, C)` -> `(N, T, V, C * streams)`; padding frames are zero in every stream."""
        made = {"joint": lambda: x, "bone": lambda: x - x[:, :, self.parents], "motion": lambda: motion(x, valid)}
        parts = [made[name]() for name in self.arguments.streams]
        return torch.cat(parts, dim=-1) * valid[..., None, None]

    def pool(self, features: Tensor, lengths: Tensor | None = None) -> Tensor:
        """`(N, T, frame_features)` -> `(N, num_features)`, over the true frames."""
        return self.norm(self._pool(features, lengths))

    def _pool(self, features: Tensor, lengths: Tensor | None) -> Tensor:
        frames = features.shape[1]
        count = frames if lengths is None else lengths.to(features.device, features.dtype)[:, None]
        mean = features.sum(dim=1) / (count + (0.01 if self.arguments.pool == "ms2l" else 0))
        if self.arguments.pool != "mean_max":
            return mean
        if lengths is not None:
            padding = ~frame_mask(lengths.to(features.device), frames)
            features = features.masked_fill(padding[..., None], -torch.inf)
        return torch.cat([mean, features.amax(dim=1)], dim=1)

    def check_input(self, x: Tensor, lengths: Tensor | None) -> None:
        points = self.input.bodies * self.input.joints
        wanted, came = f"(N, T, {points}, {self.input.channels})", tuple(x.shape)
        if x.ndim == 3:
            raise InputError(f"{self.name} takes a batch {wanted}, got {came}; add a batch axis with x[None]")
        if x.ndim != 4 or came[2:] != (points, self.input.channels):
            raise InputError(f"{self.name} takes skeletons {wanted} ({self.input.layout}), got {came}")
        if 0 in came[:2]:
            raise InputError(f"{self.name} got an empty batch {came}")
        if self.arguments.padding == "feed" and came[1] > self.input.frames:
            raise InputError(
                f"{self.name} takes at most {self.input.frames} frames, got {came[1]}; use encoder.transform()"
            )
        if lengths is not None and not torch.compiler.is_compiling():
            self._check_lengths(lengths, came)

    def _check_lengths(self, lengths: Tensor, came: tuple[int, ...]) -> None:
        if lengths.shape != (came[0],) or lengths.is_floating_point():
            raise InputError(
                f"{self.name} takes lengths of shape ({came[0]},) and an integer dtype, "
                f"got {tuple(lengths.shape)} {lengths.dtype}"
            )
        if lengths.device.type == "cpu" and not (int(lengths.min()) >= 1 and int(lengths.max()) <= came[1]):
            raise InputError(
                f"{self.name}: lengths must lie in 1..{came[1]}, the frames of the batch, "
                f"got {int(lengths.min())}..{int(lengths.max())}"
            )


def initialise_gru(gru: nn.GRU) -> None:
    """MS2L's initialisation: Xavier-uniform input weights, orthogonal recurrent weights, zero biases."""
    for name, parameter in gru.named_parameters():
        if name.startswith("weight_ih"):
            nn.init.xavier_uniform_(parameter)
        elif name.startswith("weight_hh"):
            nn.init.orthogonal_(parameter)
        else:
            nn.init.zeros_(parameter)


def frame_mask(lengths: Tensor, frames: int) -> Tensor:
    """`(N,)` lengths -> `(N, frames)` bool, True for true frames."""
    return torch.arange(frames, device=lengths.device) < lengths[:, None]


def motion(x: Tensor, valid: Tensor) -> Tensor:
    """Next frame minus this one, `(N, T, V, C)`; 0 in each sequence's last true frame and beyond."""
    step = nn.functional.pad(x[:, 1:] - x[:, :-1], (0, 0, 0, 0, 0, 1))
    followed = nn.functional.pad(valid[:, 1:], (0, 1))
    return step * followed[..., None, None]
