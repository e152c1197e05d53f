"""`train` and `plan_recipe`: what `zoo train`, `zoo plan`, `python -m training` and the benchmarks call."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from training import distributed
from training.console import ConsoleReport
from training.environment import command_line
from training.export import draw_pictures, export_encoder
from training.init import resolve_init, resolve_method
from training.loop import Trainer
from training.plan import plan as measured_plan
from training.plan import static_plan
from training.recipe import Recipe, pipeline_file, read_recipe
from training.run_folder import RunFolder
from training.search.pipeline import read_pipeline, run_pipeline
from training.watch import Stopped
from zoo.errors import DataError, TrainingError, UnknownNameError


@dataclass(frozen=True)
class Trained:
    """What a call of `train` ended in.

    Attributes:
        folder: the run folder.
        finished: False where the run stopped early with its state saved; the same call continues it.
        result: the checkpoint folder of the encoder, or the file of the genotype that a search found; None where the
            run is not finished, and in every process but the main one.
    """

    folder: Path
    finished: bool
    result: Path | None = None


@dataclass(frozen=True)
class _How:
    """How to run one recipe, apart from where."""

    device: torch.device
    export: bool
    quiet: bool
    command: str


def train(
    recipe: str | Path | Recipe,
    overrides: Sequence[str] = (),
    *,
    out: str | Path | None = None,
    minutes: float | None = None,
    fresh: bool = False,
    export: bool = False,
    device: str | None = None,
    quiet: bool = False,
) -> Trained:
    """Run a recipe or a pipeline in its run folder, or continue it, and export the encoder at the end.

    Under torchrun every process makes the same call.

    Args:
        recipe: a recipe's or pipeline's name, the path of a YAML file, or a recipe that has been read.
        overrides: `"key=value"`, as in `"epochs=10"`.
        out: run folder; None for `runs/NAME`.
        minutes: stop after this many minutes with the state saved.
        fresh: delete the run folder first.
        export: do not train on; write the encoder of the last state.
        device: `"cpu"`, `"cuda"`, `"cuda:1"`; None for the accelerator if there is one.
        quiet: print neither progress nor what was done.

    Raises:
        ConfigError, UnknownNameError, DataError: the recipe or its data cannot be used.
        TrainingError: the run cannot go on; the last good state is kept.
    """
    path = None if isinstance(recipe, Recipe) else pipeline_file(str(recipe))
    read = None if path else recipe if isinstance(recipe, Recipe) else read_recipe(str(recipe), overrides)
    if read is recipe and overrides:
        raise ValueError("overrides belong to a recipe's name or file; change a Recipe object itself")
    pipeline = read_pipeline(path, overrides) if path else None
    folder = Path(out or f"runs/{pipeline.name if pipeline else read.name}")
    words = [str(folder / "recipe.yaml") if isinstance(recipe, Recipe) else str(recipe), *overrides]
    words += [] if out is None and read is not recipe else ["--out", str(folder)]
    words += ["--device", device] if device else []
    with distributed.process_group(device or "auto") as place:
        how = _How(place, export, quiet, command_line(*words))
        if pipeline is None:
            return _train(read, folder, minutes, fresh, how)
        # An export only reads, and each stage holds its own folder too.
        lock = RunFolder(folder).locked() if distributed.is_main() and not export else contextlib.nullcontext()
        with lock:
            result = run_pipeline(
                pipeline,
                folder,
                lambda part, where, left, anew: _train(part, where, left, anew, how),
                minutes=minutes,
                fresh=fresh,
                command=how.command,
            )
        return Trained(folder, result is not None, result)


def plan(
    recipe: str | Path,
    overrides: Sequence[str] = (),
    *,
    samples: int | None = None,
    device: str | None = None,
    show: Any = None,
) -> list[dict[str, Any]]:
    """What a recipe would cost: static figures at once, then measured ones where the data are at hand.

    Args:
        recipe, overrides, device: as in `train`.
        samples: how many training samples to plan for; None takes the number from the data.
        show: called with each dictionary of figures as soon as it is there, first the static and then the measured
            one of each recipe, or with a text that says why nothing was measured.

    Returns:
        The last figures of each recipe: one, or two for a pipeline. See `training.plan`.

    Raises:
        ConfigError, UnknownNameError: the recipe cannot be used.
    """
    show = show or (lambda figures: None)
    path = pipeline_file(str(recipe))
    if path is None:
        recipes = [read_recipe(str(recipe), overrides)]
    else:
        pipeline = read_pipeline(path, overrides)
        recipes = [pipeline.search, pipeline.example()]
    found = []
    with distributed.process_group(device or "auto") as place:
        for each in recipes:
            figures = static_plan(each, place, samples)
            show(figures)
            if samples is None:
                try:
                    figures = measured_plan(each, place)
                    show(figures)
                except (DataError, UnknownNameError) as error:
                    show(f"not measured, as the data cannot be opened: {error}; or plan without them: --samples N")
            found.append(figures)
    return found


def _train(recipe: Recipe, path: Path, minutes: float | None, fresh: bool, how: _How) -> Trained:
    """Run, or continue, one recipe in the folder `path`."""
    folder = RunFolder(path)
    fresh = distributed.is_main() and fresh and not folder.is_empty()
    if fresh and not (folder.path / "recipe.yaml").exists():
        raise TrainingError(f"--fresh: {folder.path} holds no run, so it is not deleted")
    recipe = resolve_method(resolve_init(recipe, folder, fresh=fresh))
    with contextlib.ExitStack() as held:
        if distributed.is_main():
            if not fresh:
                folder.check(recipe)
            if not how.export:  # which only reads the state, and may do so while the training goes on
                held.enter_context(folder.locked())
            if fresh:
                folder.clear()
            if folder.prepare(recipe, how.command):
                held.callback(folder.forget)
        distributed.barrier()
        return _run(recipe, folder, minutes, how)


def _run(recipe: Recipe, folder: RunFolder, minutes: float | None, how: _How) -> Trained:
    with ConsoleReport(quiet=how.quiet or not distributed.is_main()) as report:
        trainer = Trainer(recipe, folder, how.device, report=report if distributed.is_main() else None)
        resumed = trainer.resume()
        if how.export:
            if not resumed:
                raise TrainingError(f"--export: {folder.path} holds no state yet; train first, without --export")
            result = _written(trainer, folder)
            done = f"step {trainer.step} of {trainer.total_steps}"
            report.say(f"{done}: zoo.load('local-dir:{result}'); to train on, run the same command without --export")
            return Trained(folder.path, True, result)
        report.say(f"{'continuing' if resumed else 'training'} {recipe.name} in {folder.path}, {how.device}")
        report.start(recipe.name, trainer.step, trainer.total_steps)
        try:
            trainer.run(minutes=minutes)
        except Stopped as stopped:
            if distributed.is_main():
                folder.close()
            where = f"step {trainer.step} of {trainer.total_steps}"
            report.say(f"stopped at {where}: {stopped}; run the same command to go on")
            return Trained(folder.path, False)
        result = _written(trainer, folder)
        if result is not None and result.suffix == ".json":
            report.say(f"done: {result}; train it with `zoo train RECIPE encoder.genotype={result}`")
        else:
            then = f"`zoo publish {folder.path} --name {recipe.name}`"
            report.say(f"done: zoo.load('local-dir:{result}'); publish with {then}")
    return Trained(folder.path, True, result)


def _written(trainer: Trainer, folder: RunFolder) -> Path | None:
    """Export and draw pictures in the main process while the others wait, as a pipeline reads the files next."""
    path = None
    if distributed.is_main():
        folder.close()
        path = export_encoder(trainer)
        draw_pictures(trainer)
    distributed.barrier()
    return path
