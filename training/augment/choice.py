"""Which augmentation a recipe asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from training.augment.image import ImageAugment
from training.augment.parameters import PRESETS, ImageAugmentConfig
from zoo.encoder import Encoder
from zoo.errors import ConfigError, nearest
from zoo.preprocessing.image import ImageInput
from zoo.strict import validate


def resolve_augment(value: Any) -> ImageAugmentConfig:
    """The augmentation behind a recipe's `augment`.

    Args:
        value: a preset's name, or settings; with the key `preset` they change that preset, without
            it the class's defaults.

    Raises:
        ConfigError: unknown preset or setting, naming the nearest, or a wrong value.
    """
    if isinstance(value, ImageAugmentConfig):
        return value
    if not isinstance(value, str | Mapping):
        raise ConfigError(f"recipe: method.augment takes a preset's name or settings, got {value!r}")
    settings = {"preset": value} if isinstance(value, str) else dict(value)
    preset = settings.pop("preset", None)
    if preset is not None and preset not in PRESETS:
        raise ConfigError(f"recipe: unknown augmentation preset {preset!r}; {nearest(str(preset), list(PRESETS))}")
    start = {} if preset is None else PRESETS[preset].model_dump()
    return validate(ImageAugmentConfig, {**start, **settings}, "recipe", prefix="method.augment")


#: The setting `augment` of a method on images.
Augment = Annotated[
    ImageAugmentConfig,
    BeforeValidator(resolve_augment),
    Field(description="A preset's name (" + ", ".join(PRESETS) + "), or settings; their key preset names a start."),
]


def augmentation_for(encoder: Encoder, config: ImageAugmentConfig, size: int) -> ImageAugment:
    """The augmentation, normalised as the encoder's published preprocessing will be.

    Raises:
        ConfigError: no image encoder, or `config` normalises in another way than `encoder.input`.
    """
    if not isinstance(encoder.input, ImageInput):
        raise ConfigError(f"this method augments images, but the encoder takes {encoder.modality} input")
    mean, std = encoder.input.mean, encoder.input.std
    asked = (config.mean or mean, config.std or std)
    if asked != (mean, std):
        raise ConfigError(
            f"method.augment normalises with mean {asked[0]}, std {asked[1]}, but input has mean {mean}, std {std}; "
            "set input.mean and input.std only, so that training and evaluation agree"
        )
    if (mean, std) == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)):
        return ImageAugment(config.model_copy(update={"mean": None, "std": None}), size)
    return ImageAugment(config.model_copy(update={"mean": mean, "std": std}), size)
