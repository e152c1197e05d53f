"""Strict models: frozen, typed, and an unknown key names its neighbour."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from zoo.errors import ConfigError, nearest


def validate(model: type[BaseModel], raw: Any, source: str, prefix: str = "", also: tuple[str, ...] = ()) -> Any:
    """`model.model_validate(raw)` whose errors name the nearest valid key; `also` are valid and handled elsewhere."""
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        for problem in error.errors(include_url=False):
            inner = problem.get("ctx", {}).get("error")
            if isinstance(inner, ConfigError):
                raise ConfigError(str(inner).replace("recipe:", f"{source}:", 1)) from None
            if problem["type"] == "extra_forbidden":
                raise ConfigError(f"{source}: {_unknown_key(model, problem['loc'], prefix, also)}") from None
        where = f"{prefix}." if prefix else ""
        raise ConfigError(f"{source}: {where}{first_problem(error)}") from None


def _unknown_key(model: type[BaseModel], location: tuple[Any, ...], prefix: str, also: tuple[str, ...]) -> str:
    known: list[str] = [*model.model_fields, *also]
    current: Any = model
    for part in location[:-1]:
        field = getattr(current, "model_fields", {}).get(part)
        candidates = [] if field is None else [field.annotation, *getattr(field.annotation, "__args__", ())]
        current = next((c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)), None)
        known = list(current.model_fields) if current is not None else []
    path = ".".join(str(p) for p in ((prefix,) if prefix else ()) + tuple(location))
    return f"unknown key {path!r}; {nearest(str(location[-1]), known)}"


Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$")]


class Strict(BaseModel):
    """A frozen pydantic model that refuses unknown keys and non-finite numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Architecture(Strict):
    """Which network to build: a family from `zoo.architectures.FAMILIES` and its arguments."""

    family: str = Field(min_length=1, max_length=64)
    arguments: dict[str, Any] = {}


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """`object_pairs_hook` for json: a repeated key, of which json would silently keep the last, is an error."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key occurs twice in one object")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def first_problem(error: ValidationError) -> str:
    """One line for the first problem of a pydantic error."""
    problems = error.errors(include_url=False)
    first = problems[0]
    where = ".".join(_plain(str(part)) for part in first["loc"]) or "(top level)"
    came = _shown(first.get("input"))
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"{where}: {' '.join(first['msg'].split())[:300]}, got {came}{more}"


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except RecursionError:
        return f"a deeply nested {type(value).__name__}"
    return text if len(text) <= 80 else text[:77] + "..."


def _plain(key: str) -> str:
    """A key as it stands, or quoted and cut where it would break a one-line message."""
    return key if re.fullmatch(r"[\w-]{1,64}", key, re.ASCII) else ascii(key[:64])
