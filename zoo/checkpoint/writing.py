"""Write a checkpoint folder: whole, checked, and loadable before it appears."""

from __future__ import annotations

import hashlib
import json
import re
import warnings
from pathlib import Path

import torch
from pydantic import ValidationError
from torch import Tensor

from zoo.checkpoint.config import CheckpointConfig, Method, Training, Weights
from zoo.checkpoint.loading import load_source
from zoo.checkpoint.reference import FILE as REFERENCE
from zoo.checkpoint.reference import Reference, check_reference, make_reference
from zoo.checkpoint.results import Results
from zoo.checkpoint.sources import open_folder
from zoo.checkpoint.weights import NETWORK_KEY, network_digest
from zoo.encoder import Encoder
from zoo.errors import CheckpointError, ConfigError
from zoo.files import disk_errors, replacing_folder
from zoo.strict import Architecture, first_problem

#: Pictures that belong to a model card.
PICTURE = r"[\w.-]+_(?:cell|results)\.svg"
#: What a checkpoint folder holds; anything else in one was put there by a person.
_OWN = re.compile(
    rf"config\.json|results\.json|reference\.json|README\.md|[\w.-]+\.safetensors|\.eval_results|{PICTURE}"
)
_FLOATS = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


def write_checkpoint(
    encoder: Encoder,
    folder: str | Path,
    *,
    name: str,
    architecture: Architecture,
    method: Method,
    training: Training,
    dtype: str = "float16",
    licence: str = "MIT",
    results: Results | None = None,
) -> CheckpointConfig:
    """Write `encoder` as a checkpoint folder: config.json, weights, reference outputs, and results.json if given.

    The folder appears whole or not at all: it is written under a temporary name, loaded back as a
    user would, and only then exchanged with an older one.

    Args:
        encoder: the trained encoder; its `input` and `num_features` go into config.json.
        folder: where; an existing checkpoint there is replaced.
        architecture: what `zoo.architectures.build` makes the same network from.
        dtype: `"float16"`, `"bfloat16"` or `"float32"` on disk. Integer buffers stay as they are. Values
            beyond the range of float16 make it float32, with a warning.
        results: measurements of these very weights.

    Returns:
        The config that was written.

    Raises:
        CheckpointError: NaN or infinite weights, weights that do not fit `architecture`, results of
            other weights, or a disk that is full.
        ConfigError: a name or dtype that cannot be.
    """
    folder = Path(folder)
    state, dtype = _stored_state(encoder, dtype)
    shared = {
        "architecture": architecture.model_dump(mode="json"),
        "input": encoder.input.model_dump(mode="json"),
        "num_features": encoder.num_features,
    }
    content = _serialise(state, {"format": "pt", NETWORK_KEY: network_digest(shared)})
    try:
        config = CheckpointConfig(
            name=name,
            architecture=architecture,
            input=encoder.input,
            num_features=encoder.num_features,
            method=method,
            weights=Weights(
                sha256=hashlib.sha256(content).hexdigest(),
                bytes=len(content),
                dtype=dtype,
                parameters=sum(parameter.numel() for parameter in encoder.parameters()),
            ),
            training=training,
            licence=licence,
        )
    except ValidationError as error:
        raise ConfigError(f"checkpoint {name!r}: {first_problem(error)}") from None
    _write_folder(
        folder, config.to_json(), config.weights.file, content, _measured_on(results, config, allow_unset=True)
    )
    return config


def _stored_state(encoder: Encoder, dtype: str) -> tuple[dict[str, Tensor], str]:
    if dtype not in _FLOATS:
        raise ConfigError(f"weights can be stored as {', '.join(_FLOATS)}, not {dtype!r}")
    state = {key: tensor.detach().cpu() for key, tensor in encoder.state_dict().items()}
    for key, tensor in state.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise CheckpointError(f"tensor {key!r} holds NaN or infinite values; publish an earlier state of the run")
    if not _fits(state, dtype):
        warnings.warn(f"weights exceed the range of {dtype}; they are stored as float32", stacklevel=3)
        dtype = "float32"
    target = _FLOATS[dtype]
    # A copy of each: tied tensors share memory, which the format cannot express.
    return {
        key: tensor.to(target if tensor.is_floating_point() else tensor.dtype, copy=True).contiguous()
        for key, tensor in state.items()
    }, dtype


def _fits(state: dict[str, Tensor], dtype: str) -> bool:
    return all(bool(t.to(_FLOATS[dtype]).isfinite().all()) for t in state.values() if t.is_floating_point())


def _serialise(state: dict[str, Tensor], metadata: dict[str, str]) -> bytes:
    """A safetensors file. The library writes metadata in a random order; ours makes equal weights equal bytes."""
    import safetensors.torch

    content = safetensors.torch.save(state)
    start = 8 + int.from_bytes(content[:8], "little")
    header = {"__metadata__": metadata, **json.loads(content[8:start])}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + content[start:]


def _measured_on(results: Results | None, config: CheckpointConfig, allow_unset: bool = False) -> Results | None:
    if results is None or results.weights_sha256 == config.weights.sha256:
        return results
    if allow_unset and results.weights_sha256 is None:
        return results.model_copy(update={"weights_sha256": config.weights.sha256})
    raise CheckpointError(
        f"the results were measured on weights {str(results.weights_sha256)[:12]}..., the checkpoint holds "
        f"{config.weights.sha256[:12]}...; evaluate this checkpoint and publish again"
    )


def _write_folder(
    folder: Path, config: str, file: str, content: bytes, results: Results | None, reference: Reference | None = None
) -> None:
    check_replaceable(folder)
    with replacing_folder(folder) as fresh:
        (fresh / file).write_bytes(content)
        if results is not None:
            (fresh / "results.json").write_bytes(results.to_json().encode())
        (fresh / "config.json").write_bytes(config.encode())
        made = _check_loads(fresh, folder, reference)
        (fresh / REFERENCE).write_bytes(made.to_json().encode())


def _check_loads(fresh: Path, folder: Path, reference: Reference | None) -> Reference:
    """Load the new folder as a user would and run it; returns its outputs on the reference inputs."""
    try:
        encoder = load_source(open_folder(fresh)).eval()
        assert encoder.config is not None
        if reference is None:
            return make_reference(encoder, encoder.config.weights.sha256)
        check_reference(reference, encoder)
        return reference
    except (CheckpointError, ConfigError) as error:
        message = str(error).replace(str(fresh), str(folder))
        raise type(error)(f"not written, because it would not load: {message}") from None


def check_replaceable(folder: Path) -> None:
    """Refuse to replace a folder that holds anything but a checkpoint: someone may have given the wrong path.

    Raises:
        CheckpointError: names what is in the way.
    """
    with disk_errors(folder, CheckpointError):
        if not folder.exists():
            return
        if not folder.is_dir():
            raise CheckpointError(f"{folder} is a file; give the path of a folder")
        foreign = sorted(entry.name for entry in folder.iterdir() if not _OWN.fullmatch(entry.name))
    if foreign:
        more = " and more" if len(foreign) > 1 else ""
        raise CheckpointError(
            f"{folder} holds {foreign[0]!r}{more}, which is no part of a checkpoint; it is not replaced: "
            "move that away, or choose another folder"
        )
