"""Distillation without labels: a small encoder learns the features of a trained one.

`loss: similarity` is SEED (Fang et al., 2021, arXiv 2101.04731, section 3.2): student and teacher agree on how alike an
image is to a queue of others. `loss: cosine` regresses the teacher's direction instead, which needs no other images.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

import zoo
from training import distributed
from training.augment.choice import Augment, augmentation_for
from training.augment.crops import Crop, crop_augments, draw_views
from training.augment.parameters import PRESETS
from training.losses import at_least_float32, similarity_distillation
from training.methods.base import Context, Method, Run
from training.methods.image_views import embeddings
from training.modules.heads import Head, HiddenDim, projection_head
from training.modules.momentum import Queue
from training.modules.teacher import Teacher
from zoo.encoder import Encoder
from zoo.errors import ZooError
from zoo.strict import Sha256


class Distill(Method):
    """The student's head gives, for each view of an image, the teacher's features of that image."""

    title = "Distillation"
    paper = "SEED: Self-supervised Distillation for Visual Representation (Fang et al., 2021)"
    url = "https://arxiv.org/abs/2101.04731"
    streams = True

    class Config(Method.Config):
        """What is learned from, and how the two are compared."""

        teacher: str = Field(
            default="simclr_airbench95_cifar10",
            min_length=1,
            description="Address of the teacher, as zoo.load takes it.",
        )
        teacher_sha256: Sha256 | None = Field(
            default=None, description="Sha256 of the teacher's weights. A run writes it down, and takes no others."
        )
        teacher_sees: Literal["image", "views"] = Field(
            default="image",
            description="image: the whole image, once for all epochs. views: each view that the student sees, as in "
            "SEED.",
        )
        loss: Literal["similarity", "cosine"] = Field(
            default="similarity",
            description="similarity: cross-entropy of the two distributions over the queue (SEED). cosine: 1 - cosine "
            "of the student's and the teacher's vector.",
        )
        centre: bool = Field(
            default=True,
            description="Subtract the global batch's mean from the teacher's features, which else all point one way.",
        )
        temperature: float = Field(default=0.2, gt=0, description="tau of the student's distribution.")
        teacher_temperature: float = Field(
            default=0.05, gt=0, description="tau of the teacher's distribution; SEED takes 0.01 and does not centre."
        )
        queue_size: int = Field(
            default=4096, ge=1, description="Teacher's vectors to compare with, a multiple of batch_size."
        )
        head: Head = Field(default="linear", description="Student's head, whose output is as long as the teacher's.")
        hidden_dim: HiddenDim = None
        views: tuple[Crop, ...] = Field(default=(Crop(count=2),), min_length=1, description="The student's views.")
        augment: Augment = PRESETS["cifar"]

        @property
        def crops(self) -> tuple[Crop, ...]:
            """All views that may differ from the recipe's usual ones."""
            return self.views

        def resolved(self) -> Distill.Config:
            """With the sha256 of the teacher that the address holds now. Raises as `Teacher`."""
            return self.model_copy(update={"teacher_sha256": _teacher(self).sha256})

    def __init__(self, encoder: Encoder, config: Config, context: Context) -> None:
        super().__init__(encoder, config, context)
        teacher = _teacher(config)
        # In a tuple, so that neither state nor optimiser nor export ever meets the teacher's weights.
        self._teacher = (teacher,)
        teacher.check_student(encoder)
        self.title = f"Distillation of {teacher.encoder.name}"
        self.head = projection_head(config.head, encoder.num_features, config.hidden_dim, teacher.encoder.num_features)
        augment = augmentation_for(encoder, config.augment, context.image_size)
        self.drawn = self.augments = crop_augments(augment, config.views, context.image_size)
        size = config.queue_size if config.loss == "similarity" else context.global_batch
        self.queue = Queue(size, teacher.encoder.num_features, context.global_batch)
        self._new: list[Tensor] = []

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Distill:
        self._teacher[0].encoder._apply(fn, recurse)
        return super()._apply(fn, recurse)

    def begin(self, run: Run) -> None:
        """Ask the teacher once for all whole images, if it is to see these; the answers stay in the run folder."""
        if self.config.teacher_sees == "image":
            with distributed.main_first():
                rows, path = np.sort(run.data.rows(run.data.train)), run.folder.path / "teacher.npy"
                run.batches.known["targets"] = self._teacher[0].of_all(run.batches, len(run.data.array), rows, path)

    def views(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, Any]:
        """`views` of uint8 `batch["images"]` `(N, 3, H, W)`, each float32 `(N, 3, S, S)`; with the teacher's features
        of the whole images, `batch["targets"]` `(N, D)`, these too."""
        views = draw_views(self.augments, batch["images"], generator, self.view_size, self.image_size)
        return {"views": views} | {key: batch[key] for key in ("targets",) if key in batch}

    def loss(self, views: dict[str, Any]) -> dict[str, Tensor]:
        """`{"loss", "cosine"}` of this rank's views; `cosine` is the mean one between student and teacher."""
        config, x, teacher = self.config, views["views"], self._teacher[0]
        seen = [views["targets"]] if "targets" in views else [teacher.of_student(v, self.encoder.input) for v in x]
        # Each on its own: under autocast to bfloat16, torch.stack refuses float16, in which the answers are kept.
        targets = torch.stack([at_least_float32(each) for each in seen])  # (1 or V, N, D)
        if config.centre:
            targets = targets - distributed.gather_no_grad(targets.mean(0)).mean(0)
        targets = F.normalize(targets, dim=2).expand(len(x), -1, -1)
        z = at_least_float32(torch.stack(embeddings(self.encoder, self.head, x)))
        cosine = F.cosine_similarity(z, targets, dim=2).mean()
        if config.loss == "cosine":
            return {"loss": 1 - cosine, "cosine": cosine.detach()}
        if self.training:
            self._new.append(targets[0])
        taus = config.temperature, config.teacher_temperature
        losses = [similarity_distillation(*pair, self.queue.keys, *taus) for pair in zip(z, targets, strict=True)]
        return {"loss": torch.stack(losses).mean(), "cosine": cosine.detach()}

    def after_step(self, step: int, run: Run) -> None:
        """The step's teacher vectors enter the queue."""
        for new in self._new:
            self.queue.enqueue(distributed.gather_no_grad(new))
        self._new = []


def _teacher(config: Distill.Config) -> Teacher:
    try:
        return Teacher(zoo.load(config.teacher), config.teacher_sha256)
    except ZooError as error:
        raise type(error)(f"method.teacher={config.teacher}: {error}") from None
