"""What `config.json` of a checkpoint holds: typed, strict, versioned.

Every field is validated before any memory is taken for weights, so a hostile or broken file
ends in one readable `ConfigError`. Old formats pass through the named functions in `MIGRATIONS`.
"""

from __future__ import annotations

import json
import keyword
import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from zoo.errors import ConfigError
from zoo.preprocessing.image import ImageInput
from zoo.preprocessing.skeleton import SkeletonInput
from zoo.strict import Architecture, FileName, Sha256, Strict, _no_constant, _shown, first_problem, unique_keys

FORMAT_VERSION = 1
#: The terms of weights that were trained here from nothing.
LICENCE = "MIT"
MAX_CONFIG_BYTES = 1 << 20
#: A checkpoint larger than this is refused unread: no architecture of the zoo comes near it.
MAX_WEIGHT_BYTES = 8 << 30
Input = Annotated[ImageInput | SkeletonInput, Field(discriminator="modality")]


class Weights(Strict):
    """The weights file: name inside the folder, size in bytes, sha256, dtype, parameter count."""

    file: FileName = "model.safetensors"
    sha256: Sha256
    bytes: int = Field(gt=0, le=MAX_WEIGHT_BYTES)
    dtype: Literal["float16", "bfloat16", "float32"]
    parameters: int = Field(gt=0)


class DatasetRecord(Strict):
    """Which data a checkpoint was trained on, and under what terms; None where an imported file does not say."""

    name: str
    split: str
    samples: int | None = Field(ge=0)
    fingerprint: str
    licence: str


class _Started(Strict):
    """A record that may name the checkpoint it went on from. Older zoos refuse newer keys, so None is not written."""

    started_from: StartedFrom | None = None

    @model_serializer(mode="wrap")
    def _without_none(self, handler: Any) -> dict[str, Any]:
        data = handler(self)
        return {key: value for key, value in data.items() if key not in _NEWER or value is not None}


_NEWER = ("started_from", "licence")


class StartedFrom(_Started):
    """The checkpoint whose weights a training started from, where it was found, and its own training.

    `method`: the title of what trained it. `started_from`: what that training had started from in its turn.
    `licence`: the terms of those weights where they are not the zoo's own; what is trained on from them keeps them.
    """

    name: str
    address: str
    sha256: Sha256
    method: str
    dataset: DatasetRecord
    epochs: float | None = Field(ge=0)
    samples_seen: int | None = Field(ge=0)
    licence: str | None = None


class Training(_Started):
    """How the weights came to be: enough to run it again. None where an imported file does not say.

    `epochs`, `steps`, `samples_seen` and `wall_time_s` count this training alone, not that of `started_from`.
    """

    recipe: dict[str, Any]
    dataset: DatasetRecord
    epochs: float | None = Field(ge=0)
    steps: int | None = Field(ge=0)
    samples_seen: int | None = Field(ge=0)
    seed: int | None
    code_commit: str
    versions: dict[str, str]
    hardware: str
    wall_time_s: float | None = Field(ge=0)


class Method(Strict):
    """The training method: its registry name, the paper, and one line on what it does."""

    name: str
    title: str
    paper: str
    url: str = ""


class CheckpointConfig(Strict):
    """All of `config.json`.

    `name` is `method_architecture_dataset` and a Python identifier, so that it can be a
    `torch.hub` entry point.
    """

    format_version: Literal[1] = FORMAT_VERSION
    name: str = Field(max_length=128)
    architecture: Architecture
    input: Input
    num_features: int = Field(ge=1, le=1 << 20)
    method: Method
    weights: Weights
    training: Training
    licence: str = LICENCE
    mirrors: tuple[Annotated[str, Field(max_length=512)], ...] = Field(default=(), max_length=16)

    @field_validator("name")
    @classmethod
    def _name(cls, value: str) -> str:
        return check_name(value)

    @model_validator(mode="after")
    def _plain_json(self) -> CheckpointConfig:
        json.dumps(self.architecture.arguments, allow_nan=False)
        return self

    @property
    def modality(self) -> str:
        """`"image"` or `"skeleton"`."""
        return self.input.modality

    def to_json(self) -> str:
        """The text of `config.json`."""
        return json.dumps(self.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n"


def check_name(name: str) -> str:
    """Return `name` if it can name a checkpoint, else raise ValueError."""
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or keyword.iskeyword(name):
        raise ValueError(
            f"checkpoint name {name!r} must be lower-case letters, digits and underscores, "
            "as in 'simclr_airbench95_cifar10'"
        )
    return name


#: format version -> function that turns the raw dict of that version into the next version's.
MIGRATIONS: dict[int, Any] = {}


def parse_config(text: str | bytes, source: str) -> CheckpointConfig:
    """Parse and validate the text of a `config.json`; `source` names it in errors.

    Raises:
        ConfigError: not JSON, a newer format, an unknown or missing key, a wrong value.
    """
    if len(text) > MAX_CONFIG_BYTES:
        raise ConfigError(f"{source}: config.json has {len(text)} bytes, at most {MAX_CONFIG_BYTES}")
    try:
        raw = json.loads(text, object_pairs_hook=unique_keys, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{source}: config.json is not valid JSON ({error})") from None
    if not isinstance(raw, dict):
        raise ConfigError(f"{source}: config.json must hold an object, got {type(raw).__name__}")
    version = raw.get("format_version")
    if type(version) is not int or version < 1:
        raise ConfigError(
            f"{source}: config.json has no usable format_version (got {_shown(version)}); "
            "is this an Encoder Zoo checkpoint?"
        )
    if version > FORMAT_VERSION:
        raise ConfigError(
            f"{source}: config.json has format {_shown(version)}, this zoo reads up to {FORMAT_VERSION}; "
            "upgrade with `pip install -U encoder-zoo`"
        )
    while version < FORMAT_VERSION:
        raw = MIGRATIONS[version](raw)
        version += 1
    try:
        return CheckpointConfig.model_validate(raw)
    except ValidationError as error:
        raise ConfigError(f"{source}: config.json is not valid: {first_problem(error)}") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{source}: config.json is not valid: {error}") from None


def read_config(folder: str | Path) -> CheckpointConfig:
    """Read `config.json` from a checkpoint folder.

    Raises:
        ConfigError: the file is missing, too large, or not valid.
    """
    path = Path(folder) / "config.json"
    try:
        if path.stat().st_size > MAX_CONFIG_BYTES:
            raise ConfigError(f"{path} is larger than {MAX_CONFIG_BYTES} bytes")
        return parse_config(path.read_bytes(), str(folder))
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigError(
            f"{folder} is no checkpoint folder: it has no config.json. "
            "`zoo publish RUN --name NAME` makes one from a training run"
        ) from None
