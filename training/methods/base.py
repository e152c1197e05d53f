"""`Method`: every hook that the loop, the data, the optimiser and the export may call, with defaults."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from training.augment.crops import Crop
from zoo.encoder import Encoder
from zoo.strict import Strict

if TYPE_CHECKING:
    from training.batches import Batches, TrainingData
    from training.recipe import Recipe
    from training.run_folder import RunFolder


@dataclass(frozen=True)
class Context:
    """What a method may know about the run when it is built.

    Attributes:
        image_size: side in pixels of a view; 0 for skeletons.
        global_batch: samples per step over all processes.
        total_steps: optimizer steps of the whole run.
        samples: size of the training set.
        classes: number of classes of labelled training data, which only methods that ask for labels may use.
        seed: of the run.
        accumulate: passes that make one step.
        processes: how many train together.
        optimizer: `optim.name` of the recipe.
    """

    image_size: int
    global_batch: int
    total_steps: int
    samples: int
    classes: int | None = None
    seed: int = 0
    accumulate: int = 1
    processes: int = 1
    optimizer: str = "sgd"


class Run(Protocol):
    """What a hook may ask of the run. It is lent for the length of one call; no method keeps it."""

    recipe: Recipe
    folder: RunFolder
    data: TrainingData
    batches: Batches
    optimizer: torch.optim.Optimizer
    step: int
    steps_per_epoch: int

    def autocast(self) -> contextlib.AbstractContextManager:
        """Mixed precision as the recipe asks."""

    def first_batches(self, part: int, count: int) -> list[dict[str, Tensor]]:
        """This process's share of the first `count` batches of a part of the training data (see `Method.halves`)."""


class Method(nn.Module):
    """A way to train an encoder without labels: `title`, `paper` and `url` for the card, a `Config`, `views`, `loss`.

    Everything else has a default that suits a method with neither queue nor momentum encoder.
    """

    title: str
    paper: str
    url: str
    #: Whether each batch holds one batch from either of two random, disjoint halves of the training data, as a search
    #: needs it: the first half of the batch is from half A (part 0), the second from half B (part 1).
    halves: bool = False
    #: Whether `loss` is given labels. A class says False; only a config that asks for labels may say True.
    uses_labels: bool = False
    #: Whether the run ends in an encoder; otherwise `export` writes something else, and weights cannot be averaged.
    ends_in_encoder: bool = True
    #: Whether pictures can be streamed: `views` draws all views by `draw_views`, in the order of `drawn`.
    streams: bool = False

    class Config(Strict):
        """The method's own settings, each a field with a description."""

        @property
        def crops(self) -> tuple[Crop, ...]:
            """All views whose number or size may differ from the recipe's usual ones."""
            return ()

        def resolved(self) -> Method.Config:
            """The same settings with what their addresses hold pinned by sha256; asked before anything is written."""
            return self

    config: Any
    encoder: Encoder
    drawn: list[Any]

    def __init__(self, encoder: Encoder, config: Config, context: Context) -> None:
        super().__init__()
        self.config, self.encoder = config, encoder
        self.image_size = self.view_size = context.image_size
        self.total_steps = context.total_steps

    def views(self, batch: dict[str, Tensor], generator: torch.Generator) -> Any:
        """What `loss` takes, drawn on the device from a batch of `Batches`; with `uses_labels` it holds `"labels"`."""
        raise NotImplementedError

    def loss(self, views: Any) -> dict[str, Tensor]:
        """`"loss"`, a scalar with gradient, and further named scalars to log, of this process's samples."""
        raise NotImplementedError

    def forward(self, views: Any) -> dict[str, Tensor]:
        """`loss`, so that DistributedDataParallel sees the call."""
        return self.loss(views)

    def set_view_size(self, pixels: int) -> None:
        """Side of the views from now on; called before every step, for progressive resolution."""
        self.view_size = pixels

    def relabel(self, labels: np.ndarray) -> np.ndarray:
        """Labels `(N,)` of the data -> those that `views` gets, if `uses_labels`."""
        return labels

    def begin(self, run: Run) -> None:
        """Called before the first step of a new or a continued run, on every process."""

    def after_step(self, step: int, run: Run) -> None:
        """Move what follows the encoder, after optimizer step `step` (0-based)."""

    def after_epoch(self, epoch: int, run: Run) -> None:
        """Called after each epoch (1-based) with finite losses, on every process."""

    @property
    def finished(self) -> bool:
        """Whether the run ends now, before its last step."""
        return False

    def draw(self, images: Tensor, folder: Path) -> list[Path]:
        """Pictures of what was learned on uint8 `images` `(N, 3, H, W)`, PNG files in `folder`."""
        return []

    def export(self, run: Run) -> Path:
        """Write what the run ends in, where that is no encoder (`ends_in_encoder`); returns the file."""
        raise NotImplementedError
