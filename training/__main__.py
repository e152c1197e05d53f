"""`python -m training RECIPE [key=value ...]`; under torchrun the same, over many processes."""

from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path

import torch

from training import distributed
from training.console import ConsoleReport
from training.environment import command_line
from training.export import draw_pictures, export_encoder
from training.init import resolve_init
from training.loop import Trainer
from training.recipe import Recipe, available_pipelines, available_recipes, pipeline_file, read_recipe
from training.run_folder import RunFolder
from training.watch import Stopped
from zoo.errors import TrainingError, ZooError


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m training",
        description="Train a recipe. Killed at any moment, the same command continues.",
        epilog="recipes: " + ", ".join(available_recipes() + available_pipelines()),
    )
    made.add_argument("recipe", nargs="?", help="a recipe's name, or the path of a YAML file")
    made.add_argument(
        "overrides", nargs="*", metavar="key=value", help="as in epochs=10 data=data/cifar10 optim.lr=0.3"
    )
    # torchrun takes `--run` for an ambiguous form of its own --run-path.
    made.add_argument("--out", "--run", dest="run", metavar="DIR", help="run folder (default: runs/NAME)")
    made.add_argument("--fresh", action="store_true", help="delete the run folder first")
    made.add_argument("--minutes", type=float, help="stop after this long with the state saved")
    made.add_argument("--export", action="store_true", help="do not train on: write the encoder of the last state")
    made.add_argument("--device", help="cpu, cuda, cuda:1 (default: the accelerator if there is one)")
    made.add_argument(
        "--plan", action="store_true", help="print parameters, FLOPs, memory, steps and time; do not train"
    )
    made.add_argument("--list", action="store_true", help="list the recipes")
    made.add_argument("--help-recipe", metavar="NAME", help="explain every key of a recipe")
    return made


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 done, 1 stopped early (state saved) or failed, 2 bad input."""
    options = parser().parse_intermixed_args(arguments)  # key=value may follow --out DIR
    if options.help_recipe is not None:
        return _help_recipe(options.help_recipe, [word for word in (options.recipe, *options.overrides) if word])
    if options.list or options.recipe is None:
        print("\n".join(available_recipes() + available_pipelines()))
        return 0 if options.list else 2
    try:
        if (path := pipeline_file(options.recipe)) is not None:
            return _stages(path, options)
        recipe = read_recipe(options.recipe, options.overrides)
        with distributed.process_group(options.device or "auto") as device:
            if options.plan:
                from training.plan import plan, show

                show(plan(recipe, device))
                return 0
            return train(recipe, options, device)
    except TrainingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except ZooError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def _help_recipe(name: str, overrides: list[str]) -> int:
    from training.settings import help_recipe

    try:
        print(help_recipe(name, overrides), end="")
    except ZooError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _stages(path: Path, options: argparse.Namespace) -> int:
    """A pipeline: search, pretrain, publish."""
    from training.search.pipeline import read_pipeline, run_pipeline

    pipeline = read_pipeline(path, options.overrides)
    with distributed.process_group(options.device or "auto") as device:
        if options.plan:
            from training.plan import plan, show

            for recipe in (pipeline.search, pipeline.example()):
                show(plan(recipe, device))
            return 0
        return run_pipeline(pipeline, options, device, train)


def train(recipe: Recipe, options: argparse.Namespace, device: torch.device) -> int:
    """Run, or continue, one recipe in its run folder, and export the encoder at the end."""
    folder = RunFolder(options.run or f"runs/{recipe.name}")
    fresh = distributed.is_main() and options.fresh and folder.path.exists()
    if fresh and not (folder.path / "recipe.yaml").exists():
        raise TrainingError(f"--fresh: {folder.path} holds no run, so it is not deleted")
    recipe = resolve_init(recipe, folder, fresh=fresh)
    with contextlib.ExitStack() as held:
        if distributed.is_main():
            if not fresh:
                folder.check(recipe)
            if not options.export:  # which only reads the state, and may do so while the training goes on
                held.enter_context(folder.locked())
            if fresh:
                folder.clear()
            folder.prepare(recipe, command_line())
        distributed.barrier()
        return _train(recipe, folder, options, device)


def _train(recipe: Recipe, folder: RunFolder, options: argparse.Namespace, device: torch.device) -> int:
    with ConsoleReport() as report:
        trainer = Trainer(recipe, folder, device, report=report if distributed.is_main() else None)
        resumed = trainer.resume()
        if options.export:
            if not resumed:
                raise TrainingError(f"--export: {folder.path} holds no state yet; train first, without --export")
            if distributed.is_main():
                folder.close()
                path = export_encoder(trainer)
                draw_pictures(trainer)
                done = f"step {trainer.step} of {trainer.total_steps}"
                report.say(f"{done}: zoo.load('local-dir:{path}'); the same command without --export trains on")
            return 0
        if distributed.is_main():
            report.say(f"{'continuing' if resumed else 'training'} {recipe.name} in {folder.path}, {device}")
            report.start(recipe.name, trainer.step, trainer.total_steps)
        try:
            trainer.run(minutes=options.minutes)
        except Stopped as stopped:
            if distributed.is_main():
                folder.close()
                report.say(
                    f"stopped at step {trainer.step} of {trainer.total_steps}: {stopped}; run the same command to go on"
                )
            return 1
        if distributed.is_main():
            folder.close()
            path = export_encoder(trainer)
            draw_pictures(trainer)
            then = f"`zoo publish {folder.path} --name {recipe.name}`"
            if path.suffix == ".json":
                report.say(f"done: {path}; train it with `python -m training RECIPE encoder.genotype={path}`")
            else:
                report.say(f"done: zoo.load('local-dir:{path}'); publish with {then}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
