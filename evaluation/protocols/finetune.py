"""Fine-tuning: the whole network with a linear classifier, over a small grid chosen on held-out training samples."""

from __future__ import annotations

import copy
import math
from contextlib import nullcontext
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from evaluation.frozen import Features, Outcome
from evaluation.protocols.base import Progress, Protocol
from evaluation.protocols.finetune_batches import inputs_of
from zoo.architectures.single_pixel import strided_on_one_pixel
from zoo.data.base import Dataset
from zoo.data.labels import class_indices
from zoo.data.splits import held_out
from zoo.device import autocast_dtype, check_device, local_device, resolve_precision
from zoo.encoder import Encoder
from zoo.errors import DataError, InputError
from zoo.features.extract import embed
from zoo.strict import Strict


class FineTuneV2(Strict):
    """Fine-tuning: the whole network and a linear classifier on it, trained with labels.

    The optimiser of SimCLR's transfer experiments (arXiv 2002.05709, appendix B.8.1): SGD with Nesterov momentum,
    batch-norm momentum min(10 / steps per epoch, 0.1), weight decay divided by the learning rate; images are cropped
    (RandomResizedCrop) and flipped, sequences are taken as they are. Weight decay acts on matrices and convolutions
    only: batch norm, as in the released code (tf2/model.py, add_weight_decay), and all other norms, biases and vectors
    have none. Parameters that the network keeps fixed, such as airbench's batch-norm scale, stay fixed; all others are
    trained. Ours: the learning rate falls as a cosine to 0, the classifier starts at zero. Without weight decay, and
    for networks with nothing fixed, the numbers are those of finetune-v1, which decayed and trained everything.
    Learning rate and weight decay are chosen on a stratified `held_out` part of the training split (the official
    validation split where there is one), then the network is trained once more on all of it. The last step is reported.
    The defaults fit a CPU; `SIMCLR_TRANSFER` holds the paper's 20,000 steps and its grid, `SIMCLR_FEW_LABELS` its
    setting for 1 % and 10 % of the labels.
    """

    steps: int = Field(default=100, ge=1, description="of the optimiser, for each setting")
    epochs: int | None = Field(default=None, ge=1, description="given: replaces `steps`")
    batch_size: int = Field(default=32, ge=2, description="samples a step")
    lr_grid: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        default=(0.01, 0.1), min_length=1, description="learning rates to choose from"
    )
    weight_decay_grid: tuple[Annotated[float, Field(ge=0)], ...] = Field(
        default=(0.0,), min_length=1, description="weight decays to choose from, divided by the learning rate"
    )
    crop_scale: tuple[float, float] = Field(default=(0.08, 1.0), description="share of an image that a crop keeps")
    flip: bool = Field(default=True, description="mirror every second image")
    held_out: float = Field(default=0.1, gt=0, lt=1, description="share of the training split that judges settings")
    select_samples: int = Field(default=2_000, ge=10, description="at most this many samples judge settings")


#: Appendix B.8.1: seven logarithmically spaced values each, and no weight decay at all.
SIMCLR_TRANSFER: dict[str, Any] = {
    "steps": 20_000,
    "batch_size": 256,
    "lr_grid": tuple(10 ** (-4 + i / 2) for i in range(7)),
    "weight_decay_grid": (0.0, *(10 ** (-6 + i / 2) for i in range(7))),
}
#: Appendix B.5, for 1 % of the labels (30 epochs for 10 %): learning rate 0.05 per 256 samples, no decay, no choice.
SIMCLR_FEW_LABELS: dict[str, Any] = {"epochs": 60, "batch_size": 4096, "lr_grid": (0.8,), "weight_decay_grid": (0.0,)}


class FineTuner(Protocol[FineTuneV2]):
    """Protocol `finetune-v2`, for images and skeletons alike; `FineTuneV2` says what it fixes.

    Args:
        settings: steps, batch size, grids.
        seed: of the held-out split, the order of samples and the augmentation.
        precision: of forward and backward passes, `"auto"`, `"fp32"`, `"bf16"`; `"auto"` is float32 for a network that
            torch trains wrongly in bfloat16 on a CPU (`strided_on_one_pixel`).
        device: where to train; None is a GPU if there is one.
        progress: called as `progress(what, step, steps)`.
    """

    name = "finetune-v2"
    title = "fine-tuning"
    settings_type = FineTuneV2
    needs_network = True

    def __init__(
        self,
        settings: FineTuneV2 | None = None,
        seed: int = 0,
        *,
        precision: str = "auto",
        device: str | torch.device | None = None,
        progress: Progress | None = None,
    ) -> None:
        super().__init__(settings, seed, precision=precision, progress=progress)
        self.device = local_device() if device is None else check_device(device)
        self.asked, self.precision = precision, resolve_precision(precision, self.device)

    def run(self, train: Features, test: Features, held: np.ndarray | None = None) -> Outcome:
        """As `tune`, with the network and the datasets behind the features."""
        if train.network is None or train.dataset is None or test.dataset is None:
            raise DataError("fine-tuning needs the network and the samples, not features alone; call FineTuner.tune")
        return self.tune(train.network, train.dataset, test.dataset, held)

    def tune(self, encoder: Encoder, train: Dataset, test: Dataset, held: np.ndarray | None = None) -> Outcome:
        """Choose learning rate and weight decay on part of `train`, train on all of it, predict `test`.

        Args:
            encoder: stays as it is; a copy is trained.
            train, test: labelled; the test labels are not looked at.
            held: indices into `train` to choose on, such as the official validation split; None draws them.

        Raises:
            DataError: no labels, fewer than two classes, or training diverged at every learning rate.
            InputError: a reduced precision was asked for in which torch trains this network wrongly.
        """
        self._check_precision(encoder)
        labels = _checked(train)
        classes = max(len(train.class_names), int(labels.max()) + 1)
        grid = [
            (lr, decay) for lr in sorted(self.settings.lr_grid) for decay in sorted(self.settings.weight_decay_grid)
        ]
        warnings: list[str] = []
        scores = self._choose(encoder, train, labels, classes, grid, held) if len(grid) > 1 else {}
        best = max(scores, key=lambda key: (scores[key], -key[0], -key[1])) if scores else grid[0]
        failed = [lr for (lr, _), score in scores.items() if math.isnan(score)]
        if failed:
            warnings.append(
                f"training diverged at the learning rates {', '.join(f'{lr:g}' for lr in sorted(set(failed)))}"
            )
        rates = sorted({lr for lr, _ in grid})
        if len(rates) > 1 and scores and best[0] in (rates[0], rates[-1]):
            warnings.append(f"the chosen learning rate {best[0]:g} lies at the edge of the grid")
        network, head, loss = self._train(encoder, train, labels, classes, best, "the chosen setting on all of it")
        if math.isnan(loss):
            raise DataError(f"fine-tuning diverged at the learning rate {best[0]:g}; give smaller values in lr_grid")
        chosen = {
            "lr": best[0],
            "weight_decay": best[1],
            "steps": self._steps(len(train)),
            "train_loss": round(loss, 4),
        }
        if scores:
            chosen["held_out_top1"] = scores[best]
        return Outcome(self._predict(network, head, test), chosen, tuple(warnings))

    def _check_precision(self, encoder: Encoder) -> None:
        self.precision = resolve_precision(self.asked, self.device)
        if self.device.type != "cpu" or self.precision == "fp32":
            return
        if wrong := strided_on_one_pixel(encoder):
            if self.asked != "auto":
                raise InputError(
                    f"precision {self.asked} on the CPU gives wrong gradients of {wrong[0]}, which meets one pixel; "
                    "use precision 'auto' or 'fp32'"
                )
            self.precision = "fp32"

    def _choose(self, encoder, train, labels, classes, grid, held) -> dict[tuple[float, float], float]:
        """Held-out accuracy of each setting, NaN where training diverged; empty where nothing can be held out."""
        if held is None:
            if np.bincount(labels).max() < 2:
                return {}
            fit, held = held_out(labels, self.settings.held_out, self.seed)
        else:
            fit = np.setdiff1d(np.arange(len(train)), held)
        if len(held) > self.settings.select_samples:
            _, part = held_out(labels[held], self.settings.select_samples / len(held), self.seed)
            held = held[part]
        part, judged = train.subset(fit), train.subset(held)
        scores = {}
        for number, key in enumerate(grid, 1):
            what = f"setting {number} of {len(grid)}"
            network, head, loss = self._train(encoder, part, labels[fit], classes, key, what)
            right = self._predict(network, head, judged) == labels[held] if not math.isnan(loss) else None
            scores[key] = math.nan if right is None else float(right.mean())
        if all(math.isnan(score) for score in scores.values()):
            raise DataError("fine-tuning diverged at every learning rate of the grid; give smaller values in lr_grid")
        return dict(sorted(scores.items(), key=lambda item: math.isnan(item[1])))

    def _train(self, encoder, train, labels, classes, key, what) -> tuple[Encoder, nn.Linear, float]:
        """The trained copy, its classifier, and the mean loss of the last tenth of the steps (NaN: diverged)."""
        lr, decay = key
        steps, batch = self._steps(len(train)), min(self.settings.batch_size, len(train))
        network = _trainable(encoder, max(1, len(train) // batch)).to(self.device)
        head = nn.Linear(encoder.num_features, classes).to(self.device)
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
        groups = _decay_groups([*network.parameters(), *head.parameters()], decay / lr)
        optimiser = torch.optim.SGD(groups, lr=lr, momentum=0.9, nesterov=True)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: (1 + math.cos(math.pi * step / steps)) / 2)
        inputs, rng = inputs_of(encoder, train, self.settings), np.random.default_rng(self.seed)
        targets = torch.from_numpy(labels)
        order, losses = np.empty(0, dtype=np.int64), []
        for step in range(steps):
            if len(order) < batch:  # an epoch ends: what is left of it comes first in the next
                order = np.concatenate([order, rng.permutation(len(train))])
            drawn, order = order[:batch], order[batch:]
            x, lengths = inputs.batch(drawn, rng)
            loss = self._loss(network, head, x, lengths, targets[drawn])
            if not torch.isfinite(loss):
                return network, head, math.nan
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
            losses.append(loss.item())
            if self.progress is not None:
                self.progress(f"fine-tuning, {what}", step + 1, steps)
        return network, head, float(np.mean(losses[-max(1, steps // 10) :]))

    def _loss(self, network, head, x: Tensor, lengths: Tensor | None, targets: Tensor) -> Tensor:
        dtype = autocast_dtype(self.precision, self.device)
        with torch.autocast(self.device.type, dtype) if dtype is not None else nullcontext():
            x = x.to(self.device)
            h = network(x) if lengths is None else network(x, lengths.to(self.device))
        # The classifier and the loss stay in float32, whatever the network ran in.
        return nn.functional.cross_entropy(head(h.float()), targets.to(self.device))

    def _steps(self, samples: int) -> int:
        if self.settings.epochs is None:
            return self.settings.steps
        return max(1, round(self.settings.epochs * samples / min(self.settings.batch_size, samples)))

    def _predict(self, network: Encoder, head: nn.Linear, dataset: Dataset) -> np.ndarray:
        features = embed(network.eval(), dataset, precision=self.precision, device=self.device)
        with torch.inference_mode():
            return head.cpu()(torch.from_numpy(features)).argmax(dim=1).numpy()


def _checked(train: Dataset) -> np.ndarray:
    if train.labels is None:
        raise DataError(f"{train.name} has no labels; fine-tuning needs them (class folders give labels)")
    labels = class_indices(train.labels, f"{train.name}, {train.split}")
    if len(np.unique(labels)) < 2:
        raise DataError(f"{train.name}, {train.split}: one class only; fine-tuning needs at least two")
    return labels


def _trainable(encoder: Encoder, epoch_steps: int) -> Encoder:
    """A copy in training mode, with SimCLR's batch-norm momentum (1 minus its max(1 - 10/s, 0.9)).

    What somebody froze to extract features is trained too; what the network itself keeps fixed is not.
    """
    network = copy.deepcopy(encoder).train()
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name not in network.fixed)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = min(10 / epoch_steps, 0.1)
    return network


def _decay_groups(parameters: list[nn.Parameter], decay: float) -> list[dict[str, Any]]:
    """Groups for an optimiser: matrices and convolutions with weight decay; vectors (norms, biases) without."""
    trained = [p for p in parameters if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
