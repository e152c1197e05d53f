"""What a recipe may say: every key with its type, default and description, read from the typed models themselves."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from training.methods import METHODS, method_class
from training.recipe import Recipe, Start, pipeline_file, read_recipe
from zoo.architectures import FAMILIES, family_class

WIDTH = 110


@dataclass(frozen=True)
class Setting:
    """One key of a recipe: its path, as an override names it, and what may be said. `default` is YAML, or None where
    the key must be given; `value` is what the recipe holds, as YAML, or None inside a list."""

    key: str
    type: str
    default: str | None
    value: str | None
    description: str


def help_recipe(name: str, overrides: list[str] | tuple[str, ...] = ()) -> str:
    """Every key of a recipe, or of both recipes of a pipeline, as text. Raises as `read_recipe`."""
    if (path := pipeline_file(name)) is not None:
        from training.search.pipeline import read_pipeline

        pipeline = read_pipeline(path, overrides)
        return _text(settings(pipeline.search), "search.") + _text(settings(pipeline.example()), "pretrain.")
    return _text(settings(read_recipe(name, overrides)))


def settings(recipe: Recipe) -> list[Setting]:
    """Every key that `recipe` may hold, with its method and encoder family, in the order of the models."""
    values = recipe.dump()
    out = []
    for key, field in Recipe.model_fields.items():
        out.append(_setting(key, field, values))
        if key == "method":
            out.append(Setting("method.name", " | ".join(METHODS), None, recipe.method["name"], "Which method."))
            out += _of_model(method_class(recipe.method["name"]).Config, "method.", values["method"])
        elif key == "encoder":
            if "family" in recipe.encoder:
                family, known = recipe.encoder["family"], " | ".join(FAMILIES)
                out.append(Setting("encoder.family", known, "timm", family, "Architecture family."))
                out += _of_model(family_class(recipe.encoder["family"]).Arguments, "encoder.", values["encoder"])
            out += [replace(one, default="null") for one in _of_model(Start, "encoder.", values["encoder"])]
        elif key == "input":
            out += _of_model(type(recipe.input), "input.", values["input"])
        else:
            out += _inside(key, field, values)
    return out


def _of_model(model: type[BaseModel], prefix: str, values: Any) -> Iterator[Setting]:
    for key, field in model.model_fields.items():
        yield _setting(key, field, values, prefix)
        yield from _inside(key, field, values, prefix)


def _inside(key: str, field: FieldInfo, values: Any, prefix: str = "") -> Iterator[Setting]:
    """The keys of the model that a field holds; none where it may hold one of several."""
    found = list(_models(field.annotation))
    for model, listed in found if len(found) == 1 else []:
        held = values.get(key) if isinstance(values, dict) and not listed else None
        yield from _of_model(model, f"{prefix}{key}{'[]' if listed else ''}.", held)


def _models(annotation: Any, listed: bool = False) -> Iterator[tuple[type[BaseModel], bool]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation, listed
    for part in get_args(annotation):
        yield from _models(part, listed or get_origin(annotation) is tuple)


def _setting(key: str, field: FieldInfo, values: Any, prefix: str = "") -> Setting:
    default = None if field.is_required() else _yaml(field.get_default(call_default_factory=True))
    value = _yaml(values[key]) if isinstance(values, dict) and key in values else None
    marks = [(mark, _BOUNDS[type(mark).__name__]) for mark in field.metadata if type(mark).__name__ in _BOUNDS]
    bounds = [f"{sign} {getattr(mark, name)}" for mark, (name, sign) in marks]
    type_ = _type_name(field.annotation) + (f" {' and '.join(bounds)}" if bounds else "")
    return Setting(prefix + key, type_, default, value, field.description or "")


#: Pydantic's marks of a bound: class name -> attribute, sign.
_BOUNDS = {"Gt": ("gt", ">"), "Ge": ("ge", ">="), "Lt": ("lt", "<"), "Le": ("le", "<=")}


def _type_name(annotation: Any) -> str:
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type_name(parts[0])
    if origin is Literal:
        return " | ".join(str(part) for part in parts)
    if origin in (Union, UnionType):
        return " | ".join(_type_name(part) for part in parts)
    if origin is tuple:
        if len(parts) == 2 and parts[1] is Ellipsis:
            return f"list of {_type_name(parts[0])}"
        return f"[{', '.join(_type_name(part) for part in parts)}]"
    if annotation is NoneType:
        return "null"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "settings"
    return "settings" if origin is dict else getattr(annotation, "__name__", str(annotation))


def _yaml(value: Any) -> str:
    """A value on one line of YAML."""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    if isinstance(value, list | tuple):
        value = [v.model_dump(mode="json") if isinstance(v, BaseModel) else v for v in value]
    return yaml.safe_dump(value, default_flow_style=True, width=10**6, sort_keys=False).removesuffix("...\n").strip()


def _text(found: list[Setting], prefix: str = "") -> str:
    lines = []
    for one in found:
        if one.type == "settings":  # its keys follow
            lines.append(f"{prefix}{one.key}")
        else:
            said = "must be given" if one.default is None else f"default {one.default}"
            here = "" if one.value in (None, one.default) else f"; here {one.value}"
            lines.append(f"{prefix}{one.key}: {one.type}; {said}{here}")
        lines += textwrap.wrap(one.description, WIDTH, initial_indent="    ", subsequent_indent="    ")
    return "\n".join(lines) + "\n"
