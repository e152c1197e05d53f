"""MS2L: Multi-Task Self-Supervised Learning for Skeleton Based Action Recognition.

Lin, Song, Yang, Liu, ACM MM 2020, arXiv 2010.05599. One encoder, three tasks: predict the motion behind a mask,
tell in which order three shuffled segments came, and agree on the sequence in all three guises.
"""

from __future__ import annotations

from itertools import permutations
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from training import distributed
from training.augment.skeleton import SkeletonAugment, SkeletonAugmentConfig
from training.losses import at_least_float32, contrastive_accuracy, nt_xent_logits
from training.methods.base import Context
from zoo.architectures.skeleton_gru import frame_mask
from zoo.encoder import Encoder
from zoo.errors import ConfigError, nearest
from zoo.preprocessing.skeleton import SkeletonInput
from zoo.strict import Strict

#: `released`: the official code as it is, down to its oddities. `paper`: the same tasks with the narrow decoder that
#: fits the paper's encoder of 1 x 30 units, and the future as the target, as the abstract says; the text itself was
#: not read. `corrected`: the released tasks with padding, seen frames and self-similarity left out of the losses.
PRESETS: dict[str, dict[str, Any]] = {
    "released": {},
    "paper": {"decoder_layers": 1, "motion_target": "tail", "motion_mean": "valid"},
    "corrected": {"motion_target": "tail", "motion_mean": "valid", "self_similarity": "excluded"},
}


class MS2L(nn.Module):
    """Motion prediction, jigsaw puzzle recognition and contrastive learning on one sequence."""

    title = "MS²L"
    paper = "MS²L: Multi-Task Self-Supervised Learning for Skeleton Based Action Recognition (Lin et al., 2020)"
    url = "https://arxiv.org/abs/2010.05599"

    class Config(Strict):
        """Defaults are the official code's. `preset`: start from another of `PRESETS`.

        `motion`, `jigsaw`, `contrastive`: weights of the tasks; 0 switches one off.
        `mask_ratio`: share of the frames hidden at the end; ceil((1 - ratio) * n) frames stay seen.
        `motion_target`: `"all"` frames or the masked `"tail"`. `motion_mean`: squared error per element of the
        `"padded"` batch at `input.frames` frames, or of the `"valid"` target frames of the global batch.
        `segments` of the puzzle, segments! classes. `temperature` of the contrastive loss.
        `self_similarity`: `"minus_one"` keeps an embedding beside itself as a negative of similarity -1;
        `"excluded"` leaves it out. `positives`: each guise against the `"mean"` of all (which holds itself),
        or against each of the `"others"`. `decoder_layers`, `hidden_dim`, `out_dim`: sizes of the heads.
        `augment`: None as released; else each guise is a random view of its own.
        `strategy`: `"pretrain"` sees no label. `"joint"` adds the cross-entropy of a linear classifier on the
        original and counts the tasks `scale` times. `"moving"` goes from the one to the other: linearly over the
        steps, the tasks' weight from 1 to `scale`, the classifier's from 0 to 1. The paper's constants are not
        known to us; in an old script of its authors a scale of 0.05 stands on one side.
        """

        motion: float = Field(default=1.0, ge=0)
        jigsaw: float = Field(default=1.0, ge=0)
        contrastive: float = Field(default=1.0, ge=0)
        mask_ratio: float = Field(default=0.3, gt=0, lt=1)
        motion_target: Literal["all", "tail"] = "all"
        motion_mean: Literal["padded", "valid"] = "padded"
        segments: int = Field(default=3, ge=2, le=5)
        temperature: float = Field(default=0.9, gt=0)
        self_similarity: Literal["minus_one", "excluded"] = "minus_one"
        positives: Literal["mean", "others"] = "mean"
        decoder_layers: int = Field(default=2, ge=1, le=8)
        hidden_dim: int = Field(default=2048, ge=1)
        out_dim: int = Field(default=1024, ge=1)
        augment: SkeletonAugmentConfig | None = None
        strategy: Literal["pretrain", "joint", "moving"] = "pretrain"
        scale: float = Field(default=0.05, ge=0)

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

    def __init__(self, encoder: Encoder, config: Config, context: Context) -> None:
        super().__init__()
        if not isinstance(encoder.input, SkeletonInput):
            raise ConfigError(f"ms2l trains on skeletons, but the encoder takes {encoder.modality} input")
        if config.motion and config.motion_mean == "padded" and encoder.input.frames is None:
            raise ConfigError("motion_mean 'padded' needs input.frames, the length that all sequences count as")
        self.config, self.encoder = config, encoder
        width = encoder.num_features
        points = encoder.input.bodies * encoder.input.joints * encoder.input.channels
        self.augment = None if config.augment is None else SkeletonAugment(config.augment, encoder.input)
        orders = torch.tensor(list(permutations(range(config.segments))))
        self.register_buffer("orders", orders, persistent=False)
        if config.motion:
            self.decoder = MotionDecoder(encoder.frame_features, config.decoder_layers, points)
        if config.jigsaw:
            self.puzzle = _mlp(width, config.hidden_dim, len(orders))
        if config.contrastive:
            self.projector = _mlp(width, config.hidden_dim, config.out_dim)
        self.uses_labels = config.strategy != "pretrain"
        if self.uses_labels:
            if context.classes is None:
                raise ConfigError(f"strategy {config.strategy!r} trains with labels, but the data has none")
            self.classifier = nn.Linear(width, context.classes)
            nn.init.xavier_normal_(self.classifier.weight)
            nn.init.zeros_(self.classifier.bias)
        #: Share of the training that is over; in the state, so that a resumed run weighs its losses alike.
        self.register_buffer("progress", torch.zeros((), dtype=torch.float64), persistent=self.uses_labels)
        self.total_steps = context.total_steps

    def views(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """The three guises of `batch["skeletons"]` `(N, T, V, C)` with `batch["lengths"]`.

        Returns:
            `original`, `moving` (of which the loss hides the tail) and `shuffled`, each `(N, T', V, C)`, with
            `*_lengths` `(N,)`; `order` `(N,)`, the class of the puzzle: a row of `orders`, 0 is the true order.
        """
        x, lengths = batch["skeletons"], batch["lengths"]
        original, moving, shuffled = (
            (x, lengths) if self.augment is None else self.augment(x, lengths, generator) for _ in range(3)
        )
        order = torch.randint(len(self.orders), (len(x),), generator=generator, device=x.device)
        # Too short to cut: in its true order, and labelled so.
        order = torch.where(shuffled[1] < self.config.segments, 0, order)
        return {
            "original": original[0],
            "original_lengths": original[1],
            "moving": moving[0],
            "moving_lengths": moving[1],
            "shuffled": shuffle_segments(shuffled[0], shuffled[1], self.orders[order]),
            "shuffled_lengths": shuffled[1],
            "order": order,
            **({"labels": batch["labels"]} if self.uses_labels else {}),
        }

    def loss(self, views: dict[str, Tensor]) -> dict[str, Tensor]:
        """`{"loss"}` and the terms of the tasks that are on, of this rank's samples against the global batch."""
        config = self.config
        lengths = {name: views[f"{name}_lengths"] for name in ("original", "moving", "shuffled")}
        seen = seen_frames(lengths["moving"], config.mask_ratio)
        hidden = views["moving"] * frame_mask(seen, views["moving"].shape[1])[..., None, None]
        wanted = {"original": config.contrastive + self.uses_labels, "moving": config.contrastive + config.motion}
        wanted["shuffled"] = config.contrastive + config.jigsaw
        guises = {"original": views["original"], "moving": hidden, "shuffled": views["shuffled"]}
        frames = self._encode({name: x for name, x in guises.items() if wanted[name]}, lengths)
        pooled = {name: at_least_float32(self.encoder.pool(out, lengths[name])) for name, out in frames.items()}
        terms: dict[str, Tensor] = {}
        if config.motion:
            predicted = self.decoder(frames["moving"], lengths["moving"])
            terms["motion"] = self._motion_loss(predicted, views["moving"], lengths["moving"], seen)
        if config.jigsaw:
            logits = at_least_float32(self.puzzle(pooled["shuffled"]))
            terms["jigsaw"] = F.cross_entropy(logits, views["order"])
            terms["jigsaw_accuracy"] = (logits.argmax(1) == views["order"]).float().mean()
        if config.contrastive:
            terms |= self._contrastive_loss([pooled[name] for name in ("original", "moving", "shuffled")])
        total = sum(
            getattr(config, name) * terms[name] for name in ("motion", "jigsaw", "contrastive") if name in terms
        )
        if self.uses_labels:
            logits = at_least_float32(self.classifier(pooled["original"]))
            terms["classification"] = F.cross_entropy(logits, views["labels"])
            terms["accuracy"] = (logits.argmax(1) == views["labels"]).float().mean()
            tasks, classification = self.weights()
            total = tasks * total + classification * terms["classification"]
        return {"loss": total, **{name: value.detach() for name, value in terms.items()}}

    forward = loss

    def weights(self) -> tuple[float, float]:
        """What the self-supervised tasks and the classification count at this step."""
        scale, done = self.config.scale, float(self.progress)
        return (scale, 1.0) if self.config.strategy == "joint" else (1 - (1 - scale) * done, done)

    def _encode(self, guises: dict[str, Tensor], lengths: dict[str, Tensor]) -> dict[str, Tensor]:
        """Frame features of each guise, from one pass over all: a GRU's cost is its steps in time, not its rows."""
        longest = max(x.shape[1] for x in guises.values())
        rows = torch.cat([F.pad(x, (0, 0, 0, 0, 0, longest - x.shape[1])) for x in guises.values()])
        counts = torch.cat([lengths[name] for name in guises])
        parts = self.encoder.forward_features(rows, counts).split([len(x) for x in guises.values()])
        return {name: part[:, : x.shape[1]] for (name, x), part in zip(guises.items(), parts, strict=True)}

    def _motion_loss(self, predicted: Tensor, target: Tensor, lengths: Tensor, seen: Tensor) -> Tensor:
        """Mean squared error as the config counts it; one process and many give the same."""
        frames = target.shape[1]
        counted = frame_mask(lengths, frames)
        if self.config.motion_target == "tail":
            counted = counted & ~frame_mask(seen, frames)
        target = target.flatten(2)
        error = (at_least_float32(predicted) - target).square().sum(dim=-1)
        # `where`, not a product: what lies beyond a sequence's end must not reach the gradient.
        total = torch.where(counted, error, 0).sum()
        if self.config.motion_mean == "padded":
            return total / (len(target) * self.encoder.input.frames * target.shape[-1])
        count = distributed.all_reduce_mean(counted.sum().to(total.dtype)) * target.shape[-1]
        return total / count.clamp_min(1)

    def _contrastive_loss(self, pooled: list[Tensor]) -> dict[str, Tensor]:
        """NT-Xent between the guises; each goes through the projector alone, as batch norm sees one at a time."""
        z = [at_least_float32(self.projector(h)) for h in pooled]
        if self.config.positives == "mean":
            centre = torch.stack(z).mean(dim=0)
            pairs = [(one, centre) for one in z]
        else:
            pairs = [(z[i], z[j]) for i in range(len(z)) for j in range(i)]
        losses, accuracies = zip(*(self._nt_xent(*pair) for pair in pairs), strict=True)
        return {"contrastive": torch.stack(losses).mean(), "contrastive_accuracy": torch.stack(accuracies).mean()}

    def _nt_xent(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        everyone = distributed.gather(torch.stack([a, b], dim=1))
        offset = distributed.rank() * len(a)
        temperature = self.config.temperature
        logits, positives = nt_xent_logits(a, b, temperature, everyone[:, 0], everyone[:, 1], offset)
        if self.config.self_similarity == "minus_one":
            logits = logits.masked_fill(logits == -torch.inf, -1 / temperature)
        return F.cross_entropy(logits, positives), contrastive_accuracy(logits, positives)

    def after_step(self, step: int) -> None:
        """Count the steps, for the moving weights."""
        self.progress.fill_((step + 1) / self.total_steps)


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


def seen_frames(lengths: Tensor, mask_ratio: float) -> Tensor:
    """Frames that stay visible, ceil((1 - mask_ratio) * n): those whose index is below (1 - mask_ratio) * n."""
    # Rounded first, so that 0.7 * 10 is 7 and not the 8 of 7.000000000000001.
    return ((lengths.double() * (1 - mask_ratio) * 1e6).round() / 1e6).ceil().to(lengths.dtype)


def shuffle_segments(x: Tensor, lengths: Tensor, orders: Tensor) -> Tensor:
    """Segments in a new order: the k-th place takes segment `orders[i, k]`.

    Args:
        x: `(N, T, V, C)`; a segment has floor(n / S) frames, the remainder and the padding stay in place.
        orders: `(N, S)`, a permutation for each sequence.
    """
    segments = orders.shape[1]
    frame = torch.arange(x.shape[1], device=x.device).expand(len(x), -1)
    size = (lengths // segments)[:, None]
    place = torch.div(frame, size.clamp_min(1), rounding_mode="floor").clamp(max=segments - 1)
    moved = orders.gather(1, place) * size + frame - place * size
    source = torch.where(frame < segments * size, moved, frame)
    return x[torch.arange(len(x), device=x.device)[:, None], source]


def _mlp(width: int, hidden: int, out: int) -> nn.Sequential:
    """Linear, batch norm, ReLU, Linear; Xavier-normal weights, zero bias. Batch norm would cancel a first bias."""
    first, last = nn.Linear(width, hidden, bias=False), nn.Linear(hidden, out)
    for layer in (first, last):
        nn.init.xavier_normal_(layer.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(first, nn.BatchNorm1d(hidden), nn.ReLU(inplace=True), last)
