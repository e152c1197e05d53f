"""An address or a mirror -> an opened checkpoint, and its weights from the first place that has them."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from zoo.checkpoint.catalog import find
from zoo.checkpoint.config import CheckpointConfig, Weights
from zoo.checkpoint.download import check_url
from zoo.checkpoint.hub import open_hub, parse_hub
from zoo.checkpoint.sources import Access, Source, open_folder
from zoo.checkpoint.timm_names import address_for, open_timm
from zoo.checkpoint.web import WebSource, cached_weights, offline, open_web
from zoo.errors import CheckpointError, ConfigError, HubError, UnknownNameError, ZooError
from zoo.network.connection import is_loopback

FORMS = (
    "an address is a catalogue name, 'timm:NAME[.TAG]', 'hf-hub:org/name[@revision]', 'https://host/.../NAME' or "
    "'local-dir:path'"
)


def open_source(
    address: str,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Source:
    """Open `address`: find the checkpoint and read its config.json (arguments as in `zoo.load`).

    Raises:
        UnknownNameError: no such checkpoint, or not an address.
        ConfigError: there is no config.json.
        HubError: the hub or host cannot be reached or does not hold it.
    """
    if not isinstance(address, str):
        fix = f"; write 'local-dir:{address}'" if isinstance(address, os.PathLike) else ""
        raise UnknownNameError(f"expected an address as text, got {type(address).__name__}{fix}; {FORMS}")
    access = Access(None if cache_dir is None else Path(cache_dir), local_files_only)
    scheme, colon, rest = address.partition(":")
    if scheme == "hf-hub" and colon:
        return open_hub(rest, access, revision=revision)
    if scheme == "timm" and colon:
        return open_timm(rest, access, revision=revision)
    if scheme in ("http", "https") and not re.match(r"https?://huggingface\.co/", address):
        return open_web(address, access, revision=revision)
    if revision is not None:
        raise UnknownNameError(f"{address!r} has no revisions; only hf-hub:, timm: and https:// take revision=")
    if scheme == "local-dir" and colon:
        if not rest or "\0" in rest:
            raise UnknownNameError(f"{address!r} names no folder; {FORMS}")
        return open_folder(Path(rest).expanduser(), access)
    return open_folder(_published(address), access)


def _published(name: str) -> Path:
    hub = re.fullmatch(r"(?:https?://huggingface\.co/|hf://)([\w.-]+/[\w.-]+?)/?", name)
    if hub:
        raise UnknownNameError(f"{name!r} is a URL; write 'hf-hub:{hub[1]}'")
    if "://" in name:
        raise UnknownNameError(f"{name!r} has an unknown scheme; {FORMS}")
    if re.match(r"[a-z][a-z-]+:", name):
        raise UnknownNameError(f"{name!r} has an unknown scheme; {FORMS}")
    if "/" in name or "\\" in name or name.startswith((".", "~")):
        other = f" or 'hf-hub:{name}'" if re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name) else ""
        raise UnknownNameError(f"{name!r} is a path; write 'local-dir:{name}'{other}")
    try:
        return find(name)
    except UnknownNameError as error:
        if (known := address_for(name)) is None:
            raise
        raise UnknownNameError(f"no checkpoint is called {name!r}; timm has one: write '{known}'") from error


def check_mirror(address: str) -> None:
    """Refuse an address that other machines cannot load from. Raises UnknownNameError, ConfigError."""
    if address.startswith("hf-hub:"):
        parse_hub(address.removeprefix("hf-hub:"))
    elif address.startswith(("http:", "https:")):
        check_url(address)
    else:
        raise ConfigError(f"mirror {address!r} is on this machine only; give hf-hub:org/name@COMMIT or https://...")


def fetch_weights(source: Source, config: CheckpointConfig) -> Path:
    """The weights of a source, or else of the first mirror in its config.json that has them.

    Raises:
        CheckpointError, HubError: nobody has them; says why for each.
    """
    if not config.mirrors:
        return source.weights(config.weights)
    failures = []
    try:
        path = source.weights(config.weights)
        if path.exists():
            return path
        failures.append(f"{path} is missing")
    except HubError as error:
        failures.append(str(error))
    if (cached := cached_weights(source.access, config.weights)) is not None:
        return cached
    for mirror in config.mirrors:
        try:
            return _from_mirror(_open_mirror(mirror, source), config.weights)
        except ZooError as error:
            failures.append(f"{mirror}: {error}")
    raise HubError(f"{config.name}: no mirror has the weights. " + " | ".join(failures))


def _open_mirror(address: str, source: Source) -> Source:
    if source.access.local_files_only or offline():
        raise HubError("the network is off")
    if source.remote and is_loopback(address):
        raise HubError("a config.json from the network may not point to this machine")
    if address.startswith("hf-hub:"):
        return open_hub(address.removeprefix("hf-hub:"), source.access)
    # The config.json at hand says what the weights are, so that of the mirror is not asked for.
    return WebSource(address, source.config, source.access, check_url(address), allow_here=not source.remote)


def _from_mirror(mirror: Source, wanted: Weights) -> Path:
    path = mirror.weights(wanted)
    if path.stat().st_size != wanted.bytes or hashlib.sha256(path.read_bytes()).hexdigest() != wanted.sha256:
        raise CheckpointError("it holds another file than config.json describes")
    return path
