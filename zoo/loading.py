"""`load`: an address -> an encoder. Strict, hashed, never a pickle, and never a guess."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from zoo import weights
from zoo.architectures import build
from zoo.config import MAX_CONFIG_BYTES, CheckpointConfig, parse_config
from zoo.encoder import Encoder
from zoo.errors import CheckpointError, ConfigError, HubError, InputError, UnknownNameError

#: Cards, results and reference outputs are far smaller.
MAX_EXTRA_BYTES = 8 << 20
_FORMS = "an address is a catalogue name, 'hf-hub:org/name[@revision]', 'https://host/.../NAME' or 'local-dir:path'"


class Files(Protocol):
    """Where a checkpoint's two files come from."""

    label: str

    def config(self) -> bytes:
        """The bytes of config.json."""

    def weights(self, name: str) -> Path:
        """The weights file as a path that can be opened."""

    def extra(self, name: str) -> bytes | None:
        """A small file beside them, such as results.json or reference.json; None if there is none."""

    def advice(self, path: Path) -> str:
        """What else to try when that file turns out wrong; may be empty."""


class FolderFiles:
    """A checkpoint folder on this machine."""

    def __init__(self, folder: Path, *, cache_dir: str | Path | None = None, local_files_only: bool = False) -> None:
        """`cache_dir`, `local_files_only`: for weights that come from the mirrors in config.json (see `load`)."""
        self.folder, self.label = folder, str(folder)
        self.cache_dir, self.local_files_only = cache_dir, local_files_only

    def config(self) -> bytes:
        """The bytes of config.json. Raises ConfigError if it is missing or too large."""
        path = self.folder / "config.json"
        try:
            if not path.is_file():
                raise FileNotFoundError
            with path.open("rb") as file:
                return file.read(MAX_CONFIG_BYTES + 1)
        except (FileNotFoundError, NotADirectoryError):
            raise ConfigError(
                f"{self.folder} is no checkpoint folder: it has no config.json. "
                "`zoo publish RUN --name NAME` makes one from a training run"
            ) from None
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from None

    def weights(self, name: str) -> Path:
        """The weights file; a link may only stay in the folder or in the Hugging Face cache around it."""
        path = self.folder / name
        target, home = path.resolve(), self.folder.resolve()
        allowed = [home] + ([home.parent.parent / "blobs"] if home.parent.name == "snapshots" else [])
        if target.parent not in allowed:
            raise CheckpointError(f"{path} is a link out of its folder, to {target}; copy the file itself there")
        return path

    def extra(self, name: str) -> bytes | None:
        """The bytes of a small file in the folder, None if it is missing. Raises ConfigError."""
        path = self.folder / name
        try:
            with path.open("rb") as file:
                content = file.read(MAX_EXTRA_BYTES + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from None
        if len(content) > MAX_EXTRA_BYTES:
            raise ConfigError(f"{path} is larger than {MAX_EXTRA_BYTES} bytes; no zoo writes that")
        return content

    def advice(self, path: Path) -> str:
        """Nothing to add: the messages name the folder already."""
        return ""


def load(
    address: str,
    *,
    pretrained: bool = True,
    device: str | torch.device | None = None,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Encoder:
    """An encoder in eval mode with float32 weights.

    Args:
        address: a catalogue name (`list_models()`), `hf-hub:org/name[@revision]`, `https://host/.../NAME[@SHA256]`
            (a folder that `zoo mirror` made; http only from this machine or with ZOO_ALLOW_HTTP=1) or
            `local-dir:path`.
        pretrained: False builds the same network with random weights (its `config` is then None).
        device: where to put it, such as `"cuda"`; None for the CPU.
        revision: branch, tag or commit of a hub address; for a URL the sha256 of its weights. With the full
            40-digit commit or the hash a cached checkpoint loads without any request.
        cache_dir: where fetched files are kept; None for huggingface_hub's own cache, or $ZOO_CACHE for URLs.
        local_files_only: never use the network; `HF_HUB_OFFLINE=1` does the same.

    Raises:
        UnknownNameError: no such checkpoint, or not an address; names the nearest.
        ConfigError: config.json is missing, malformed or of a newer format.
        CheckpointError: the weights are missing, truncated, altered, or do not fit the architecture.
        HubError: the hub cannot be reached or does not hold what was asked for.
        InputError: the device does not exist here.
    """
    place = check_device(device)
    files = locate(address, revision=revision, cache_dir=cache_dir, local_files_only=local_files_only)
    if pretrained:
        encoder = _load_stable(files)
    else:
        config = parse_config(files.config(), files.label)
        encoder = build(config.architecture, config.input)
    return (encoder if place.type == "cpu" else encoder.to(place)).eval()


def locate(
    address: str,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Files:
    """Where the files of `address` are (see `load`). Raises UnknownNameError, HubError."""
    if not isinstance(address, str):
        fix = f"; write 'local-dir:{address}'" if isinstance(address, os.PathLike) else ""
        raise UnknownNameError(f"expected an address as text, got {type(address).__name__}{fix}; {_FORMS}")
    scheme, colon, rest = address.partition(":")
    if scheme == "hf-hub" and colon:
        from zoo.hub import HubFiles

        return HubFiles(rest, revision=revision, cache_dir=cache_dir, local_files_only=local_files_only)
    if scheme in ("http", "https") and not re.match(r"https?://huggingface\.co/", address):
        from zoo.mirrors import HttpFiles

        return HttpFiles(address, revision=revision, cache_dir=cache_dir, local_files_only=local_files_only)
    if revision is not None:
        raise UnknownNameError(f"{address!r} has no revisions; only hf-hub: and https:// addresses take revision=")
    if scheme == "local-dir" and colon:
        if not rest or "\0" in rest:
            raise UnknownNameError(f"{address!r} names no folder; {_FORMS}")
        folder = Path(rest).expanduser()
    else:
        folder = _published(address)
    return FolderFiles(folder, cache_dir=cache_dir, local_files_only=local_files_only)


def _published(name: str) -> Path:
    from zoo.catalog import find

    hub = re.fullmatch(r"(?:https?://huggingface\.co/|hf://)([\w.-]+/[\w.-]+?)/?", name)
    if hub:
        raise UnknownNameError(f"{name!r} is a URL; write 'hf-hub:{hub[1]}'")
    if "://" in name:
        raise UnknownNameError(f"{name!r} has an unknown scheme; {_FORMS}")
    if re.match(r"[a-z][a-z-]+:", name):
        raise UnknownNameError(f"{name!r} has an unknown scheme; {_FORMS}")
    if "/" in name or "\\" in name or name.startswith((".", "~")):
        other = f" or 'hf-hub:{name}'" if re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name) else ""
        raise UnknownNameError(f"{name!r} is a path; write 'local-dir:{name}'{other}")
    return find(name)


def check_device(device: str | torch.device | None) -> torch.device:
    """The device, None being the CPU. Raises InputError if this machine has no such device."""
    try:
        place = torch.device("cpu" if device is None else device)
    except (RuntimeError, TypeError) as error:
        raise InputError(f"device {device!r} is not known to torch: {str(error).splitlines()[0]}") from None
    if place.type == "cuda" and (place.index or 0) >= torch.cuda.device_count():
        raise InputError(
            f"device {str(place)!r}: torch sees {torch.cuda.device_count()} CUDA devices; use device='cpu'"
        )
    return place


def _load_stable(files: Files) -> Encoder:
    text = files.config()
    while True:
        try:
            return load_checked(files, text)
        except CheckpointError:
            # A training run may have replaced the folder between the reads of its two files.
            text, previous = files.config(), text
            if text == previous:
                raise


def load_checked(files: Files, text: bytes) -> Encoder:
    """The encoder of `files`, whose config.json holds `text`; each check precedes what depends on it.

    Raises:
        ConfigError, CheckpointError: as `load`.
    """
    config = parse_config(text, files.label)
    weights.check_suffix(config.weights.file, files.label)
    path = _weights_path(files, config)
    try:
        buffer = weights.read_verified(path, config.weights)
    except CheckpointError as error:
        advice = files.advice(path)
        raise CheckpointError(f"{error}; {advice}" if advice else str(error)) from None
    entries, metadata = weights.parse_header(buffer, str(path))
    _check_network(text, metadata, str(path))
    encoder = _empty_encoder(config, sum(entry.stop - entry.start for entry in entries.values()))
    weights.check_fit(entries, encoder, config.weights, str(path))
    if encoder.num_features != config.num_features:
        raise CheckpointError(
            f"{files.label}: the architecture gives {encoder.num_features} features, "
            f"config.json says {config.num_features}"
        )
    encoder.load_state_dict(weights.tensors(buffer, entries), strict=True)
    weights.check_finite(encoder.state_dict(), str(path))
    encoder.config = config
    return encoder


def _weights_path(files: Files, config: CheckpointConfig) -> Path:
    """The weights of `files`, or of the first mirror in config.json that has them."""
    if not config.mirrors:
        return files.weights(config.weights.file)
    try:
        path = files.weights(config.weights.file)
        if path.exists():
            return path
        problem = f"{path} is missing"
    except HubError as error:
        problem = str(error)
    from zoo.fetch import is_loopback
    from zoo.mirrors import from_mirrors

    return from_mirrors(
        config,
        problem,
        cache_dir=getattr(files, "cache_dir", None),
        local_files_only=getattr(files, "local_files_only", False),
        remote=not isinstance(files, FolderFiles) and not is_loopback(files.label),
    )


def _check_network(text: bytes, metadata: dict[str, str], source: str) -> None:
    expected = weights.network_digest(json.loads(text))
    if metadata.get(weights.NETWORK_KEY) != expected:
        raise CheckpointError(
            f"{source} was written for another architecture or preprocessing than config.json states; "
            "restore config.json, or write the checkpoint again with zoo.publishing.write_checkpoint"
        )


def _empty_encoder(config: CheckpointConfig, stored_bytes: int) -> Encoder:
    with _Unfilled(limit=4 * stored_bytes + (16 << 20)):
        return build(config.architecture, config.input)


class _Unfilled(TorchFunctionMode):
    """Builds a network without random initial values, and no larger than `limit` bytes.

    Drawing values that the checkpoint overwrites takes most of the time of a load, and would move the
    caller's random state. Meta tensors would be as quick but lose buffers that no state dict holds.
    The limit keeps an absurd architecture argument from taking the machine's memory.
    """

    _RANDOM = frozenset(
        {"uniform_", "normal_", "trunc_normal_", "erfinv_", "random_", "bernoulli_"}
        | {"kaiming_uniform_", "kaiming_normal_", "xavier_uniform_", "xavier_normal_", "orthogonal_"}
    )
    _ALLOCATING = frozenset({"empty", "zeros", "ones", "full", "rand", "randn", "linspace", "arange", "eye"})

    def __init__(self, limit: int) -> None:
        super().__init__()
        self.left = limit

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        name = getattr(func, "__name__", "")
        kwargs = kwargs or {}
        if name in self._RANDOM:
            return args[0] if args else kwargs["tensor"]
        if name == "to" and kwargs.get("memory_format") is not None and isinstance(args[0], torch.nn.Parameter):
            # Another layout of values that are none yet: the copy would be the most costly part of a load.
            return torch.empty_like(args[0], memory_format=kwargs["memory_format"])
        result = func(*args, **kwargs)
        if name in self._ALLOCATING and isinstance(result, Tensor):
            self.left -= result.numel() * result.element_size()
            if self.left < 0:
                raise CheckpointError("config.json describes a far larger network than the weights file holds")
        return result
