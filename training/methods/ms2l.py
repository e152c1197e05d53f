"""MS2L: Multi-Task Self-Supervised Learning for Skeleton Based Action Recognition.

Lin, Song, Yang, Liu, ACM MM 2020, arXiv 2010.05599. One encoder, three tasks: predict the motion behind a mask,
tell in which order three shuffled segments came, and agree on the sequence in all three guises.
"""

from __future__ import annotations

from itertools import permutations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.augment.skeleton import SkeletonAugment
from training.augment.skeleton_guises import seen_frames, shuffle_segments
from training.losses import at_least_float32
from training.methods.base import Context, Method, Run
from training.modules.skeleton_tasks import MotionDecoder, TaskSettings, guises_loss, motion_loss, task_head
from zoo.architectures.skeleton_gru import frame_mask
from zoo.encoder import Encoder
from zoo.errors import ConfigError
from zoo.preprocessing.skeleton import SkeletonInput


class MS2L(Method):
    """Motion prediction, jigsaw puzzle recognition and contrastive learning on one sequence."""

    title = "MS²L"
    paper = "MS²L: Multi-Task Self-Supervised Learning for Skeleton Based Action Recognition (Lin et al., 2020)"
    url = "https://arxiv.org/abs/2010.05599"

    class Config(TaskSettings):
        """Which tasks, and how each is counted; see `TaskSettings`."""

    def __init__(self, encoder: Encoder, config: Config, context: Context) -> None:
        super().__init__(encoder, config, context)
        if not isinstance(encoder.input, SkeletonInput):
            raise ConfigError(f"ms2l trains on skeletons, but the encoder takes {encoder.modality} input")
        if config.motion and config.motion_mean == "padded" and encoder.input.frames is None:
            raise ConfigError("motion_mean 'padded' needs input.frames, the length that all sequences count as")
        width = encoder.num_features
        points = encoder.input.bodies * encoder.input.joints * encoder.input.channels
        self.augment = None if config.augment is None else SkeletonAugment(config.augment, encoder.input)
        self.register_buffer("orders", torch.tensor(list(permutations(range(config.segments)))), persistent=False)
        if config.motion:
            self.decoder = MotionDecoder(encoder.frame_features, config.decoder_layers, points)
        if config.jigsaw:
            self.puzzle = task_head(width, config.hidden_dim, len(self.orders))
        if config.contrastive:
            head = (width, config.hidden_dim, config.out_dim)
            self.projector = task_head(*head) if config.projection else nn.Identity()
        self.uses_labels = config.strategy != "pretrain"
        if self.uses_labels:
            if context.classes is None:
                raise ConfigError(f"strategy {config.strategy!r} trains with labels, but the data has none")
            self.classifier = nn.Linear(width, context.classes)
            nn.init.xavier_normal_(self.classifier.weight)
            nn.init.zeros_(self.classifier.bias)
        #: Share of the training that is over; in the state, so that a resumed run weighs its losses alike.
        self.register_buffer("progress", torch.zeros((), dtype=torch.float64), persistent=self.uses_labels)

    def views(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """The three guises of `batch["skeletons"]` `(N, T, V, C)` with `batch["lengths"]`.

        Returns:
            `original`, `moving` (of which the loss hides the tail) and `shuffled`, each `(N, T', V, C)`, with
            `*_lengths` `(N,)`; `straight`, `shuffled` in its true order; `order` `(N,)`: a row of `orders`, 0 is true.
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
            "straight": shuffled[0],
            "order": order,
            **({"labels": batch["labels"]} if self.uses_labels else {}),
        }

    def loss(self, views: dict[str, Tensor]) -> dict[str, Tensor]:
        """`{"loss"}` and the terms of the tasks that are on, of this rank's samples against the global batch."""
        config = self.config
        lengths = {name: views[f"{name}_lengths"] for name in ("original", "moving", "shuffled")}
        seen = seen_frames(lengths["moving"], config.mask_ratio)
        hidden = views["moving"] * frame_mask(seen, views["moving"].shape[1])[..., None, None]
        guises = {"original": views["original"], "moving": hidden, "shuffled": views["shuffled"]}
        compared = tuple(guises) if config.contrastive else ()
        if config.contrastive and config.compare == "views":
            compared = ("original", "whole", "straight")
            guises |= {"whole": views["moving"], "straight": views["straight"]}
            lengths |= {"whole": lengths["moving"], "straight": lengths["shuffled"]}
        tasks = {"original": self.uses_labels, "moving": config.motion, "shuffled": config.jigsaw}
        frames = self._encode({k: x for k, x in guises.items() if k in compared or tasks.get(k)}, lengths)
        pooled = {name: at_least_float32(self.encoder.pool(out, lengths[name])) for name, out in frames.items()}
        terms: dict[str, Tensor] = {}
        if config.motion:
            predicted = self.decoder(frames["moving"], lengths["moving"])
            counted = frame_mask(lengths["moving"], predicted.shape[1])
            if config.motion_target == "tail":
                counted = counted & ~frame_mask(seen, predicted.shape[1])
            frames_each = self.encoder.input.frames if config.motion_mean == "padded" else None
            terms["motion"] = motion_loss(predicted, views["moving"], counted, frames_each)
        if config.jigsaw:
            logits = at_least_float32(self.puzzle(pooled["shuffled"]))
            terms["jigsaw"] = F.cross_entropy(logits, views["order"])
            terms["jigsaw_accuracy"] = (logits.argmax(1) == views["order"]).float().mean()
        if config.contrastive:
            terms |= self.contrast([pooled[name] for name in compared])
        weights = {name: getattr(config, name) for name in ("motion", "jigsaw", "contrastive")}
        total = sum(weight * terms[name] for name, weight in weights.items() if weight)
        if self.uses_labels:
            logits = at_least_float32(self.classifier(pooled["original"]))
            terms["classification"] = F.cross_entropy(logits, views["labels"])
            terms["accuracy"] = (logits.argmax(1) == views["labels"]).float().mean()
            counts, classification = self.weights()
            total = counts * total + classification * terms["classification"]
        return {"loss": total, **{name: value.detach() for name, value in terms.items()}}

    def contrast(self, pooled: list[Tensor]) -> dict[str, Tensor]:
        """NT-Xent between the guises; each goes through the projector alone, as batch norm sees one at a time."""
        z = [at_least_float32(self.projector(h)) for h in pooled]
        config = self.config
        loss, accuracy = guises_loss(z, config.temperature, config.positives, config.self_similarity == "minus_one")
        return {"contrastive": loss, "contrastive_accuracy": accuracy}

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

    def after_step(self, step: int, run: Run) -> None:
        """Count the steps, for the moving weights."""
        self.progress.fill_((step + 1) / self.total_steps)
