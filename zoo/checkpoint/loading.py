"""`load`: an address -> an encoder. Strict, hashed, never a pickle, and never a guess."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch

from zoo.checkpoint import weights
from zoo.checkpoint.budget import UNSEEN, build_within
from zoo.checkpoint.config import parse_config
from zoo.checkpoint.opening import fetch_weights, open_source
from zoo.checkpoint.sources import Source
from zoo.checkpoint.timm_layout import is_timm, load_timm, parse_timm
from zoo.device import check_device, plain_torch
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
    """An encoder in eval mode with float32 weights, whatever default dtype, device or mode torch is in.

    Args:
        address: a catalogue name (`list_models()`), `timm:NAME[.TAG][@revision]` (any pretrained model of timm),
            `hf-hub:org/name[@revision]` (a checkpoint of the zoo or of timm), `https://host/.../NAME[@SHA256]`
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

    with plain_torch():
        encoder = _load_stable(opened) if pretrained else _untrained(opened())
        return (encoder if place.type == "cpu" else encoder.to(place)).eval()


def _untrained(source: Source) -> Encoder:
    """The network of a checkpoint with random weights, as large as the weights that it says it has."""
    if is_timm(source.config):
        found = parse_timm(source)
        return build_within(found.architecture, found.input, 4 * UNSEEN, fill=True)
    config = parse_config(source.config, source.label)
    size = config.weights.bytes
    if size > UNSEEN and weights.size_of(fetch_weights(source, config)) != size:
        raise CheckpointError(
            f"{source.label}: config.json speaks of {size:,} bytes of weights, the file has another size; "
            "download it again"
        )
    encoder = build_within(config.architecture, config.input, size, fill=True)
    parameters = sum(parameter.numel() for parameter in encoder.parameters())
    if parameters != config.weights.parameters:
        raise CheckpointError(
            f"{source.label}: the architecture has {parameters} parameters, config.json says "
            f"{config.weights.parameters}"
        )
    return encoder


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
    if is_timm(source.config):
        return load_timm(source)
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
    stored = sum(entry.stop - entry.start for entry in entries.values())
    encoder = build_within(config.architecture, config.input, stored)
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
