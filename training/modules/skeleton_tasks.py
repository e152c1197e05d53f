"""Settings, heads and losses of MS2L's tasks (arXiv 2010.05599): motion prediction, jigsaw, contrast of guises."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from training import distributed
from training.augment.skeleton import SkeletonAugmentConfig
from training.losses import at_least_float32, contrastive_accuracy, nt_xent_logits
from training.methods.base import Method
from zoo.errors import ConfigError, nearest

#: `released`: the official code as it is, down to its oddities. `paper`: the same tasks with the narrow decoder that
#: fits the paper's encoder of 1 x 30 units, and the future as the target, as the abstract says; the text itself was
#: not read. `corrected`: the released tasks with padding, seen frames and self-similarity left out of the losses.
PRESETS: dict[str, dict[str, Any]] = {
    "released": {},
    "paper": {"decoder_layers": 1, "motion_target": "tail", "motion_mean": "valid"},
    "corrected": {"motion_target": "tail", "motion_mean": "valid", "self_similarity": "excluded"},
}


class TaskSettings(Method.Config):
    """Settings of MS2L; defaults are the official code's. The key `preset` starts from another of `PRESETS`."""

    motion: float = Field(default=1.0, ge=0, description="Weight of motion prediction; 0 switches it off.")
    jigsaw: float = Field(default=1.0, ge=0, description="Weight of the jigsaw puzzle; 0 switches it off.")
    contrastive: float = Field(default=1.0, ge=0, description="Weight of the contrastive task; 0 switches it off.")
    mask_ratio: float = Field(
        default=0.3, gt=0, lt=1, description="Share of the frames hidden at the end; ceil((1 - ratio) n) stay seen."
    )
    motion_target: Literal["all", "tail"] = Field(
        default="all", description="Frames to predict: all, or the masked tail."
    )
    motion_mean: Literal["padded", "valid"] = Field(
        default="padded",
        description="Squared error per element of the padded batch at input.frames frames, or of the valid target "
        "frames of the global batch.",
    )
    segments: int = Field(default=3, ge=2, le=5, description="Segments of the puzzle, which has segments! classes.")
    temperature: float = Field(default=0.9, gt=0, description="Of the contrastive loss.")
    self_similarity: Literal["minus_one", "excluded"] = Field(
        default="minus_one",
        description="minus_one: an embedding is a negative of its own, of similarity -1. excluded: it is left out.",
    )
    positives: Literal["mean", "others"] = Field(
        default="mean",
        description="Each guise against the mean of all (which holds itself), or against each of the others.",
    )
    compare: Literal["guises", "views"] = Field(
        default="guises",
        description="What the contrastive task compares: the sequence, its seen part and its shuffled segments, or the "
        "three whole in their own order; motion and jigsaw then cost passes of their own.",
    )
    decoder_layers: int = Field(default=2, ge=1, le=8, description="GRU layers of the motion decoder.")
    hidden_dim: int = Field(default=2048, ge=1, description="Width of the hidden layer of both other heads.")
    out_dim: int = Field(default=1024, ge=1, description="Width of the embedding that the contrastive task sees.")
    projection: bool = Field(
        default=True, description="false: the contrastive task compares the features themselves, as neighbours will be."
    )
    augment: SkeletonAugmentConfig | None = Field(
        default=None, description="null, as released: the guises are one view; else each is a random view of its own."
    )
    strategy: Literal["pretrain", "joint", "moving"] = Field(
        default="pretrain",
        description="pretrain sees no label. joint adds the cross-entropy of a linear classifier on the original "
        "and counts the tasks scale times. moving goes from the one to the other, linearly over the steps. The "
        "paper's constants are not known to us.",
    )
    scale: float = Field(default=0.05, ge=0, description="What the tasks count, at the end, beside the labels.")

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, raw: Any) -> Any:
        if not isinstance(raw, dict) or "preset" not in raw:
            return raw
        name = raw["preset"]
        if name not in PRESETS:
            raise ConfigError(f"recipe: unknown preset {name!r} of ms2l; {nearest(str(name), list(PRESETS))}")
        return {**PRESETS[name], **{key: value for key, value in raw.items() if key != "preset"}}

    @field_validator("contrastive")
    @classmethod
    def _any_task(cls, value: float, info: Any) -> float:
        if value == 0 and not info.data.get("motion") and not info.data.get("jigsaw"):
            raise ValueError("at least one of motion, jigsaw, contrastive must be > 0")
        return value


class MotionDecoder(nn.Module):
    """The encoder's frames `(N, T, D)` -> predicted coordinates `(N, T, points)`: a unidirectional GRU and a layer.

    Neither teacher forcing nor feedback, as in the released code, which leaves PyTorch's initialisation in place.
    """

    def __init__(self, width: int, layers: int, points: int) -> None:
        super().__init__()
        self.gru = nn.GRU(width, width, layers, batch_first=True)
        self.out = nn.Linear(width, points)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Values beyond a sequence's length mean nothing."""
        if int(lengths.min()) == x.shape[1]:
            return self.out(self.gru(x)[0])
        packed = pack_padded_sequence(x, lengths.cpu(), batch_first=True, enforce_sorted=False)
        out, _ = pad_packed_sequence(self.gru(packed)[0], batch_first=True, total_length=x.shape[1])
        return self.out(out)


def task_head(width: int, hidden: int, out: int) -> nn.Sequential:
    """Linear, batch norm, ReLU, Linear; Xavier-normal weights, zero bias. Batch norm would cancel a first bias."""
    first, last = nn.Linear(width, hidden, bias=False), nn.Linear(hidden, out)
    for layer in (first, last):
        nn.init.xavier_normal_(layer.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(first, nn.BatchNorm1d(hidden), nn.ReLU(inplace=True), last)


def motion_loss(predicted: Tensor, target: Tensor, counted: Tensor, frames: int | None) -> Tensor:
    """Mean squared error of predicted coordinates, over counted frames; one process and many give the same.

    Args:
        predicted: `(N, T, P)`. target: `(N, T, ...)` with P coordinates.
        counted: `(N, T)` bool, the frames whose error counts.
        frames: divide by so many frames of each sequence; None: by the counted frames of the global batch.
    """
    target = target.flatten(2)
    error = (at_least_float32(predicted) - target).square().sum(dim=-1)
    # `where`, not a product: what lies beyond a sequence's end must not reach the gradient.
    total = torch.where(counted, error, 0).sum()
    if frames is not None:
        return total / (len(target) * frames * target.shape[-1])
    count = distributed.all_reduce_mean(counted.sum().to(total.dtype)) * target.shape[-1]
    return total / count.clamp_min(1)


def guises_loss(
    z: list[Tensor], temperature: float, positives: str = "mean", minus_one: bool = True
) -> tuple[Tensor, Tensor]:
    """NT-Xent between the guises of this rank's samples against the global batch, and its accuracy.

    Args:
        z: embeddings `(n, d)` of each guise. positives: against the `"mean"` of all guises, or each of the `"others"`.
        minus_one: an embedding is a negative of its own, of similarity -1, as in the released code.
    """
    if positives == "mean":
        centre = torch.stack(z).mean(dim=0)
        pairs = [(one, centre) for one in z]
    else:
        pairs = [(z[i], z[j]) for i in range(len(z)) for j in range(i)]
    losses, accuracies = [], []
    for a, b in pairs:
        everyone = distributed.gather(torch.stack([a, b], dim=1))
        offset = distributed.rank() * len(a)
        logits, columns = nt_xent_logits(a, b, temperature, everyone[:, 0], everyone[:, 1], offset)
        if minus_one:
            logits = logits.masked_fill(logits == -torch.inf, -1 / temperature)
        losses.append(F.cross_entropy(logits, columns))
        accuracies.append(contrastive_accuracy(logits, columns))
    return torch.stack(losses).mean(), torch.stack(accuracies).mean()
