"""The one training loop: every method, one process or many, killed and resumed at any moment."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from training import distributed
from training.batches import Batches, TrainingData, batches_for, epoch_order, statistics_images, step_seed
from training.environment import refuse_unwritten_gradients
from training.init import initial_weights
from training.methods import method_class
from training.methods.base import Context, Method
from training.modules.batch_norm import convert_batch_norm
from training.monitor import OnlineKNN
from training.optim import build_optimizer, peak_learning_rate, schedule, set_learning_rate
from training.parts import hold_still, lr_scales
from training.recipe import Recipe
from training.run_folder import RunFolder
from training.state import check_parts, has_state, load_state, save_state
from training.stream import StreamBatches, crop_draws
from training.watch import Stopped, Watch
from training.weight_mean import WeightMean
from zoo.architectures import build
from zoo.checkpoint.config import StartedFrom
from zoo.data.stores.whole import WholePictures
from zoo.device import autocast_dtype
from zoo.encoder import Encoder
from zoo.errors import TrainingError


def build_method(
    recipe: Recipe,
    device: torch.device,
    samples: int,
    total_steps: int,
    classes: int | None = None,
    images: Callable[[], torch.Tensor] | None = None,
    start: dict[str, torch.Tensor] | None = None,
) -> Method:
    """The method, seeded by the recipe: equal on every rank. Its encoder is fresh, or holds the weights `start`.

    `images` gives training images to a fresh encoder that takes statistics from them, before anything copies it.
    """
    torch.manual_seed(step_seed(recipe.seed, 0, 0))
    context = Context(
        image_size=recipe.view_size(total_steps, total_steps),
        global_batch=recipe.batch_size,
        total_steps=total_steps,
        samples=samples,
        classes=classes,
        seed=recipe.seed,
        accumulate=recipe.accumulate,
        processes=distributed.world_size(),
        optimizer=recipe.optim.name,
    )
    encoder = build(recipe.architecture(), recipe.input)
    if start is not None:  # before the method, which may copy the encoder
        encoder.load_state_dict(start, strict=True)
    elif images is not None and encoder.data_statistics:
        encoder.fit_to_data(images())
    hold_still(encoder, recipe.optim)
    method = method_class(recipe.method["name"])(encoder, recipe.method_config(), context)
    return method.to(device)


def _labels_for(method: Method, data: TrainingData) -> np.ndarray | None:
    """Labels reach a method only if it asks for them: self-supervision cannot see them by accident."""
    return data.labels_by_row(method.relabel(data.dataset.labels)) if method.uses_labels else None


class Trainer:
    """One run of a recipe in a run folder."""

    def __init__(self, recipe: Recipe, folder: RunFolder, device: torch.device, *, report: Any = None) -> None:
        self.recipe, self.folder, self.device, self.report = recipe, folder, device, report
        self.rank, self.world = distributed.rank(), distributed.world_size()
        share = recipe.batch_size // self.world
        if recipe.batch_size % (self.world * recipe.accumulate) or share // recipe.accumulate < 2:
            raise TrainingError(
                f"batch_size={recipe.batch_size} must be a multiple of processes x accumulate = "
                f"{self.world} x {recipe.accumulate}, with at least 2 samples a pass"
            )
        with distributed.main_first():  # the main process decodes, the others find the cache
            # A quiet run has no line, so it keeps the warnings.
            say = None if report is None or report.quiet else report.say
            self.data = TrainingData(recipe, progress=report.data if report else None, say=say)
        self.parts = self._parts()
        self.steps_per_epoch = len(self.parts[0]) // recipe.batch_size
        self.total_steps = self.steps_per_epoch * recipe.epochs
        self.dtype = autocast_dtype(recipe.precision, device)
        labels = self.data.dataset.labels
        classes = None if labels is None else int(labels.max()) + 1
        start, self.started_from = initial_weights(recipe, folder)
        # A run that has a state takes the statistics from there.
        images = None if has_state(folder.state) else lambda: statistics_images(self.data, recipe.seed)
        self.method = build_method(recipe, device, len(self.data.train), self.total_steps, classes, images, start)
        if self.dtype is not None and device.type == "cpu":
            refuse_unwritten_gradients(self.method.encoder, recipe)
        self.batches = self._batches()
        if self.world > 1:
            self.method = convert_batch_norm(self.method)
        if device.type == "cuda":
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
            torch.backends.cudnn.benchmark = True
        if recipe.compile:
            for module in self.method.modules():  # a momentum encoder too
                if isinstance(module, Encoder):
                    module.compile()
        self.weight_mean = WeightMean(self.method.encoder, recipe.weight_mean) if recipe.weight_mean else None
        scales = lr_scales(self.method.encoder, recipe.optim)
        self.optimizer = build_optimizer(self.method, recipe.optim, recipe.batch_size, scales)
        self.peak = peak_learning_rate(recipe.optim, recipe.batch_size)
        self.module: nn.Module = self.method
        if self.world > 1:
            self.module = distributed.data_parallel(self.method)
        self.monitor = self._monitor()
        self.step, self.wall_time = 0, 0.0
        self.watch: Watch | None = None
        self._order_of: tuple[int, np.ndarray] = (-1, np.empty(0, dtype=np.int64))

    def _parts(self) -> list[np.ndarray]:
        """What a batch is drawn from: all training samples, or two random halves for methods that search."""
        train = self.data.train
        if not method_class(self.recipe.method["name"]).halves:
            return [train]
        size = len(train) // 2
        if size < self.recipe.batch_size:
            raise TrainingError(
                f"{len(train)} training samples make two halves of {size}, fewer than batch_size="
                f"{self.recipe.batch_size}; lower batch_size"
            )
        # By position alone, never by label; epoch -1 so that no epoch's order repeats it.
        order = train[epoch_order(self.recipe.seed, (1 << 32) - 1, len(train))]
        return [order[:size], order[size : 2 * size]]

    def _batches(self) -> Batches:
        labels = _labels_for(self.method, self.data)
        if not isinstance(self.data.array, WholePictures):
            return batches_for(self.data.array, self.device, labels)
        method, scaled = self.method, self.recipe.data.stream_scaled
        return StreamBatches(self.data.array, self.device, lambda size: crop_draws(method, size), scaled, labels)

    def _monitor(self) -> OnlineKNN | None:
        wanted = self.recipe.monitor is not None and self.data.dataset.labels is not None and len(self.data.held) > 0
        return (
            OnlineKNN(self.recipe.monitor, self.data, self.batches, self.autocast, self.recipe.seed)
            if wanted and self.rank == 0
            else None
        )

    def autocast(self) -> contextlib.AbstractContextManager:
        """Mixed precision as the recipe asks."""
        return torch.autocast(self.device.type, dtype=self.dtype or torch.bfloat16, enabled=self.dtype is not None)

    @property
    def encoder(self) -> Encoder:
        """What the run ends in: the encoder as trained, or the mean of its weights, as the recipe asks."""
        if self.weight_mean is not None and self.weight_mean.config.export == "mean":
            return self.weight_mean.encoder
        return self.method.encoder

    # -- state ---------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """All that the next step depends on; randomness is a function of `step`."""
        state = {
            "step": self.step,
            "wall_time": self.wall_time,
            "fingerprint": self.data.fingerprint,
            "samples": len(self.data.train),
            "method": self.method.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        if self.weight_mean is not None:
            state["weight_mean"] = self.weight_mean.state_dict()
        if self.started_from is not None:
            state["started_from"] = self.started_from.model_dump(mode="json")
        return state

    def resume(self) -> bool:
        """Continue from the newest state in the run folder; False when there is none.

        A state is used only if its hash is right and it fits the run; else the one before it is.

        Raises:
            TrainingError: no state can be used, the data are others, or the processes see different states.
        """

        def check(state: dict[str, Any]) -> None:
            check_parts(state, self.method, self.optimizer, self.weight_mean is not None)

        found = load_state(self.folder.state, self.device, check)
        step = -1 if found is None else found[0]["step"]
        highest, lowest = distributed.all_reduce_max([step, -step])
        if highest != -lowest:
            raise TrainingError(
                f"the processes see different states in {self.folder.state} (step {highest} and step {-lowest}); the "
                "run folder must lie on a disk that all nodes share"
            )
        if found is None:
            return False
        state, name = found
        if state["fingerprint"] != self.data.fingerprint or state["samples"] != len(self.data.train):
            raise TrainingError(
                f"{self.folder.path} was started on other data (fingerprint {state['fingerprint'][:12]}..., "
                f"{state['samples']} samples) than {self.data.dataset.name} now holds "
                f"({self.data.fingerprint[:12]}..., {len(self.data.train)}); give the first data, or --fresh"
            )
        self.method.load_state_dict(state["method"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.weight_mean is not None:
            self.weight_mean.load_state_dict(state["weight_mean"])
        if "started_from" in state:
            self.started_from = StartedFrom.model_validate(state["started_from"])
        self.step, self.wall_time = state["step"], state["wall_time"]
        if name != "last.pt":
            self._say(f"last.pt is damaged, missing or of another run; continuing from {name}")
        return True

    def _save(self) -> None:
        if self.rank == 0:
            save_state(self.folder.state, self.state())

    # -- training ------------------------------------------------------------------------------

    def run(self, minutes: float | None = None, on_step: Callable[[int], None] | None = None) -> None:
        """Train to the end of the recipe.

        Args:
            minutes: stop after this many minutes, with the state saved.
            on_step: called with the step number after every step (tests, benchmarks).

        Raises:
            Stopped: asked to stop; the same command continues.
            TrainingError: the loss is not finite, or the state cannot be saved.
        """
        started = logged = time.monotonic()
        carried = self.wall_time
        self.watch = watch = Watch(self.step, minutes, self.recipe.save_minutes)
        window: list[dict[str, torch.Tensor]] = []
        samples_logged = self.step
        if self.rank == 0:
            self.folder.truncate_metrics(self.step)
        self.method.begin(self)
        self.method.train()
        first = self.step
        with watch.signals():
            while self.step < self.total_steps and not self.method.finished:
                with watch.first_step() if self.step == first else contextlib.nullcontext():
                    window.append(self._step())
                self.step += 1
                now = time.monotonic()
                self.wall_time = carried + now - started
                if self.step % self.steps_per_epoch == 0:
                    self._check_finite(window)
                    self.method.after_epoch(self.step // self.steps_per_epoch, self)
                last = self.step == self.total_steps or self.method.finished
                due = last or self.step % self.steps_per_epoch == 0 or self.step % self.recipe.log_every == 0
                if due or self.device.type == "cpu":
                    self._check_finite(window)
                if due:
                    rate = (self.step - samples_logged) * self.recipe.batch_size / max(now - logged, 1e-9)
                    self._log(window, rate)
                    window, samples_logged, logged = [], self.step, now
                elif self.report and self.rank == 0:
                    self.report.advance(self.step)
                if self._monitor_due():
                    self._run_monitor()
                    logged = time.monotonic()  # the monitor's time is not the training's
                if on_step is not None:
                    on_step(self.step)
                stop, save = watch.ask(self.step)
                if last or stop or save:
                    self._check_finite(window)
                    self._save()
                if stop and not last:
                    raise Stopped(stop)

    def _step(self) -> dict[str, torch.Tensor]:
        recipe = self.recipe
        lr = schedule(self.step, self.total_steps, recipe.optim, self.steps_per_epoch, self.peak)
        set_learning_rate(self.optimizer, lr)
        view_size = recipe.view_size(self.step, self.total_steps)
        self.method.set_view_size(view_size)
        seed = step_seed(recipe.seed, self.step + 1, self.rank)
        torch.manual_seed(seed)
        generator = torch.Generator(self.device).manual_seed(seed)
        parts = np.split(self._local_rows(self.step), recipe.accumulate)
        self.optimizer.zero_grad(set_to_none=True)
        terms: dict[str, torch.Tensor] = {}
        for number, rows in enumerate(parts, start=1):
            batch = self.batches.draw(rows, (seed, number), view_size)
            if number == recipe.accumulate and self.step + 1 < self.total_steps:
                then = step_seed(recipe.seed, self.step + 2, self.rank)
                rows_then = np.split(self._local_rows(self.step + 1), recipe.accumulate)[0]
                self.batches.draw_ahead(rows_then, (then, 1), recipe.view_size(self.step + 1, self.total_steps))
            with torch.no_grad():
                views = self.method.views(batch, generator)
            quiet = self.world > 1 and number < recipe.accumulate
            with self.module.no_sync() if quiet else contextlib.nullcontext():
                with self.autocast():
                    out = self.module(views)
                (out["loss"] / recipe.accumulate).backward()
            for key, value in out.items():
                terms[key] = terms.get(key, 0) + value.detach() / recipe.accumulate
        if recipe.optim.clip_grad_norm is not None:
            for module in self.method.children() if recipe.optim.clip_modules else [self.method]:
                nn.utils.clip_grad_norm_(module.parameters(), recipe.optim.clip_grad_norm)
        self.optimizer.step()
        self.method.after_step(self.step, self)
        if self.weight_mean is not None:
            self.weight_mean.update(self.method.encoder)
        return {**terms, "lr": torch.tensor(lr)}

    def _local_rows(self, step: int) -> np.ndarray:
        epoch, position = divmod(step, self.steps_per_epoch)
        order = self._order(epoch)
        if self.data.shards is not None:
            sample = position * self.recipe.batch_size
            self.data.shards.fetch_ahead(self.recipe.seed, epoch, sample, self.recipe.epochs)
        batch = order[position * self.recipe.batch_size : (position + 1) * self.recipe.batch_size]
        mine = np.split(batch, self.world)[self.rank]
        return self.data.rows(np.concatenate([part[mine] for part in self.parts]))

    def _order(self, epoch: int) -> np.ndarray:
        if self._order_of[0] != epoch:
            self._order_of = epoch, self.data.order(self.recipe.seed, epoch, len(self.parts[0]))
        return self._order_of[1]

    def first_batches(self, part: int, count: int) -> list[dict[str, torch.Tensor]]:
        """This process's share of the first `count` whole batches of one of `parts`, always the same ones."""
        rows, size = self.parts[part], self.recipe.batch_size
        starts = range(0, min(count * size, len(rows) - size + 1), size)
        shares = [np.split(rows[start : start + size], self.world)[self.rank] for start in starts]
        return [self.batches.get(self.data.rows(share)) for share in shares]

    def _check_finite(self, window: list[dict[str, torch.Tensor]]) -> None:
        if not window:
            return
        losses = distributed.all_reduce_mean(torch.stack([terms["loss"].float() for terms in window]))
        bad = ~torch.isfinite(losses)
        if bool(bad.any()):
            step = self.step - len(window) + 1 + int(bad.nonzero()[0])
            raise TrainingError(
                f"the loss is {float(losses[bad][0])} at step {step} of {self.total_steps}; the last good state is "
                f"kept in {self.folder.state}. Lower optim.lr={self.recipe.optim.lr}, lengthen the warm-up, or set "
                "precision=fp32"
            )

    # -- logging -------------------------------------------------------------------------------

    def _log(self, window: list[dict[str, torch.Tensor]], rate: float) -> None:
        # One copy from the device for each quantity, not for each step.
        totals = torch.stack([torch.stack([w[k].float() for w in window]).mean().cpu() for k in window[0]])
        means = dict(zip(window[0], distributed.all_reduce_mean(totals.to(self.device)).tolist(), strict=True))
        if self.rank != 0:
            return
        record = {
            "step": self.step,
            "epoch": self.step / self.steps_per_epoch,
            **means,
            "samples_per_s": rate,
            "wall_time_s": self.wall_time,
        }
        self.folder.log(record)
        if self.report:
            self.report.log(record, self.total_steps)

    def _monitor_due(self) -> bool:
        if self.monitor is None:
            return False
        every = max(1, round(self.recipe.monitor.every_epochs * self.steps_per_epoch))
        return self.step % every == 0 or self.step == self.total_steps

    def _run_monitor(self) -> None:
        accuracy = self.monitor.run(self.encoder, self.recipe.view_size(self.total_steps, self.total_steps))
        record = {"step": self.step, "epoch": self.step / self.steps_per_epoch, "held_out_knn": accuracy}
        self.folder.log(record)
        if self.report:
            self.report.monitor(record)

    def _say(self, message: str) -> None:
        if self.report and self.rank == 0:
            self.report.say(message)
