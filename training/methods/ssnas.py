"""SSNAS: Self-supervised Neural Architecture Search (arXiv 2007.01500), in the relaxation of DARTS (arXiv 1806.09055).

A contrastive loss takes the place of labels for both the weights w, on one half of the unlabelled images, and the
architecture parameters alpha, on the other. No figure of the paper is used here: see RECORDS.md for what is our choice.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from training import distributed
from training.environment import code_commit
from training.losses import at_least_float32
from training.methods.base import Context
from training.methods.simclr import SimCLR
from training.search.alpha_adam import AlphaAdam
from training.search.curvature import CurvatureStop, largest_eigenvalue
from training.search.derive import derive, entropy, skips
from training.search.perturbation import select_by_perturbation
from training.search.second_order import second_order_gradient
from training.search.supernet import Supernet
from zoo.architectures.cell_picture import cell_svg
from zoo.architectures.genotype import DartsGenotype, NB201Genotype, genotype_hash, parse_genotype, to_json
from zoo.encoder import Encoder
from zoo.errors import ConfigError, TrainingError
from zoo.files import write_text

GENOTYPE, HISTORY, PICTURE, PICTURES = "genotype.json", "genotypes.jsonl", "cell.svg", "cells"


class SSNAS(SimCLR):
    """NT-Xent on half A moves the supernet's weights, on half B its architecture parameters, in turns."""

    title = "SSNAS"
    paper = "Self-supervised Neural Architecture Search (Kaplan and Giryes, 2020)"
    url = "https://arxiv.org/abs/2007.01500"
    #: The loop draws every batch once from each of two random, disjoint halves of the training images.
    halves = True

    class Config(SimCLR.Config):
        """Beside SimCLR's settings:

        `objective`: what moves w and alpha: NT-Xent, or, as controls, cross-entropy with the true labels or with
        labels drawn at random once (RLNAS, arXiv 2101.11834); all else is the same. `order`: 1, or 2 to differentiate
        through one step of w (DARTS section 2.3). `alpha_lr`, `alpha_betas`, `alpha_weight_decay`: Adam of alpha.
        `alpha_delay`: fraction of the search in which alpha stands still. `beta_regularisation`: final weight of the
        mean logsumexp of alpha over edges, which rises from 0 (beta-DARTS, arXiv 2203.01665). `skip_cap`: most skip
        connections of the derived normal cell. `early_stop_skips`: end once the normal cell, not capped, holds so
        many, and return the epoch before (DARTS+, arXiv 1909.06035). `early_stop_curvature`: end once the largest
        eigenvalue of the Hessian by alpha, averaged over `curvature_window` epochs, exceeds so many times its mean
        `curvature_window - 1` epochs earlier, and return that epoch (arXiv 1909.09656, which takes 1.3 and 5).
        `selection`: by alpha, or by what an operation's removal costs on `selection_batches` batches of half B.
        """

        objective: Literal["contrastive", "labels", "random_labels"] = "contrastive"
        order: Literal[1, 2] = 1
        alpha_lr: float = Field(default=3e-4, gt=0)
        alpha_betas: tuple[float, float] = (0.5, 0.999)
        alpha_weight_decay: float = Field(default=1e-3, ge=0)
        alpha_delay: float = Field(default=0.0, ge=0, lt=1)
        beta_regularisation: float = Field(default=0.0, ge=0)
        skip_cap: int | None = Field(default=None, ge=0)
        early_stop_skips: int | None = Field(default=None, ge=1)
        early_stop_curvature: float | None = Field(default=None, gt=1)
        curvature_window: int = Field(default=5, ge=2)
        selection: Literal["alpha", "perturbation"] = "alpha"
        selection_batches: int = Field(default=4, ge=1)

    encoder: Supernet

    def __init__(self, encoder: Encoder, config: Config, context: Context) -> None:
        if not isinstance(encoder, Supernet):
            raise ConfigError(
                "method ssnas searches a supernet; set encoder.family=cell_supernet (a found genotype is trained by "
                "another method, as in method=simclr encoder.genotype=FILE.json)"
            )
        super().__init__(encoder, config, context)
        self.config: SSNAS.Config = config
        self.total_steps, self.seed = context.total_steps, context.seed
        self.uses_labels = config.objective != "contrastive"
        if self.uses_labels:
            if context.classes is None:
                raise ConfigError(f"method.objective={config.objective} trains with labels, but the data has none")
            self.classes = context.classes
            self.head = nn.Linear(encoder.num_features, context.classes)
        self.alpha_adam = AlphaAdam(encoder.alpha, config.alpha_lr, config.alpha_betas, config.alpha_weight_decay)
        self.register_buffer("alpha_before", encoder.alpha.clone())
        self.register_buffer("stopped", torch.zeros((), dtype=torch.bool))
        self.curvature_stop = None
        if config.early_stop_curvature is not None:
            self.curvature_stop = CurvatureStop(encoder.alpha, config.curvature_window, config.early_stop_curvature)
        self._trainer: Any = None
        self._views: dict[str, list[Tensor]] | None = None

    def relabel(self, labels: np.ndarray) -> np.ndarray:
        """Labels `(N,)` of the data -> those that the search sees: the same, or one of the classes at random each."""
        if self.config.objective == "labels":
            return labels
        return np.random.default_rng(self.seed).integers(0, self.classes, len(labels))

    def attach(self, trainer: Any) -> None:
        """Called by the loop once: the optimizer of w, mixed precision and the run folder are the trainer's."""
        if trainer.recipe.accumulate != 1:
            raise ConfigError("method ssnas takes accumulate=1: one pass on each half is one step")
        if self.config.order == 2 and trainer.recipe.optim.name != "sgd":
            raise ConfigError("method.order=2 looks ahead by a step of SGD; set optim.name=sgd or method.order=1")
        if self.config.early_stop_curvature is not None and trainer.world > 1:
            raise ConfigError("method.early_stop_curvature differentiates twice, which takes one process")
        self._trainer = trainer

    def _autocast(self) -> contextlib.AbstractContextManager:
        return self._trainer.autocast() if self._trainer is not None else contextlib.nullcontext()

    @property
    def finished(self) -> bool:
        """Whether the search ended early."""
        return bool(self.stopped)

    # -- one step ------------------------------------------------------------------------------

    def views(self, batch: dict[str, Tensor], generator: torch.Generator) -> dict[str, list[Tensor]]:
        """Two views of each image of half A (the first half of the batch) and of half B; then, for an objective with
        labels, those."""
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
        logits, _ = self.encoder.space.split(self.encoder.alpha, self.encoder.edge_normalisation)
        p = torch.cat(list(logits.values())).softmax(dim=1)
        spread = -(p * p.log()).sum(1).mean() / torch.log(torch.tensor(float(p.shape[1])))
        return {**self.objective(views["a"]), "entropy": spread}

    forward = loss

    def after_step(self, step: int) -> None:
        """One step of alpha on half B, once the delay is over."""
        views, self._views = self._views, None
        if views is None or step < self.config.alpha_delay * self.total_steps or self.finished:
            return
        gradient = self._second_order(views) if self.config.order == 2 else self._first_order(views["b"])
        weight = self.config.beta_regularisation * step / max(1, self.total_steps)
        if weight:
            gradient = gradient + weight * self._spread_gradient()
        gradient = distributed.all_reduce_mean(gradient)
        if not bool(torch.isfinite(gradient).all()):
            raise TrainingError(
                f"the gradient of the architecture parameters is not finite at step {step + 1}; the last good state is "
                "kept. Lower optim.lr, set precision=fp32" + (" or method.order=1" if self.config.order == 2 else "")
            )
        self.alpha_adam.step(self.encoder.alpha, gradient)

    def _alpha_gradient(self, views: list[Tensor], weights: list[Tensor] | None = None) -> list[Tensor]:
        """Gradient of the objective on `views` by alpha, or by alpha and `weights`."""
        alpha = self.encoder.alpha.detach().clone().requires_grad_()
        with self._autocast(), self.encoder.architecture(alpha):
            value = self.objective(views)["loss"]
        return list(torch.autograd.grad(value, [alpha, *(weights or [])], allow_unused=True))

    def _first_order(self, views: list[Tensor]) -> Tensor:
        return self._alpha_gradient(views)[0]

    def _second_order(self, views: dict[str, list[Tensor]]) -> Tensor:
        """The same through one step of SGD on half A."""
        w = [p for p in self.parameters() if p.requires_grad]
        return second_order_gradient(
            w,
            self._trainer.optimizer,
            weight_gradient=lambda: self._weight_gradient(views["a"], w),
            on_a=lambda: self._alpha_gradient(views["a"])[0],
            on_b=lambda weights: self._alpha_gradient(views["b"], weights),
        )

    def _weight_gradient(self, views: list[Tensor], w: list[Tensor]) -> list[Tensor | None]:
        with self._autocast():
            value = self.objective(views)["loss"]
        return list(torch.autograd.grad(value, w, allow_unused=True))

    def _spread_gradient(self) -> Tensor:
        alpha = self.encoder.alpha.detach().clone().requires_grad_()
        logits, _ = self.encoder.space.split(alpha, self.encoder.edge_normalisation)
        return torch.autograd.grad(torch.cat(list(logits.values())).logsumexp(dim=1).mean(), alpha)[0]

    # -- per epoch and at the end --------------------------------------------------------------

    def genotype(self, capped: bool = True, alpha: Tensor | None = None) -> DartsGenotype | NB201Genotype:
        """The cell that alpha stands for now."""
        return derive(self.encoder.space, self.encoder.tables(alpha), self.config.skip_cap if capped else None)

    def after_epoch(self, epoch: int) -> None:
        """Log genotype, entropy and skips to `genotypes.jsonl`, draw the cell, and stop early if asked to."""
        uncapped = skips(self.genotype(capped=False))
        limit = self.config.early_stop_skips
        if limit is not None and uncapped >= limit and int(self.alpha_adam.steps) > 0:
            self.encoder.alpha.copy_(self.alpha_before)
            self.stopped.fill_(True)
        curvature = self._check_curvature(epoch)
        self.alpha_before.copy_(self.encoder.alpha)
        if not distributed.is_main():
            return
        genotype, folder = self.genotype(), self._trainer.folder.path
        record = {
            "epoch": epoch,
            "genotype": genotype.text(),
            "hash": genotype_hash(genotype),
            "entropy": round(self._entropy(), 6),
            "skips": uncapped,
            "alpha_steps": int(self.alpha_adam.steps),
            "stopped": self.finished,
            **curvature,
        }
        kept = [r for r in read_history(folder) if r["epoch"] < epoch]
        write_text(folder / HISTORY, "".join(json.dumps(r) + "\n" for r in [*kept, record]))
        picture = folder / PICTURES / f"epoch_{epoch:03d}.svg"
        picture.parent.mkdir(exist_ok=True)
        write_text(picture, cell_svg(genotype, f"epoch {epoch}: {uncapped} skips"))

    def _check_curvature(self, epoch: int) -> dict[str, float]:
        """Measure and keep the curvature; go back to the earlier architecture and stop once it has risen."""
        if self.curvature_stop is None or self.finished or int(self.alpha_adam.steps) == 0:
            return {}
        (views,) = self._validation(1)

        def loss(alpha: Tensor) -> Tensor:  # without autocast: bf16 would drown the second derivative
            with self.encoder.architecture(alpha):
                return self.objective(views)["loss"]

        with torch.enable_grad():
            found = largest_eigenvalue(loss, self.encoder.alpha, torch.Generator().manual_seed(epoch))
        earlier = self.curvature_stop.earlier(found, self.encoder.alpha)
        if earlier is not None:
            self.encoder.alpha.copy_(earlier)
            self.stopped.fill_(True)
        return {"curvature": float(f"{found:.6g}")}

    @torch.no_grad()
    def _validation(self, count: int) -> list[list[Tensor]]:
        """What `views` makes of the first batches of half B: the same ones whenever it is asked."""
        part, size = self._trainer.parts[1], self._trainer.recipe.batch_size
        out = []
        for start in range(0, min(count * size, len(part) - size + 1), size):
            mine = np.split(part[start : start + size], distributed.world_size())[distributed.rank()]
            batch = self._trainer.batches.get(self._trainer.data.rows(mine))
            generator = torch.Generator(self.encoder.alpha.device).manual_seed(start + distributed.rank())
            doubled = {name: torch.cat([value, value]) for name, value in batch.items()}
            out.append(self.views(doubled, generator)["b"])
        return out

    @torch.no_grad()
    def _selected(self) -> Tensor:
        """alpha, or what the selection by perturbation makes of it."""
        if self.config.selection == "alpha":
            return self.encoder.alpha
        batches = self._validation(self.config.selection_batches)
        self.train()  # batch statistics, as in the search

        def loss(alpha: Tensor) -> float:
            with self._autocast(), self.encoder.architecture(alpha):
                values = torch.stack([self.objective(views)["loss"].float() for views in batches])
            return float(distributed.all_reduce_mean(values.mean()))

        generator = torch.Generator().manual_seed(self.seed)
        return select_by_perturbation(
            self.encoder.space, self.encoder.alpha, self.encoder.edge_normalisation, loss, generator
        )

    def _entropy(self) -> float:
        return entropy(self.encoder.space, self.encoder.alpha, self.encoder.edge_normalisation)

    def export(self, trainer: Any) -> Path:
        """Write `genotype.json` with where it comes from, and `cell.svg`; a supernet itself is never published."""
        recipe, dataset = trainer.recipe, trainer.data.dataset
        search = {
            "method": "ssnas",
            "objective": self.config.objective,
            "selection": self.config.selection,
            "data": dataset.name,
            "fingerprint": dataset.fingerprint,
            "samples": len(trainer.data.train),
            "seed": recipe.seed,
            "epochs": trainer.step / trainer.steps_per_epoch,
            "steps": trainer.step,
            "order": self.config.order,
            "entropy": round(self._entropy(), 6),
            "stopped_early": self.finished,
            "code_commit": code_commit(),
        }
        found = parse_genotype({**self.genotype(alpha=self._selected()).model_dump(mode="json"), "search": search})
        path = trainer.folder.path / GENOTYPE
        write_text(trainer.folder.path / PICTURE, cell_svg(found, f"{recipe.name}, {genotype_hash(found)}"))
        write_text(path, to_json(found))
        return path


def read_history(folder: Path) -> list[dict[str, Any]]:
    """The records of `genotypes.jsonl`."""
    path = folder / HISTORY
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
