"""A foreign checkpoint file -> its tensors; nothing in the file is ever run."""

from __future__ import annotations

import argparse
import pickle
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from zoo.checkpoint.weights import MAX_HEADER_BYTES
from zoo.errors import CheckpointError
from zoo.files import digest_of
from zoo.text import clipped, quoted


class _Dtype:
    """Stands in for `numpy.dtype`, whose own `__setstate__` trusts what it is given."""

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def _number(*_: Any) -> None:
    """Stands in for a NumPy number, such as a best accuracy, that lies beside the weights; nobody reads it."""


#: Plain holders of settings that training scripts save beside the weights; reading one runs no code of the file.
PLAIN: list[Any] = [
    argparse.Namespace,
    (_number, "numpy.core.multiarray.scalar"),
    (_number, "numpy._core.multiarray.scalar"),
    (_Dtype, "numpy.dtype"),
]


#: Entries under which training programs keep a network's state dict, beside those of the optimiser and the like.
CONTAINERS = (
    "state_dict",
    "model",
    "model_state_dict",
    "model_state",
    "network",
    "net",
    "encoder",
    "module",
    "weights",
)


class Foreign(NamedTuple):
    """What a file holds: the state dict, the other top-level entries, and the file's sha256."""

    state: dict[str, Tensor]
    extras: dict[str, Any]
    sha256: str


def read_foreign(path: Path, container: str | None) -> Foreign:
    """The state dict in a `.pth` (torch.save, of any age) or `.safetensors` file, on the CPU.

    Args:
        path: the file. container: entry that holds the state dict; a file without it is itself one.

    Raises:
        CheckpointError: it cannot be read, asks for code, or holds no state dict.
    """
    try:
        with path.open("rb") as file:
            digest = digest_of(file).hexdigest()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from None
    content = _read(path)
    if not isinstance(content, dict):
        raise CheckpointError(
            f"{path} holds a {type(content).__name__}, not a dict of weights; save model.state_dict()"
        )
    inner: Any = content
    for key in (container or "").split("."):
        inner = inner.get(key) if isinstance(inner, dict) else None
    if not isinstance(inner, dict):
        container, inner = _usual_container(content, container)
    state = _flat(inner) if isinstance(inner, dict) else content
    wrong = next((key for key, value in state.items() if not isinstance(value, Tensor)), None)
    if not state or wrong is not None:
        raise CheckpointError(
            f"{path} holds no state dict: expected tensors under {container or 'the top level'!r}, got "
            + (f"{quoted(wrong)}, a {type(state[wrong]).__name__}" if state else "nothing")
        )
    extras = {} if state is content else {k: v for k, v in content.items() if k != (container or "").split(".")[0]}
    return Foreign({str(key): value for key, value in state.items()}, extras, digest)


def _usual_container(content: dict[Any, Any], container: str | None) -> tuple[str | None, Any]:
    """The one entry by which training programs usually keep a state dict, where the layout's own is not there."""
    if any(isinstance(value, Tensor) for value in content.values()):
        return container, None  # the file is itself a state dict
    found = [name for name in CONTAINERS if isinstance(content.get(name), dict) and _has_tensors(content[name])]
    return (found[0], content[found[0]]) if len(found) == 1 else (container, None)


def _has_tensors(value: Any) -> bool:
    return any(isinstance(each, Tensor) for each in value.values())


def _flat(state: dict[Any, Any]) -> dict[Any, Any]:
    """VISSL keeps a dict of tensors per part (trunk, heads): `{"trunk": {"a": t}}` -> `{"trunk.a": t}`."""
    flat = {}
    for key, value in state.items():
        nested = isinstance(value, dict) and value and all(isinstance(v, Tensor) for v in value.values())
        flat |= {f"{key}.{inner}": v for inner, v in value.items()} if nested else {key: value}
    return {key: value for key, value in flat.items() if not (isinstance(value, dict) and not value)}


def _read(path: Path) -> Any:
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
        if length > MAX_HEADER_BYTES:
            raise CheckpointError(f"{path}: the header claims {length} bytes, at most {MAX_HEADER_BYTES} are read")
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path} is no safetensors file: {clipped(error, 200)}") from None
    try:
        with torch.serialization.safe_globals(PLAIN):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = " ".join(str(error).split())
        wanted = reason.partition("Unsupported global: GLOBAL ")[2].partition(" ")[0]
        raise CheckpointError(
            f"{path} is refused: "
            + (f"to read it, {clipped(wanted)} would have to be run" if wanted else "it is no plain torch.save file")
            + "; in the project that wrote it, save the state dict alone: torch.save(model.state_dict(), FILE)"
        ) from None
    except Exception as error:  # a damaged archive raises a dozen types
        reason = (str(error).splitlines() or [""])[0]
        raise CheckpointError(
            f"{path} is no file of torch.save: {type(error).__name__}: {clipped(reason, 200)}"
        ) from None
