"""A weights file, read once: the bytes that were hashed are the bytes that become tensors.

`safetensors` reads a path a second time (mmap) or copies every tensor; here one read serves the hash,
the header check and the tensors, so a file that changes in between cannot slip past the hash.
Format: https://huggingface.co/docs/safetensors/index#format
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from zoo.checkpoint.config import MAX_WEIGHT_BYTES, Weights
from zoo.errors import CheckpointError
from zoo.strict import unique_keys
from zoo.text import quoted

DTYPES = {
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
NETWORK_KEY = "network_sha256"
#: About 100 bytes describe a tensor, and parsed they take 40 times as many.
MAX_HEADER_BYTES = 4 << 20
#: First bytes of files that are often renamed to `.safetensors` -> what they are and what to do.
_MAGIC = {
    b"PK\x03\x04": "a zip archive (torch.save format)",
    b"\x80\x02": "a pickle",
    b"\x80\x03": "a pickle",
    b"\x80\x04": "a pickle",
    b"\x80\x05": "a pickle",
    b"\x89HDF": "an HDF5 file",
    b"\x1f\x8b": "a gzip archive",
}
_CONVERT = (
    "the zoo never unpickles weights; load it yourself with torch.load(..., weights_only=True) "
    "and write it with zoo.checkpoint.writing.write_checkpoint"
)


class Entry(NamedTuple):
    """One tensor of a header: dtype, shape, and its bytes `[start, stop)` in the file."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int
    stop: int


def network_digest(raw_config: dict[str, Any]) -> str:
    """sha256 over what decides how weights act: architecture, input and num_features of a config.json.

    The weights file carries it, so an edited config.json (another mean, another activation) does not
    load although every tensor still fits. It is taken from the JSON as written, which no later
    default of `zoo.checkpoint.config` can change.
    """
    deciding = {key: raw_config.get(key) for key in ("architecture", "input", "num_features")}
    return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()


def check_suffix(name: str, source: str) -> None:
    """Refuse a weights file that is not `.safetensors`. Raises CheckpointError."""
    if not name.endswith(".safetensors"):
        raise CheckpointError(f"{source}: the weights file {quoted(name)} is not .safetensors; {_CONVERT}")


def read_verified(path: Path, weights: Weights) -> Tensor:
    """The file's bytes as one uint8 tensor, once size and sha256 are as `weights` says.

    Raises:
        CheckpointError: missing, not a regular file, not safetensors, wrong size or hash.
    """
    buffer, digest = read_hashed(path, weights.bytes)
    if digest != weights.sha256:
        raise CheckpointError(
            f"{path} is not the file that config.json describes: sha256 {digest[:12]}..., "
            f"expected {weights.sha256[:12]}...; download it again"
        )
    return buffer


def read_hashed(path: Path, size: int | None = None) -> tuple[Tensor, str]:
    """The file's bytes as one uint8 tensor, and their sha256.

    Args:
        size: what config.json says; None takes any size up to `MAX_WEIGHT_BYTES`.

    Raises:
        CheckpointError: missing, not a regular file, not safetensors, wrong size.
    """
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            raise CheckpointError(f"{path} is not a regular file; restore the checkpoint from its source")
        with path.open("rb", buffering=0) as file:
            return _read(file, path, size)
    except FileNotFoundError:
        raise CheckpointError(_missing(path)) from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from None


def size_of(path: Path) -> int:
    """Bytes of a file, 0 if there is none."""
    return path.stat().st_size if path.is_file() else 0


def _missing(path: Path) -> str:
    pickles = [p.name for p in path.parent.glob("*") if p.suffix in (".pth", ".pt", ".bin", ".ckpt", ".pkl")]
    if pickles:
        return f"{path.parent} holds {quoted(sorted(pickles)[0])} where {path.name!r} is expected; {_CONVERT}"
    return f"{path} is missing; copy or download the whole checkpoint folder again"


def _read(file: Any, path: Path, wanted: int | None) -> tuple[Tensor, str]:
    size = os.fstat(file.fileno()).st_size
    head = file.read(64)
    for magic, what in _MAGIC.items():
        if head.startswith(magic) and not head[8:9] == b"{":
            raise CheckpointError(f"{path} is {what} under a .safetensors name; {_CONVERT}")
    if head.startswith(b"version https://git-lfs"):
        raise CheckpointError(f"{path} is a git-lfs pointer, not the weights; run `git lfs pull`")
    if wanted is not None and size != wanted:
        what = "truncated" if size < wanted else "too long"
        raise CheckpointError(f"{path} is {what}: {size} bytes, config.json says {wanted}; download it again")
    if size > MAX_WEIGHT_BYTES:
        raise CheckpointError(f"{path} has {size} bytes; the zoo reads weights of at most {MAX_WEIGHT_BYTES} bytes")
    file.seek(0)
    buffer = torch.empty(size, dtype=torch.uint8)
    view, filled = memoryview(buffer.numpy()), 0
    while filled < size:
        count = file.readinto(view[filled:])
        if not count:
            raise CheckpointError(f"{path} became shorter while it was read ({filled} of {size} bytes); load it again")
        filled += count
    return buffer, hashlib.sha256(view).hexdigest()


def parse_header(buffer: Tensor, source: str) -> tuple[dict[str, Entry], dict[str, str]]:
    """The tensors a safetensors file announces, and its metadata.

    Raises:
        CheckpointError: the header is no header, lies about sizes, overlaps, leaves holes,
            repeats a name, or holds a dtype the zoo does not read.
    """
    if len(buffer) < 8:
        raise CheckpointError(f"{source}: {len(buffer)} bytes are too few for a safetensors file")
    length = int.from_bytes(bytes(buffer[:8].tolist()), "little")
    if length > MAX_HEADER_BYTES:
        raise CheckpointError(f"{source}: the header claims {length} bytes, at most {MAX_HEADER_BYTES} are read")
    if length > len(buffer) - 8:
        raise CheckpointError(f"{source}: the header claims {length} bytes, the file has {len(buffer) - 8}")
    try:
        raw = json.loads(bytes(memoryview(buffer[8 : 8 + length].numpy())), object_pairs_hook=unique_keys)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{source}: the safetensors header is not valid JSON ({error})") from None
    if not isinstance(raw, dict):
        raise CheckpointError(f"{source}: the safetensors header must be an object, got {type(raw).__name__}")
    metadata = raw.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise CheckpointError(f"{source}: the safetensors metadata must map strings to strings")
    start, stop = 8 + length, len(buffer)
    entries = {name: _entry(name, value, start, stop, source) for name, value in raw.items()}
    end = start
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].stop)):
        if entry.start != end:
            raise CheckpointError(f"{source}: tensor {quoted(name)} starts at byte {entry.start}, expected {end}")
        end = entry.stop
    if end != stop:
        raise CheckpointError(f"{source}: {stop - end} bytes after the last tensor belong to none")
    return entries, metadata


def _entry(name: str, value: Any, start: int, stop: int, source: str) -> Entry:
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise CheckpointError(f"{source}: tensor {quoted(name)} needs exactly dtype, shape and data_offsets")
    dtype = DTYPES.get(value["dtype"]) if isinstance(value["dtype"], str) else None
    if dtype is None:
        raise CheckpointError(
            f"{source}: tensor {quoted(name)} has dtype {quoted(value['dtype'], 40)}; known: {list(DTYPES)}"
        )
    shape, offsets = value["shape"], value["data_offsets"]
    if not _sizes(shape) or not _sizes(offsets) or len(offsets) != 2 or len(shape) > 8:
        raise CheckpointError(f"{source}: tensor {quoted(name)} has a malformed shape or data_offsets")
    count = dtype.itemsize
    for side in shape:
        count *= side
        if count > stop:
            raise CheckpointError(f"{source}: tensor {quoted(name)} of shape {shape} is larger than the file")
    if offsets[1] - offsets[0] != count or start + offsets[1] > stop:
        raise CheckpointError(f"{source}: tensor {quoted(name)} needs {count} bytes, its data_offsets are {offsets}")
    if (start + offsets[0]) % dtype.itemsize:
        raise CheckpointError(f"{source}: tensor {quoted(name)} is not aligned to its {dtype.itemsize}-byte elements")
    return Entry(dtype, tuple(shape), start + offsets[0], start + offsets[1])


def _sizes(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 1 << 63 for item in value)


def check_fit(entries: dict[str, Entry], module: nn.Module, weights: Weights, source: str) -> None:
    """Refuse a header whose names, shapes or dtypes are not exactly those of `module`.

    Raises:
        CheckpointError: names the first tensor that does not fit.
    """
    expected = module.state_dict()
    missing, unexpected = sorted(expected.keys() - entries.keys()), sorted(entries.keys() - expected.keys())
    if missing or unexpected:
        raise CheckpointError(
            f"{source}: the weights do not fit the architecture: {len(missing)} tensors are missing "
            f"({_some(missing)}), {len(unexpected)} are not expected ({_some(unexpected)})"
        )
    floating = getattr(torch, weights.dtype)
    for name, tensor in expected.items():
        dtype = floating if tensor.is_floating_point() else tensor.dtype
        entry = entries[name]
        if entry.shape != tuple(tensor.shape) or entry.dtype != dtype:
            raise CheckpointError(
                f"{source}: tensor {quoted(name)} is {list(entry.shape)} {entry.dtype}, "
                f"expected {list(tensor.shape)} {dtype}"
            )
    parameters = sum(parameter.numel() for parameter in module.parameters())
    if parameters != weights.parameters:
        raise CheckpointError(
            f"{source}: the architecture has {parameters} parameters, config.json says {weights.parameters}"
        )


def _some(names: list[str]) -> str:
    return ", ".join(quoted(name) for name in names[:3]) + (", ..." if len(names) > 3 else "") if names else "none"


def tensors(buffer: Tensor, entries: dict[str, Entry]) -> dict[str, Tensor]:
    """Views into `buffer`, one per entry; no copy."""
    return {name: buffer[e.start : e.stop].view(e.dtype).view(e.shape) for name, e in entries.items()}


def check_finite(state: dict[str, Tensor], source: str) -> None:
    """Refuse NaN and infinite values.

    Raises:
        CheckpointError: names the tensor.
    """
    for name, tensor in state.items():
        # A finite sum proves every element finite at half the cost of isfinite; an overflowing sum proves nothing.
        if tensor.is_floating_point() and not tensor.sum().isfinite() and not tensor.isfinite().all():
            raise CheckpointError(f"{source}: tensor {quoted(name)} holds NaN or infinite values")
