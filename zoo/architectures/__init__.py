"""Networks of the zoo. `FAMILIES` is the one registry; `build` is the one way in."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from pydantic import ValidationError

from zoo.encoder import Encoder
from zoo.errors import ConfigError, nearest
from zoo.strict import Architecture, first_problem
from zoo.text import quoted

#: family -> "module:class". The class has `Arguments` (a strict pydantic model) and
#: `__init__(arguments, input)`.
FAMILIES: dict[str, str] = {
    "timm": "zoo.architectures.image:ImageEncoder",
    "timm_maps": "zoo.architectures.attention:TimmMaps",
    "unet": "zoo.architectures.unet:UNetEncoder",
    "airbench": "zoo.architectures.airbench:Airbench",
    "cell_network": "zoo.architectures.cell_network:CellNetwork",
    "skeleton_gru": "zoo.architectures.skeleton_gru:SkeletonGRU",
}


def family_class(family: str) -> type[Encoder]:
    """The encoder class of a family.

    Raises:
        ConfigError: the family is unknown; names the nearest one.
    """
    if family not in FAMILIES:
        raise ConfigError(f"unknown architecture family {quoted(family)}; {nearest(family, list(FAMILIES))}")
    module, _, attribute = FAMILIES[family].partition(":")
    return getattr(import_module(module), attribute)


def build(architecture: Architecture, input: Any) -> Encoder:
    """An untrained encoder.

    Args:
        architecture: family and arguments, as config.json and recipes hold them.
        input: `ImageInput` or `SkeletonInput`.

    Raises:
        ConfigError: unknown family, model name or argument.
    """
    cls = family_class(architecture.family)
    try:
        arguments = cls.Arguments.model_validate(architecture.arguments)
    except ValidationError as error:
        raise ConfigError(f"architecture {architecture.family!r}: {first_problem(error)}") from None
    from zoo.architectures.pointwise import pick_pixels_first

    encoder = pick_pixels_first(cls(arguments, input))
    encoder.fixed = tuple(name for name, parameter in encoder.named_parameters() if not parameter.requires_grad)
    return encoder
