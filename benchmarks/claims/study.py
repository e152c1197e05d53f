"""The frame of every claim: train arms that differ in one thing over seeds, judge frozen features, compare in pairs.

A benchmark describes itself as a `Study` and hands its command line to `run`. Runs stay in OUT/ARM_seedN, what they
scored beside them, so that the same command goes on where it was killed and judges nothing twice. Seeds come one after
the other: stopped early, there is a whole table over fewer of them. Differences are taken seed by seed, with 95 %
intervals of Student's t over seeds. For each group of arms and each column OUT/claim[_GROUP][_COLUMN].json is written,
which `zoo publish --claim` takes.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import yaml

from evaluation.floors import untrained
from evaluation.frozen import Features, groups_of
from evaluation.metrics import compare
from training.recipe import Recipe, read_recipe
from training.run import train
from zoo.checkpoint.config import Training, read_config
from zoo.checkpoint.loading import load
from zoo.checkpoint.results import Claim
from zoo.data.base import Dataset
from zoo.encoder import Encoder
from zoo.errors import ConfigError, TrainingError, ZooError
from zoo.features.extract import embed
from zoo.files import write_text

#: The network of the arms with random weights.
FLOOR = "untrained"
#: column -> fraction of 1.
Scores = dict[str, float]


class Study:
    """What one benchmark compares; it overrides what it needs.

    Attributes:
        module: what `python -m` takes.
        arms: name -> `key=value` overrides of the recipe. titles: what tables call an arm.
        floor: also judge the untrained network of the last arm.
    """

    module: str
    arms: Mapping[str, Sequence[str]]
    titles: Mapping[str, str] = {}
    floor = True

    def title(self, options: argparse.Namespace) -> str:
        """The claim in one sentence."""
        raise NotImplementedError

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Options of its own."""

    def recipe(self, options: argparse.Namespace, arm: str, seed: int) -> Recipe:
        """What an arm trains. Raises ZooError."""
        return read_recipe(options.recipe, [*options.overrides, *self.arms[arm], f"seed={seed}"])

    def possible(self, options: argparse.Namespace) -> list[str]:
        """The arms that make sense for the recipe."""
        return list(self.arms)

    def chosen(self, options: argparse.Namespace) -> list[str]:
        """The arms to train."""
        return list(options.arms)

    def groups(self, options: argparse.Namespace) -> dict[str, list[str]]:
        """Name of a table ("" for the only one) -> its arms in order; a difference is a later minus an earlier one."""
        return {"": [*([FLOOR] if self.floor else []), *self.chosen(options)]}

    def reference(self, group: str, options: argparse.Namespace) -> str | None:
        """The arm whose differences with the others are shown; None shows all differences."""
        return None

    def cache(self, options: argparse.Namespace, floor: bool) -> str:
        """File beside a run for its scores, or for those of its untrained network."""
        return f"{FLOOR if floor else 'probe'}.json"

    def judge(self, encoder: Encoder, recipe: Recipe, options: argparse.Namespace) -> Scores:
        """Scores of a trained encoder, or of its untrained network. `recipe`: what trained it."""
        raise NotImplementedError

    def heading(self, column: str) -> str:
        """What tables call a column; "" where there is one only."""
        return column

    def measure(self, column: str, recipe: Recipe, options: argparse.Namespace) -> str:
        """What the numbers of a column are."""
        raise NotImplementedError

    def setting(self, recipe: Recipe, training: Training, options: argparse.Namespace) -> str:
        """Recipe, length and hardware of the runs."""
        return f"recipe {options.recipe}, {training.epochs:g} epochs, {training.hardware}, {threads()}"


def run(study: Study, description: str, arguments: list[str] | None = None) -> int:
    """Train what is missing, judge, compare, write claims and print tables. Exit status as `zoo train`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", default=list(study.arms), choices=list(study.arms))
    parser.add_argument("--device", help="where to train: cpu, cuda (default: the accelerator if there is one)")
    study.add_arguments(parser)
    given = sys.argv[1:] if arguments is None else arguments
    options = parser.parse_intermixed_args(given)
    try:
        possible = study.possible(options)
        asked, options.arms = options.arms, [arm for arm in options.arms if arm in possible]
        if not options.arms:
            raise ConfigError(f"{options.recipe} trains none of {', '.join(asked)}; known: {', '.join(possible)}")
        arms = study.chosen(options)
        recipes = {(arm, seed): study.recipe(options, arm, seed) for seed in options.seeds for arm in possible}
    except ZooError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    names = _shared({arm: recipes[arm, options.seeds[0]] for arm in possible})
    scores: dict[str, dict[int, Scores]] = {}
    for seed in options.seeds:
        for arm in arms:
            folder = run_folder(options.out, names[arm], seed)
            if not (folder / "encoder" / "config.json").exists():
                written = options.out / f"{folder.name}.yaml"
                write_text(written, yaml.safe_dump(recipes[arm, seed].dump(), sort_keys=False))
                try:
                    if not train(written, out=folder, device=options.device).finished:
                        return 1
                except ZooError as error:
                    print(f"error: {error}", file=sys.stderr)
                    return 1 if isinstance(error, TrainingError) else 2
            scores.setdefault(arm, {})[seed] = judged(study, folder, options)
            print(f"{arm}, seed {seed}: " + _in_words(study, scores[arm][seed]), flush=True)
        if study.floor:
            folders = [run_folder(options.out, names[arm], seed) for arm in arms]
            known = [folder for folder in folders if (folder / study.cache(options, True)).exists()]
            scores.setdefault(FLOOR, {})[seed] = judged(study, (known or folders)[-1], options, floor_seed=seed)
        claims = write(study, recipes[arms[0], options.seeds[0]], scores, names, options, given)
    for group, by_column in claims.items():
        print(f"\n{group}" if group else "")
        for claim in by_column.values():
            print(f"{claim.measure}\n\n{claim.table()}\n")
        if len(by_column) > 1:
            print(summary(study, by_column))
    return 0


def judged(study: Study, folder: Path, options: argparse.Namespace, floor_seed: int | None = None) -> Scores:
    """Scores of a run, or of its network untrained; kept beside it."""
    path = folder / study.cache(options, floor_seed is not None)
    if not path.exists():
        encoder = load(f"local-dir:{folder / 'encoder'}")
        recipe = read_recipe(str(folder / "recipe.yaml"))
        if floor_seed is not None:
            encoder = untrained(encoder, floor_seed)
        write_text(path, json.dumps(study.judge(encoder, recipe, options)) + "\n")
    found = json.loads(path.read_text(encoding="utf-8"))
    return found if isinstance(found, dict) else {"top1": found}  # a bare number: written before 2026-11-25


def write(
    study: Study,
    recipe: Recipe,
    scores: Mapping[str, Mapping[int, Scores]],
    names: Mapping[str, str],
    options: argparse.Namespace,
    arguments: Sequence[str],
) -> dict[str, dict[str, Claim]]:
    """Claims by group and column, one file each; `names`: arm -> the arm whose run it shares."""
    arms = study.chosen(options)
    seeds = tuple(scores[arms[0]])
    trained = [
        read_config(run_folder(options.out, names[arm], seed) / "encoder").training for seed in seeds for arm in arms
    ]
    commits = ", ".join(dict.fromkeys(training.code_commit for training in trained))
    claims: dict[str, dict[str, Claim]] = {}
    for group, members in study.groups(options).items():
        shown = {arm: study.titles.get(arm, arm) for arm in members}
        for column in scores[arms[0]][seeds[0]]:
            values = {shown[arm]: tuple(scores[arm][seed][column] for seed in seeds) for arm in members}
            reference = shown.get(study.reference(group, options))
            claim = Claim(
                title=study.title(options) + (f": {group}" if group else ""),
                measure=study.measure(column, recipe, options),
                setting=study.setting(recipe, trained[0], options),
                seeds=seeds,
                arms=values,
                differences=tuple(d for d in compare(values) if reference in (None, d.arm, d.other)),
                command=shlex.join(["python", "-m", study.module, *arguments]),
                code_commit=commits,
            )
            claims.setdefault(group, {})[column] = claim
            name = "_".join(["claim", *(slug(part) for part in (group, study.heading(column)) if part)])
            write_text(options.out / f"{name}.json", claim.to_json())
    return claims


def summary(study: Study, claims: Mapping[str, Claim]) -> str:
    """Markdown: means of all arms, then their differences, one column for each claim, in per cent."""
    first = next(iter(claims.values()))
    lines = [
        "| | " + " | ".join(study.heading(column) for column in claims) + " |",
        "|---|" + "---:|" * len(claims),
    ]
    for arm in first.arms:
        cells = [f"{100 * np.mean(claim.arms[arm]):.1f}" for claim in claims.values()]
        lines.append(f"| {arm} | " + " | ".join(cells) + " |")
    for number, d in enumerate(first.differences):
        cells = [_points(claim.differences[number]) for claim in claims.values()]
        lines.append(f"| {d.arm} − {d.other} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def features(encoder: Encoder, dataset: Dataset) -> Features:
    """Frozen features of a labelled dataset."""
    labels = np.asarray(dataset.labels, dtype=np.int64)
    return Features(embed(encoder, dataset), labels, dataset, encoder, groups_of(dataset))


def run_folder(out: Path, arm: str, seed: int) -> Path:
    """Where an arm trains."""
    return out / f"{slug(arm)}_seed{seed}"


def _shared(recipes: Mapping[str, Recipe]) -> dict[str, str]:
    """Arm -> the first arm with the same recipe, so that it is trained once whatever arms are asked for."""
    return {arm: next(other for other in recipes if recipes[other] == recipe) for arm, recipe in recipes.items()}


def slug(text: str) -> str:
    """`"train/test"` -> `"train-test"`, `"10% of labels"` -> `"10pct_of_labels"`."""
    return re.sub(r"[^\w.-]+", "_", text.replace("/", "-").replace("%", "pct"))


def threads() -> str:
    """`"1 thread"`."""
    count = torch.get_num_threads()
    return f"{count} thread{'s' if count > 1 else ''}"


def _points(difference) -> str:
    interval = "" if difference.low is None else f" [{100 * difference.low:+.1f}, {100 * difference.high:+.1f}]"
    return f"{100 * difference.mean:+.1f}{interval}"


def _in_words(study: Study, scores: Scores) -> str:
    return ", ".join(f"{study.heading(column)} {100 * value:.2f} %".strip() for column, value in scores.items())
