"""Search, derive, pretrain, publish: one command, one folder, killed and continued at any moment.

    python -m training ssnas_cell_cifar10            # all stages, each skipped once it is done
    python -m training ssnas_cell_cifar10 stage=search

A pipeline is a YAML file with the keys `name`, `search` and `pretrain`, the last two being recipes without a name.
The genotype that `search` finds is the one that `pretrain` trains. Overrides name their stage (`search.epochs=1`,
`pretrain.optim.lr=0.1`); `data=...`, `data.KEY=...` and `seed=...` go to both.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from training import distributed
from training.methods.ssnas import SSNAS
from training.recipe import Recipe, apply_override, commands_in, parse_recipe, refuse_commands
from training.run_folder import RunFolder
from training.search.history import GENOTYPE
from zoo.architectures.genotype import parse_genotype
from zoo.checkpoint.config import Method
from zoo.errors import ConfigError, TrainingError, nearest

if TYPE_CHECKING:
    from training.run import Trained

STAGES = ("all", "search", "pretrain", "publish")


@dataclass(frozen=True)
class Pipeline:
    """A checked pipeline: the search, and the recipe of the training that waits for its genotype."""

    name: str
    search: Recipe
    pretrain_raw: dict[str, Any]
    stage: str

    def pretrain(self, genotype: str) -> Recipe:
        """The second recipe, for a found genotype."""
        raw = {**self.pretrain_raw, "encoder": {**self.pretrain_raw["encoder"], "genotype": genotype}}
        return parse_recipe(raw, f"{self.name}, pretrain")

    def example(self) -> Recipe:
        """The second recipe with some cell of the space, for checks and plans before there is a genotype."""
        return self.pretrain({"darts": "darts_v2", "nb201": "nb201_all_conv3x3"}[self.search.encoder["space"]])


def read_pipeline(path: Path, overrides: list[str] | tuple[str, ...] = ()) -> Pipeline:
    """Read and check a pipeline.

    Raises:
        ConfigError: an unknown key, stage or value, in either recipe.
    """
    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    stage = "all"
    for key in raw:
        if key not in ("name", "search", "pretrain"):
            raise ConfigError(f"{path}: unknown key {key!r}; {nearest(str(key), ['name', 'search', 'pretrain'])}")
    if not all(isinstance(raw.get(key), dict) for key in ("search", "pretrain")):
        raise ConfigError(f"{path}: a pipeline has the keys name, search and pretrain, the last two being recipes")
    written = commands_in(raw)
    for override in overrides:
        key, _, value = override.partition("=")
        head, _, rest = key.partition(".")
        if key == "stage":
            stage = value
        elif head in ("search", "pretrain") and rest:
            apply_override(raw[head], f"{rest}={value}")
        elif head in ("data", "seed"):
            for part in ("search", "pretrain"):
                apply_override(raw[part], override)
        else:
            raise ConfigError(f"override {override!r}: say which stage, as in search.{key}= or pretrain.{key}=")
    refuse_commands(written & commands_in(raw), overrides, path)
    if stage not in STAGES:
        raise ConfigError(f"unknown stage {stage!r}; {nearest(stage, list(STAGES))}")
    name = str(raw.get("name"))
    search = parse_recipe({**raw["search"], "name": f"{name}_search"}, f"{name}, search")
    if search.method["name"] != "ssnas":
        raise ConfigError(f"{path}: the search's method is ssnas, not {search.method['name']!r}")
    encoder = raw["pretrain"].get("encoder") or {}
    made = Pipeline(
        name,
        search,
        {**raw["pretrain"], "name": name, "encoder": {"family": "cell_network", "stem": "auto", **encoder}},
        stage,
    )
    made.example()  # only to check it
    return made


def run_pipeline(
    pipeline: Pipeline,
    folder: Path,
    train: Callable[[Recipe, Path, float | None, bool], Trained],
    *,
    minutes: float | None,
    fresh: bool,
    command: str,
) -> Path | None:
    """Run the stages that are not done.

    Args:
        folder: of the whole run. train: runs or continues one recipe, given its folder, minutes and `fresh`.
        minutes: stop after this long, with the state saved. fresh: start the chosen stages over.
        command: what repeats the run, for the record.

    Returns:
        What the last stage wrote; None where the time limit came first.
    """
    started = time.monotonic()
    genotype_file = folder / "search" / GENOTYPE

    def run(recipe: Recipe, part: str) -> bool:
        left = None if minutes is None else max(0.0, minutes - (time.monotonic() - started) / 60)
        return train(recipe, folder / part, left, fresh and pipeline.stage in ("all", part)).finished

    if pipeline.stage in ("all", "search"):
        if fresh or not genotype_file.exists():
            if not run(pipeline.search, "search"):
                return None
        elif distributed.is_main():
            RunFolder(folder / "search").prepare(pipeline.search, command)  # or these are other settings
    if pipeline.stage == "search":
        return genotype_file
    if not genotype_file.exists():
        raise TrainingError(f"{genotype_file} does not exist yet; run stage=search first, or all stages")
    genotype = parse_genotype(genotype_file.read_text(encoding="utf-8")).model_dump(mode="json")
    recipe = pipeline.pretrain(genotype)
    done = (folder / "pretrain" / "encoder" / "config.json").exists()
    if pipeline.stage in ("all", "pretrain") and (fresh or not done) and not run(recipe, "pretrain"):
        return None
    if pipeline.stage == "pretrain":
        return folder / "pretrain" / "encoder"
    if distributed.is_main():
        published = publish_found(pipeline, folder)
        print(
            f"published: zoo.load('local-dir:{published}'); measure and put it into the zoo with "
            f"`zoo publish {folder} --name {pipeline.name}`"
        )
    return folder / "published" / pipeline.name


def publish_found(pipeline: Pipeline, folder: Path) -> Path:
    """`RUN/encoder/`, the pretrained network with the record of both stages, and `RUN/published/` with a card
    and the picture of the cell."""
    from zoo.checkpoint.loading import load
    from zoo.checkpoint.writing import write_checkpoint
    from zoo.publish.publishing import publish

    source = folder / "pretrain" / "encoder"
    if not (source / "config.json").exists():
        raise TrainingError(f"{source} holds no trained encoder yet; run stage=pretrain first, or all stages")
    encoder = load(f"local-dir:{source}")
    config = encoder.config
    assert config is not None
    told, dataset = pipeline.example().data, config.training.dataset  # title and licence may be told afterwards
    dataset = dataset.model_copy(
        update={"name": told.title or dataset.name, "licence": told.licence or dataset.licence}
    )
    recipes = {"search": pipeline.search.dump(), "pretrain": config.training.recipe}
    record = config.training.model_copy(update={"recipe": recipes, "dataset": dataset})
    write_checkpoint(
        encoder,
        folder / "encoder",
        name=pipeline.name,
        architecture=config.architecture,
        method=Method(name="ssnas", title=SSNAS.title, paper=SSNAS.paper, url=SSNAS.url),
        training=record,
        dtype=config.weights.dtype,
    )
    return publish(folder, pipeline.name, out=folder / "published", overwrite=True)
