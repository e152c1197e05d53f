"""Training methods. `METHODS` is the one registry: one entry, one file."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from training.methods.base import Method
from zoo.errors import UnknownNameError, nearest

#: name -> class, or "module:class" which is imported on first use.
METHODS: dict[str, Any] = {
    "simclr": "training.methods.simclr:SimCLR",
    "conrec": "training.methods.conrec:ConRec",
    "ms2l": "training.methods.ms2l:MS2L",
    "moco": "training.methods.moco:MoCo",
    "clsa": "training.methods.clsa:CLSA",
    "ssnas": "training.methods.ssnas:SSNAS",
    "distill": "training.methods.distill:Distill",
}


def method_class(name: str) -> type[Method]:
    """The class of a method.

    Raises:
        UnknownNameError: no such method; names the nearest.
        TypeError: the entry is no subclass of `Method`.
    """
    if name not in METHODS:
        raise UnknownNameError(f"unknown method {name!r}; {nearest(name, list(METHODS))}")
    entry = METHODS[name]
    if isinstance(entry, str):
        module, _, attribute = entry.partition(":")
        entry = vars(import_module(module))[attribute]
    if not (isinstance(entry, type) and issubclass(entry, Method)):
        raise TypeError(f"method {name!r} must be a subclass of training.methods.base.Method, got {entry!r}")
    return entry
