"""SSNAS: Self-supervised Neural Architecture Search (arXiv 2007.01500), in the relaxation of DARTS (arXiv 1806.09055).

A contrastive loss takes the place of labels for both the weights w, on one half of the unlabelled images, and the
architecture parameters alpha, on the other. No figure of the paper is used here: see RECORDS.md for what is our choice.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training import distributed
from training.losses import at_least_float32
from training.methods.base import Context, Run
from training.methods.simclr import SimCLR
from training.search.alpha_adam import AlphaAdam
from training.search.curvature import CurvatureStop
from training.search.derive import skips
from training.search.gradients import by_alpha, by_weights, finite_mean, spread_by_alpha
from training.search.history import write_epoch, write_found
from training.search.second_order import second_order_gradient
from training.search.settings import SearchSettings, check_search
from training.search.supernet import Supernet
from training.search.validation import curvature, selected_alpha
from zoo.encoder import Encoder


class SSNAS(SimCLR):
    """NT-Xent on half A moves the supernet's weights, on half B its architecture parameters, in turns."""

    title = "SSNAS"
    paper = "Self-supervised Neural Architecture Search (Kaplan and Giryes, 2020)"
    url = "https://arxiv.org/abs/2007.01500"
    halves = True
    ends_in_encoder = False

    class Config(SearchSettings, SimCLR.Config):
        """SimCLR's settings and those of the search."""

    encoder: Supernet

    def __init__(self, encoder: Encoder, config: Config, context: Context) -> None:
        check_search(encoder, config, context)
        super().__init__(encoder, config, context)
        self.seed = context.seed
        self.uses_labels = config.objective != "contrastive"
        if self.uses_labels:
            self.classes = context.classes
            self.head = nn.Linear(encoder.num_features, context.classes)
        self.alpha_adam = AlphaAdam(encoder.alpha, config.alpha_lr, config.alpha_betas, config.alpha_weight_decay)
        self.register_buffer("alpha_before", encoder.alpha.clone())
        self.register_buffer("stopped", torch.zeros((), dtype=torch.bool))
        self.curvature_stop = None
        if config.early_stop_curvature is not None:
            self.curvature_stop = CurvatureStop(encoder.alpha, config.curvature_window, config.early_stop_curvature)
        self._views: dict[str, list[Tensor]] | None = None

    def relabel(self, labels: np.ndarray) -> np.ndarray:
        """Labels `(N,)` of the data -> those that the search sees: the same, or one of the classes at random each."""
        if self.config.objective == "labels":
            return labels
        return np.random.default_rng(self.seed).integers(0, self.classes, len(labels))

    @property
    def finished(self) -> bool:
        """Whether the search ended early."""
        return bool(self.stopped)

    def views(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, list[Tensor]]:
        """Two views of each image of half A and of half B, `"a"` and `"b"`; an objective with labels adds those."""
        halves = zip("ab", batch["images"].chunk(2), strict=True)
        views = {name: super(SSNAS, self).views({"images": images}, generator) for name, images in halves}
        if self.uses_labels:
            for name, labels in zip("ab", batch["labels"].chunk(2), strict=True):
                views[name].append(labels)
        return views

    def objective(self, half: list[Tensor]) -> dict[str, Tensor]:
        """`{"loss", "accuracy"}` of what `views` made of one half."""
        if not self.uses_labels:
            return super().loss(half)
        *views, labels = half
        logits, labels = at_least_float32(self.head(self.encoder(torch.cat(views)))), labels.repeat(len(views))
        return {"loss": F.cross_entropy(logits, labels), "accuracy": (logits.argmax(1) == labels).float().mean()}

    def loss(self, views: dict[str, list[Tensor]]) -> dict[str, Tensor]:
        """`{"loss", "accuracy", "entropy"}` of half A under the alpha of this step."""
        self._views = views
        return {**self.objective(views["a"]), "entropy": self.encoder.entropy()}

    def after_step(self, step: int, run: Run) -> None:
        """One step of alpha on half B, once the delay is over."""
        views, self._views = self._views, None
        if views is None or step < self.config.alpha_delay * self.total_steps or self.finished:
            return
        gradient = self.alpha_gradient(views, run)
        weight = self.config.beta_regularisation * step / max(1, self.total_steps)
        if weight:
            gradient = gradient + weight * spread_by_alpha(self.encoder)
        gradient = finite_mean(gradient, step, self.config.order)
        self.alpha_adam.step(self.encoder.alpha, gradient)

    def alpha_gradient(self, views: dict[str, list[Tensor]], run: Run) -> Tensor:
        """Gradient by alpha of the objective on half B; of order 2, through one step of SGD on half A."""

        def loss(half: str) -> Tensor:
            return self.objective(views[half])["loss"]

        if self.config.order == 1:
            return by_alpha(self.encoder, lambda: loss("b"), run.autocast)[0]
        w = [p for p in self.parameters() if p.requires_grad]
        return second_order_gradient(
            w,
            run.optimizer,
            weight_gradient=lambda: by_weights(lambda: loss("a"), run.autocast, w),
            on_a=lambda: by_alpha(self.encoder, lambda: loss("a"), run.autocast)[0],
            on_b=lambda weights: by_alpha(self.encoder, lambda: loss("b"), run.autocast, weights),
        )

    @torch.no_grad()
    def after_epoch(self, epoch: int, run: Run) -> None:
        """End the search if it is time, and write the epoch's cell to the run folder."""
        encoder, started = self.encoder, int(self.alpha_adam.steps) > 0
        skipped, facts = skips(encoder.genotype()), {}
        limit, earlier = self.config.early_stop_skips, None
        if limit is not None and skipped >= limit and started:
            earlier = self.alpha_before
        elif self.curvature_stop is not None and started and not self.finished:
            bent = curvature(self, run, epoch)
            facts = {"curvature": float(f"{bent:.6g}")}
            earlier = self.curvature_stop.earlier(bent, encoder.alpha)
        if earlier is not None:
            encoder.alpha.copy_(earlier)
            self.stopped.fill_(True)
        self.alpha_before.copy_(encoder.alpha)
        if distributed.is_main():
            known = {"entropy": round(float(encoder.entropy()), 6), "skips": skipped}
            known |= {"alpha_steps": int(self.alpha_adam.steps), "stopped": self.finished, **facts}
            write_epoch(run.folder.path, epoch, encoder.genotype(self.config.skip_cap), known)

    def export(self, run: Run) -> Path:
        """Write `genotype.json` with where it comes from, and `cell.svg`; a supernet itself is never published."""
        config = self.config
        facts = {"objective": config.objective, "selection": config.selection, "order": config.order}
        facts |= {"entropy": round(float(self.encoder.entropy()), 6), "stopped_early": self.finished}
        return write_found(run, self.encoder.genotype(config.skip_cap, selected_alpha(self, run)), facts)
