"""Encoder Zoo: self-supervised encoders that load in one line.

    encoder = zoo.load("simclr_airbench95_cifar10")
    table = zoo.extract(encoder, zoo.open_dataset("CIFAR10", "test"))

Everything below is imported on first use, so that `import zoo` costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.checkpoint.catalog import list_models
    from zoo.checkpoint.loading import load
    from zoo.data.addresses import open_dataset
    from zoo.encoder import Encoder
    from zoo.errors import CheckpointError, ConfigError, DataError, HubError, InputError, UnknownNameError, ZooError
    from zoo.features.extract import extract
    from zoo.features.index import index
    from zoo.features.search import search
    from zoo.publish.card import show

__version__ = "0.1.0"

#: public name -> the module that holds it
_HOMES = {
    "load": "zoo.checkpoint.loading",
    "list_models": "zoo.checkpoint.catalog",
    "show": "zoo.publish.card",
    "extract": "zoo.features.extract",
    "index": "zoo.features.index",
    "search": "zoo.features.search",
    "open_dataset": "zoo.data.addresses",
    "Encoder": "zoo.encoder",
    "ZooError": "zoo.errors",
    "CheckpointError": "zoo.errors",
    "ConfigError": "zoo.errors",
    "DataError": "zoo.errors",
    "HubError": "zoo.errors",
    "InputError": "zoo.errors",
    "UnknownNameError": "zoo.errors",
}

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DataError",
    "Encoder",
    "HubError",
    "InputError",
    "UnknownNameError",
    "ZooError",
    "__version__",
    "extract",
    "index",
    "list_models",
    "load",
    "open_dataset",
    "search",
    "show",
]


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module 'zoo' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
