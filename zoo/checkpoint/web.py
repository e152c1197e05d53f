"""Checkpoints on plain web servers; weights are cached by their sha256, whichever host they came from."""

from __future__ import annotations

import hashlib
import os
import re
import warnings
from dataclasses import dataclass
from pathlib import Path

from zoo.checkpoint.config import MAX_CONFIG_BYTES, Weights, parse_config
from zoo.checkpoint.download import check_url, download, is_whole
from zoo.checkpoint.sources import MAX_EXTRA_BYTES, Access, Source
from zoo.errors import CheckpointError, HubError, UnknownNameError
from zoo.files import cache_root, write_cache
from zoo.network.asking import NotFound, Unavailable, read
from zoo.network.connection import is_loopback


@dataclass(frozen=True)
class WebSource(Source):
    """A checkpoint folder at a URL, such as `zoo mirror` lays out.

    `allow_here`: whether the host may be this machine; not for a mirror that a config.json from elsewhere names.
    """

    url: str
    allow_here: bool = True

    @property
    def remote(self) -> bool:
        return not is_loopback(self.url)

    def weights(self, wanted: Weights) -> Path:
        """The weights in the cache, fetched if need be. Raises HubError, CheckpointError."""
        cached = cached_weights(self.access, wanted)
        if cached is not None:
            return cached
        if self.access.local_files_only or offline():
            raise HubError(f"{self.url}: {wanted.file} is not in the cache, and the network is off")
        path = _weights_path(self.access, wanted)
        return download(f"{self.url}/{wanted.file}", path, wanted.bytes, wanted.sha256, allow_here=self.allow_here)

    def extra(self, name: str) -> bytes | None:
        """A small file beside them, None if the host has none. Raises HubError."""
        try:
            return read(f"{self.url}/{name}", MAX_EXTRA_BYTES)
        except NotFound:
            return None

    def advice(self, path: Path) -> str:
        return f"the cached copy is damaged: delete {path} and load again"


def open_web(address: str, access: Access, *, revision: str | None = None) -> WebSource:
    """Open `https://host/path/NAME[@SHA256]`, with the hash of the weights; config.json comes from the cache if the
    network is off, or if the hash is given and fits.

    Raises:
        UnknownNameError: no such URL can be. CheckpointError: the host holds other weights than the hash says.
        HubError: the host cannot be reached or has no checkpoint there.
    """
    url, _, pinned = address.partition("@") if re.search(r"@[0-9a-f]{64}$", address) else (address, "", "")
    if revision is not None and not re.fullmatch(r"[0-9a-f]{64}", revision):
        raise UnknownNameError(f"{address!r}: the revision of a URL is the sha256 of its weights, 64 hex digits")
    if pinned and revision not in (None, pinned):
        raise UnknownNameError(f"{address!r} and revision={revision!r} name two revisions; keep one of them")
    url, pinned = check_url(url), pinned or revision or ""
    if url.endswith((".safetensors", ".json")):
        raise UnknownNameError(f"{address!r} is one file; give the URL of the checkpoint's folder")
    text = _config(url, access, pinned)
    sha256 = parse_config(text, url).weights.sha256
    if pinned and sha256 != pinned:
        raise CheckpointError(
            f"{url} holds weights {sha256[:12]}... now, not {pinned[:12]}...; "
            "use another mirror, or load it without the hash if you trust the new ones"
        )
    return WebSource(url, text, access, url)


def _config(url: str, access: Access, pinned: str) -> bytes:
    path = cache_root(access.cache_dir) / "mirrors" / hashlib.sha256(url.encode()).hexdigest()[:32] / "config.json"
    cached = path.read_bytes() if path.is_file() and not path.is_symlink() else None
    if access.local_files_only or offline():
        if cached is None:
            raise HubError(f"{url} is not in the cache, and the network is off; load it once with the network")
        return cached
    if pinned and cached is not None and parse_config(cached, url).weights.sha256 == pinned:
        return cached
    try:
        text = read(f"{url}/config.json", MAX_CONFIG_BYTES)
    except NotFound as error:
        raise HubError(f"{error}: {url} is no checkpoint folder") from None
    except Unavailable as error:
        if cached is None:
            raise
        warnings.warn(f"{error}. The cached one is used; HF_HUB_OFFLINE=1 does so without asking", stacklevel=2)
        return cached
    parse_config(text, url)
    if text != cached:
        write_cache(path, text)
    return text


def offline() -> bool:
    """Whether the environment says to stay off the network (HF_HUB_OFFLINE)."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def cached_weights(access: Access, wanted: Weights) -> Path | None:
    """Weights of that hash in the cache, None if they are not there or not whole."""
    path = _weights_path(access, wanted)
    return path if is_whole(path, wanted.bytes) else None


def _weights_path(access: Access, wanted: Weights) -> Path:
    return cache_root(access.cache_dir) / "weights" / f"{wanted.sha256}.safetensors"
