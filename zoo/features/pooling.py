"""From the layers of an encoder to the columns of a feature table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from zoo.encoder import Encoder, Layer
from zoo.errors import InputError

Pool = Literal["mean", "max", "cls", "mean+cls", "none"]


def pooled(layer: Layer, pool: Pool, encoder: str = "the encoder") -> Tensor:
    """One layer of a batch -> `(N, D)`, or the map `(N, C, H, W)` itself for `"none"`; float32.

    Args:
        pool: `"mean"` or `"max"` over places; `"cls"` the class token; `"mean+cls"` both, the class token last;
            `"none"` keeps every place.

    Raises:
        InputError: the layer has no class token.
    """
    if "cls" in pool and layer.cls is None:
        raise InputError(f"{encoder} has no class token; use pool 'mean', 'max' or 'none'")
    places = layer.map.float()
    if pool == "none":
        return places
    if pool == "max":
        return places.amax(dim=(2, 3))
    mean = places.mean(dim=(2, 3)) if pool != "cls" else None
    if pool == "mean":
        return mean
    cls = layer.cls.float()
    return cls if mean is None else torch.cat([mean, cls], dim=1)


def check_pool(pool: str) -> None:
    """Raise InputError for an unknown pool."""
    if pool not in get_args(Pool):
        raise InputError(f"pool must be one of {', '.join(map(repr, get_args(Pool)))}, got {pool!r}")


def columns(encoder: Encoder, layers: Sequence[str], pool: Pool) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Name and shape per sample of each layer, found by running the encoder (eval mode, unchecked) on a black image.

    Raises:
        InputError: an unknown layer or pool, or no class token where it is asked for.
    """
    check_pool(pool)
    encoder.check_layers(layers)
    own = next(encoder.parameters())
    black = torch.zeros(1, 3, *encoder.input.size, device=own.device, dtype=own.dtype)
    with torch.inference_mode():
        found = encoder.intermediates(black, layers)
        return tuple((name, tuple(pooled(found[name], pool, encoder.name).shape[1:])) for name in layers)
