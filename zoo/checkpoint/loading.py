"""`load`: an address -> an encoder. Strict, hashed, never a pickle, and never a guess."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from zoo.architectures import build
from zoo.checkpoint import weights
from zoo.checkpoint.config import CheckpointConfig, parse_config
from zoo.checkpoint.opening import fetch_weights, open_source
from zoo.checkpoint.sources import Source
from zoo.device import check_device
from zoo.encoder import Encoder
from zoo.errors import CheckpointError


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

    def opened() -> Source:
        return open_source(address, revision=revision, cache_dir=cache_dir, local_files_only=local_files_only)

    if pretrained:
        encoder = _load_stable(opened)
    else:
        source = opened()
        config = parse_config(source.config, source.label)
        encoder = build(config.architecture, config.input)
    return (encoder if place.type == "cpu" else encoder.to(place)).eval()


def _load_stable(opened: Callable[[], Source]) -> Encoder:
    source = opened()
    while True:
        try:
            return load_source(source)
        except CheckpointError:
            # A training run may have replaced the folder between the reads of its two files.
            source, previous = opened(), source
            if source.config == previous.config:
                raise


def load_source(source: Source) -> Encoder:
    """The encoder of an opened checkpoint; each check precedes what depends on it.

    Raises:
        ConfigError, CheckpointError: as `load`.
    """
    config = parse_config(source.config, source.label)
    weights.check_suffix(config.weights.file, source.label)
    path = fetch_weights(source, config)
    try:
        buffer = weights.read_verified(path, config.weights)
    except CheckpointError as error:
        advice = source.advice(path)
        raise CheckpointError(f"{error}; {advice}" if advice else str(error)) from None
    entries, metadata = weights.parse_header(buffer, str(path))
    _check_network(source.config, metadata, str(path))
    encoder = _empty_encoder(config, sum(entry.stop - entry.start for entry in entries.values()))
    weights.check_fit(entries, encoder, config.weights, str(path))
    if encoder.num_features != config.num_features:
        raise CheckpointError(
            f"{source.label}: the architecture gives {encoder.num_features} features, "
            f"config.json says {config.num_features}"
        )
    encoder.load_state_dict(weights.tensors(buffer, entries), strict=True)
    weights.check_finite(encoder.state_dict(), str(path))
    encoder.config = config
    return encoder


def _check_network(text: bytes, metadata: dict[str, str], source: str) -> None:
    expected = weights.network_digest(json.loads(text))
    if metadata.get(weights.NETWORK_KEY) != expected:
        raise CheckpointError(
            f"{source} was written for another architecture or preprocessing than config.json states; "
            "restore config.json, or write the checkpoint again with zoo.checkpoint.writing.write_checkpoint"
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
