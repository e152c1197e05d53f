"""Recipes: what a training run is, typed and strict.

A recipe is a YAML file under `training/recipes/` (or anywhere: give its path). Unknown keys are
errors that name the nearest valid one, and the run folder gets every default written out.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, field_validator, model_validator

from training.augment.crops import Crop, check_crops, scaled
from training.data_settings import Data, Monitor
from training.methods import method_class
from training.optim import OptimConfig
from training.weight_mean import WeightMeanConfig
from zoo.architectures import FAMILIES, family_class
from zoo.checkpoint.config import Input, check_name
from zoo.data.remote import is_command
from zoo.encoder import Encoder
from zoo.errors import ConfigError, UnknownNameError, nearest
from zoo.preprocessing.image import ImageInput
from zoo.strict import Architecture, Sha256, Strict, validate

#: A group written as one word means this key of the group: `data: PATH`, `augment: cifar`.
SHORTHANDS = {"data": "dataset", "augment": "preset", "corrupt": "preset", "method": "name"}
RECIPES = Path(__file__).parent / "recipes"
# A network that only a search trains and nothing publishes, so it is no family of the zoo's own.
FAMILIES.setdefault("cell_supernet", "training.search.supernet:Supernet")


class ViewSize(Strict):
    """One stage of a training at growing resolution."""

    until: float = Field(gt=0, le=1, description="Fraction of the training up to which this holds.")
    size: int = Field(ge=8, le=4096, description="Side of the views in pixels.")


class Start(Strict):
    """What `encoder` may hold beside the architecture."""

    init: str = Field(
        min_length=1,
        description="Address of an encoder to start from, see training.init; the architecture may then be left to it.",
    )
    init_sha256: Sha256 | None = Field(
        default=None,
        description="Sha256 of the weights to start from. A run writes it down, and a recipe that "
        "gives it takes no others.",
    )


class Recipe(Strict):
    """One training run."""

    name: str = Field(description="Name of the run, and of the checkpoint it ends in.")
    method: dict[str, Any] = Field(description="The method's name and its settings.")
    encoder: dict[str, Any] = Field(
        description="Architecture family and its arguments; init, the address of an encoder to start from."
    )
    input: Input = Field(
        default=ImageInput(),
        description="Preprocessing that belongs to the weights; with encoder.init, what is not said "
        "here is that encoder's.",
    )
    data: Data = Field(description="Which data to train on.")
    optim: OptimConfig = Field(description="Optimizer and learning-rate schedule.")
    epochs: int = Field(ge=1, description="Passes over the training samples.")
    batch_size: int = Field(ge=2, description="Samples per step over all processes.")
    accumulate: int = Field(
        default=1,
        ge=1,
        description="Passes that each process splits its share of a step into; a contrastive loss "
        "then sees the negatives of one pass only.",
    )
    view_sizes: tuple[ViewSize, ...] = Field(
        default=(),
        description="Train at growing resolution, so that early steps are cheap; empty: input.size throughout.",
    )
    weight_mean: WeightMeanConfig | None = Field(
        default=None, description="Keep an exponential mean of the encoder's weights; null: none."
    )
    seed: int = Field(default=0, ge=0, description="Seed of every random draw.")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        default="auto", description="auto: bf16 where the hardware computes it fast, else fp32."
    )
    compile: bool = Field(default=False, description="Compile the encoders with torch.compile.")
    monitor: Monitor | None = Field(
        default=Monitor(), description="Online kNN on held-out training samples; null: none."
    )
    log_every: int = Field(default=20, ge=1, description="Steps between two records of the averages.")
    save_minutes: float = Field(
        default=5.0, gt=0, description="Minutes between two saved states: the most work that a killed run loses."
    )

    @field_validator("name")
    @classmethod
    def _name(cls, value: str) -> str:
        return check_name(value)

    @field_validator("data", mode="before")
    @classmethod
    def _data(cls, value: Any) -> Any:
        return {"dataset": value} if isinstance(value, str) else value

    @field_validator("view_sizes")
    @classmethod
    def _view_sizes(cls, value: tuple[ViewSize, ...]) -> tuple[ViewSize, ...]:
        ends = [v.until for v in value]
        if value and (ends != sorted(set(ends)) or ends[-1] != 1):
            raise ValueError(f"`until` must grow and end at 1, got {ends}")
        return value

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, raw: Any) -> Any:
        """Validate `method` and `encoder` by their own classes and write their defaults out."""
        if not isinstance(raw, dict):
            return raw
        raw = dict(raw)
        if isinstance(raw.get("input"), dict):
            raw["input"] = {"modality": "image", **raw["input"]}
        if isinstance(raw.get("method"), str):
            raw["method"] = {"name": raw["method"]}
        if isinstance(raw.get("method"), dict):
            method = dict(raw["method"])
            name = method.pop("name", None)
            if name is None:
                raise ValueError("method.name is missing; for example `method: {name: simclr}`")
            config = validate(method_class(name).Config, method, "recipe", prefix="method")
            raw["method"] = {"name": name, **config.model_dump(mode="json")}
        if isinstance(raw.get("encoder"), dict):
            raw["encoder"] = _fill_encoder(dict(raw["encoder"]), raw.get("input"))
        return raw

    @model_validator(mode="after")
    def _crops(self) -> Recipe:
        """Views that cannot be made, or that the encoder cannot take, are refused before anything is written."""
        if isinstance(self.input, ImageInput):
            family = self.encoder.get("family")  # None: the architecture is that of `init`
            smallest = (Encoder if family is None else family_class(family)).min_side
            check_crops(self._all_crops(), self._stages(), self.input.size[0], self.store_size(), smallest)
        if self.data.stream:
            own = method_class(self.method["name"])
            if not own.streams or own.halves:
                raise ValueError(
                    f"method {self.method['name']!r} needs stored images; data.stream is for simclr, moco, clsa and "
                    "distill"
                )
            if any(crop.native for crop in self._all_crops()):
                raise ValueError("a native patch is cut from stored images; leave data.stream or the patch out")
        elif self.data.shuffle_gb is not None:
            raise ValueError(
                f"data.shuffle_gb={self.data.shuffle_gb:g} is the order in which a stream reads; set data.stream=true, "
                "or leave it out"
            )
        return self

    def _all_crops(self) -> tuple[Crop, ...]:
        return (Crop(), *self.method_config().crops)

    def _stages(self) -> list[int]:
        return [stage.size for stage in self.view_sizes] or [self.input.size[0]]

    def smallest_view(self) -> int:
        """Side in pixels of the smallest view that the encoder sees at any stage of the training."""
        full = self.input.size[0]
        return min(scaled(crop.size or full, now, full) for crop in self._all_crops() for now in self._stages())

    @model_validator(mode="after")
    def _something_to_average(self) -> Recipe:
        if self.weight_mean is not None and not method_class(self.method["name"]).ends_in_encoder:
            raise ValueError(f"method {self.method['name']!r} does not end in an encoder; use weight_mean=null")
        return self

    @property
    def init(self) -> str | None:
        """Address of the encoder to start from."""
        return self.encoder.get("init")

    def architecture(self) -> Architecture:
        """The encoder to build.

        Raises:
            ConfigError: the recipe takes it from `encoder.init`, which nobody has opened yet.
        """
        arguments = {key: value for key, value in self.encoder.items() if key not in Start.model_fields}
        if not arguments:
            raise ConfigError(
                f"recipe {self.name}: the architecture is that of encoder.init={self.init}; "
                "call training.init.resolve_init(recipe) first"
            )
        return Architecture(family=arguments.pop("family"), arguments=arguments)

    def method_config(self) -> Any:
        """The method's own `Config`."""
        arguments = {k: v for k, v in self.method.items() if k != "name"}
        return method_class(self.method["name"]).Config.model_validate(arguments)

    def view_size(self, step: int, total_steps: int) -> int:
        """Side of the views in pixels at `step`; 0 for skeletons."""
        if not isinstance(self.input, ImageInput):
            return 0
        for stage in self.view_sizes:
            if step < stage.until * total_steps:
                return stage.size
        return self.input.size[0]

    def store_size(self) -> int:
        """Side in pixels of the decoded images."""
        side = max(self.input.size)
        return self.data.store_size or (side if side <= 64 else round(side * 8 / 7))

    def dump(self) -> dict[str, Any]:
        """Plain JSON types, every default written out."""
        return self.model_dump(mode="json")


def _fill_encoder(encoder: dict[str, Any], raw_input: Any) -> dict[str, Any]:
    start = {key: encoder.pop(key) for key in Start.model_fields if key in encoder}
    if start.get("init", "") is None:
        start = {}
    elif start:
        start = validate(Start, start, "recipe", prefix="encoder").model_dump(mode="json")
        if not encoder:
            return start
    family = encoder.pop("family", "timm")
    cls = family_class(family)
    if encoder.get("stem") == "auto":
        from zoo.architectures.image import SMALL_IMAGE, resolve_stem

        size = ImageInput.model_validate({k: v for k, v in (raw_input or {}).items() if k == "size"}).size
        if family.startswith("cell_"):
            encoder["stem"] = "cifar" if max(size) <= SMALL_IMAGE else "imagenet"
        else:
            encoder["stem"] = resolve_stem("auto", str(encoder.get("model")), size)
    if family == "cell_network" and isinstance(encoder.get("genotype"), str):
        encoder["genotype"] = _read_genotype(encoder["genotype"])
    arguments = validate(cls.Arguments, encoder, "recipe", prefix="encoder", also=("family", "init"))
    return {"family": family, **arguments.model_dump(mode="json"), **start}


def _read_genotype(text: str) -> str:
    """A genotype as given, or the content of the `.json` file that `text` names; recipes keep the content."""
    if not text.endswith(".json"):
        return text
    try:
        return Path(text).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"recipe: encoder.genotype={text!r} cannot be read: {error}") from None


def available_recipes() -> list[str]:
    """Names of the recipes that come with the zoo, such as `"paper/simclr_resnet50_imagenet"`."""
    names = (p.relative_to(RECIPES).with_suffix("").as_posix() for p in RECIPES.rglob("*.yaml"))
    return sorted(name for name in names if not name.startswith("pipelines/"))


def available_pipelines() -> list[str]:
    """Names of the runs in several stages that come with the zoo (`training.search.pipeline`)."""
    return sorted(p.stem for p in (RECIPES / "pipelines").glob("*.yaml"))


def pipeline_file(name: str) -> Path | None:
    """The file behind a recipe's name or path, if it is a pipeline."""
    path = RECIPES / "pipelines" / f"{name}.yaml"
    path = path if path.is_file() else Path(name)
    if path.suffix not in (".yaml", ".yml") or not path.is_file():
        return None
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        return None  # the recipe's own reader says what is wrong
    return path if isinstance(raw, dict) and "search" in raw else None


def read_recipe(name: str, overrides: list[str] | tuple[str, ...] = ()) -> Recipe:
    """A recipe by name or path, with `key=value` overrides applied.

    Args:
        name: one of `available_recipes()`, or the path of a YAML file.
        overrides: `"epochs=10"`, `"optim.lr=0.3"`, `"data=some/folder"`; values are YAML.

    Raises:
        UnknownNameError: no such recipe. ConfigError: an unknown key or a wrong value.
    """
    path = RECIPES / f"{name}.yaml"
    if not path.is_file():
        path = Path(name)
        if path.suffix not in (".yaml", ".yml") or not path.is_file():
            raise UnknownNameError(
                f"unknown recipe {name!r}; {nearest(name, available_recipes() + available_pipelines())}"
            )
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{path} must hold a mapping of recipe keys, got {type(raw).__name__}")
    written = commands_in(raw)
    for override in overrides:
        apply_override(raw, override)
    refuse_commands(written & commands_in(raw), overrides, path)
    return parse_recipe(raw, str(name))


def commands_in(raw: Any) -> set[str]:
    """All texts in a raw recipe that are a command as an address of data (`pipe:COMMAND`)."""
    found, waiting, seen = set(), [raw], set()
    while waiting:
        value = waiting.pop()
        if isinstance(value, str) and is_command(value):
            found.add(value)
        elif isinstance(value, dict | list) and id(value) not in seen:  # YAML can hold a list that holds itself
            seen.add(id(value))
            waiting += value.values() if isinstance(value, dict) else value
    return found


def refuse_commands(written: set[str], overrides: Sequence[str], path: Path) -> None:
    """Refuse commands that only a file names; a person who gives the same one as an override means it.

    Raises:
        ConfigError: a file would run a command.
    """
    for command in sorted(written):
        if not any(command in override for override in overrides):
            raise ConfigError(
                f"{path} names a command of the shell as its data, {command!r}, and a file runs no commands; if you "
                f"trust it, give it yourself: data={shlex.quote(command)}"
            )


def parse_recipe(raw: dict[str, Any], source: str) -> Recipe:
    """Validate a raw mapping; `source` names it in errors.

    Raises:
        ConfigError: an unknown key or a wrong value, with the nearest valid key.
    """
    return validate(Recipe, raw, f"recipe {source}")


def apply_override(raw: dict[str, Any], override: str) -> None:
    """Set one `key=value` in a raw recipe. Raises ConfigError."""
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise ConfigError(f"override {override!r} must have the form key=value, as in epochs=10 or optim.lr=0.3")
    try:
        # A NAS-Bench-201 cell begins with YAML's sign for a block of lines, which an override never holds.
        value = text if text.startswith("|") else yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"override {override!r}: the value is not valid YAML ({error})") from None
    *parents, last = key.split(".")
    if key == "data" and isinstance(value, str) and isinstance(raw.get("data"), dict):
        # data=PATH swaps the dataset and keeps the recipe's other data settings.
        parents, last = ["data"], "dataset"
    _switch_family(raw, key, value)
    target = raw
    for parent in parents:
        if isinstance(target.get(parent), str):
            target[parent] = {SHORTHANDS.get(parent, "name"): target[parent]}
        target = target.setdefault(parent, {})
        if not isinstance(target, dict):
            raise ConfigError(f"override {override!r}: {parent!r} is not a group of keys")
    target[last] = value


def _switch_family(raw: dict[str, Any], key: str, value: Any) -> None:
    """Another family takes other arguments: the recipe's own go, and `encoder.genotype=` alone says which family."""
    encoder = raw.get("encoder")
    family = {"encoder.family": value, "encoder.genotype": "cell_network"}.get(key)
    if isinstance(encoder, dict) and family is not None and encoder.get("family", "timm") != family:
        raw["encoder"] = {"family": family, "stem": "auto"} if family == "cell_network" else {"family": family}
