"""Checkpoints on plain web servers: reading one, and falling back on the mirrors that a config.json names."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from zoo.checkpoint.config import MAX_CONFIG_BYTES, CheckpointConfig, parse_config
from zoo.checkpoint.download import NotFound, check_url, download, is_loopback, is_whole, read
from zoo.errors import CheckpointError, ConfigError, HubError, UnknownNameError
from zoo.files import cache_root, make_folder, replacing

_MAX_EXTRA_BYTES = 8 << 20


class HttpFiles:
    """A checkpoint folder at a URL, such as `zoo mirror` lays out; weights are cached by their sha256."""

    def __init__(
        self,
        address: str,
        *,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
    ) -> None:
        """`address`: `https://host/path/NAME[@SHA256]` with the hash of the weights. Raises UnknownNameError."""
        url, _, pinned = address.partition("@") if re.search(r"@[0-9a-f]{64}$", address) else (address, "", "")
        if revision is not None and not re.fullmatch(r"[0-9a-f]{64}", revision):
            raise UnknownNameError(f"{address!r}: the revision of a URL is the sha256 of its weights, 64 hex digits")
        if pinned and revision not in (None, pinned):
            raise UnknownNameError(f"{address!r} and revision={revision!r} name two revisions; keep one of them")
        self.url, self.pinned = check_url(url), pinned or revision
        if self.url.endswith((".safetensors", ".json")):
            raise UnknownNameError(f"{address!r} is one file; give the URL of the checkpoint's folder")
        self.label = self.url
        self.cache_dir, self.root = cache_dir, cache_root(cache_dir)
        self.local_files_only = local_files_only or offline()

    def config(self) -> bytes:
        """The bytes of config.json, cached ones if offline or pinned. Raises HubError, CheckpointError."""
        cached = self._cached_config()
        if self.local_files_only:
            if cached is None:
                raise HubError(f"{self.url} is not in the cache, and the network is off; load it once with the network")
            text = cached
        elif self.pinned and cached is not None and parse_config(cached, self.url).weights.sha256 == self.pinned:
            text = cached
        else:
            text = self._fetch_config(cached)
        self._config = parse_config(text, self.url)
        if self.pinned and self._config.weights.sha256 != self.pinned:
            raise CheckpointError(
                f"{self.url} holds weights {self._config.weights.sha256[:12]}... now, not {self.pinned[:12]}...; "
                "use another mirror, or load it without the hash if you trust the new ones"
            )
        return text

    def weights(self, name: str) -> Path:
        """The weights in the cache, fetched if need be. Raises HubError, CheckpointError."""
        wanted = self._config.weights
        path = weights_path(self.root, wanted.sha256)
        if self.local_files_only and not is_whole(path, wanted.bytes):
            raise HubError(f"{self.url}: {name} is not in the cache, and the network is off")
        return (
            path if is_whole(path, wanted.bytes) else download(f"{self.url}/{name}", path, wanted.bytes, wanted.sha256)
        )

    def extra(self, name: str) -> bytes | None:
        """A small file beside them, None if the host has none. Raises HubError."""
        try:
            return read(f"{self.url}/{name}", _MAX_EXTRA_BYTES)
        except NotFound:
            return None

    def advice(self, path: Path) -> str:
        """What to do when the cached file is not what config.json describes."""
        return f"the cached copy is damaged: delete {path} and load again"

    def _config_path(self) -> Path:
        return self.root / "mirrors" / hashlib.sha256(self.url.encode()).hexdigest()[:32] / "config.json"

    def _cached_config(self) -> bytes | None:
        path = self._config_path()
        return path.read_bytes() if path.is_file() and not path.is_symlink() else None

    def _fetch_config(self, cached: bytes | None) -> bytes:
        try:
            text = read(f"{self.url}/config.json", MAX_CONFIG_BYTES)
        except NotFound as error:
            raise HubError(f"{error}: {self.url} is no checkpoint folder") from None
        parse_config(text, self.url)
        if text != cached:
            make_folder(self._config_path().parent)
            with replacing(self._config_path()) as temporary:
                temporary.write_bytes(text)
        return text


def offline() -> bool:
    """Whether the environment says to stay off the network (HF_HUB_OFFLINE)."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def weights_path(root: Path, sha256: str) -> Path:
    """Where weights of that hash are cached, whichever host they came from."""
    return root / "weights" / f"{sha256}.safetensors"


def from_mirrors(
    config: CheckpointConfig, first: str, *, cache_dir: str | Path | None, local_files_only: bool, remote: bool
) -> Path:
    """The weights of `config` from the first of its mirrors that has them, whole and with the right hash.

    Args:
        first: why the place that config.json came from does not give them.
        remote: config.json came over the network, so it may not send us to addresses of this machine.

    Raises:
        HubError: no mirror has them; says why for each.
    """
    root, wanted = cache_root(cache_dir), config.weights
    path = weights_path(root, wanted.sha256)
    if is_whole(path, wanted.bytes):
        return path
    failures = [first]
    for mirror in config.mirrors:
        try:
            if local_files_only or offline():
                raise HubError("the network is off")
            if remote and is_loopback(mirror):
                raise HubError("a config.json from the network may not point to this machine")
            return _from_mirror(mirror, config, path, cache_dir)
        except (HubError, CheckpointError, UnknownNameError, ConfigError) as error:
            failures.append(f"{mirror}: {error}")
    raise HubError(f"{config.name}: no mirror has the weights. " + " | ".join(failures))


def _from_mirror(mirror: str, config: CheckpointConfig, path: Path, cache_dir: str | Path | None) -> Path:
    wanted = config.weights
    if not mirror.startswith("hf-hub:"):
        return download(f"{check_url(mirror)}/{wanted.file}", path, wanted.bytes, wanted.sha256)
    from zoo.checkpoint.hub import HubFiles

    files = HubFiles(mirror.removeprefix("hf-hub:"), cache_dir=cache_dir)
    files.config()
    found = files.weights(wanted.file)
    if found.stat().st_size != wanted.bytes or hashlib.sha256(found.read_bytes()).hexdigest() != wanted.sha256:
        raise CheckpointError("it holds another file than config.json describes")
    return found
