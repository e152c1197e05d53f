"""Where a checkpoint comes from: an address is opened once, to one immutable value.

`open_source(address)` gives a `Source`: the bytes of config.json, how to get the weights and small files beside it, and
a label for messages. Nothing depends on the order in which these are asked for.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from zoo.checkpoint.config import MAX_CONFIG_BYTES, CheckpointConfig, Weights
from zoo.errors import CheckpointError, ConfigError, HubError, UnknownNameError, ZooError

#: Cards, results and reference outputs are far smaller.
MAX_EXTRA_BYTES = 8 << 20
FORMS = "an address is a catalogue name, 'hf-hub:org/name[@revision]', 'https://host/.../NAME' or 'local-dir:path'"


@dataclass(frozen=True)
class Access:
    """How files may be fetched. `cache_dir`: where they are kept; None is the default of the hub or of the zoo."""

    cache_dir: Path | None = None
    local_files_only: bool = False


@dataclass(frozen=True)
class Source:
    """A checkpoint whose config.json was read.

    Attributes:
        label: names it in messages.
        config: the bytes of config.json.
        access: how other files are fetched.
    """

    label: str
    config: bytes
    access: Access

    @property
    def remote(self) -> bool:
        """Whether config.json came over the network from another machine."""
        return True

    def weights(self, wanted: Weights) -> Path:
        """The weights file as a path that can be opened. Raises CheckpointError, HubError."""
        raise NotImplementedError

    def extra(self, name: str) -> bytes | None:
        """A small file beside config.json, such as results.json; None if there is none. Raises ConfigError, HubError"""
        raise NotImplementedError

    def advice(self, path: Path) -> str:
        """What to try when the weights at `path` turn out wrong; may be empty."""
        return ""


@dataclass(frozen=True)
class FolderSource(Source):
    """A checkpoint folder on this machine."""

    folder: Path

    @property
    def remote(self) -> bool:
        return False

    def weights(self, wanted: Weights) -> Path:
        """The weights file; a link may only stay in the folder or in the Hugging Face cache around it."""
        path = self.folder / wanted.file
        target, home = path.resolve(), self.folder.resolve()
        allowed = [home] + ([home.parent.parent / "blobs"] if home.parent.name == "snapshots" else [])
        if target.parent not in allowed:
            raise CheckpointError(f"{path} is a link out of its folder, to {target}; copy the file itself there")
        return path

    def extra(self, name: str) -> bytes | None:
        path = self.folder / name
        content = _read_at_most(path, MAX_EXTRA_BYTES)
        if content is not None and len(content) > MAX_EXTRA_BYTES:
            raise ConfigError(f"{path} is larger than {MAX_EXTRA_BYTES} bytes; no zoo writes that")
        return content


def open_folder(folder: Path, access: Access | None = None) -> FolderSource:
    """A checkpoint folder, or the `encoder/` of a run folder. Raises ConfigError if config.json is missing."""
    if not (folder / "config.json").exists() and (folder / "recipe.yaml").is_file():
        if not (folder / "encoder").is_dir():
            raise ConfigError(
                f"the run {folder} has no encoder yet; train it to its end, or write the encoder of its last state "
                f"with `python -m training {folder}/recipe.yaml --out {folder} --export`"
            )
        folder = folder / "encoder"
    path = folder / "config.json"
    config = _read_at_most(path, MAX_CONFIG_BYTES) if path.is_file() or not path.exists() else None
    if config is None:
        raise ConfigError(
            f"{folder} is no checkpoint folder: it has no config.json. "
            "`zoo publish RUN --name NAME` makes one from a training run"
        )
    return FolderSource(str(folder), config, access or Access(), folder)


def _read_at_most(path: Path, limit: int) -> bytes | None:
    """The first `limit + 1` bytes of a file, None if it does not exist. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            return file.read(limit + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from None


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
        from zoo.checkpoint.hub import open_hub

        return open_hub(rest, access, revision=revision)
    if scheme in ("http", "https") and not re.match(r"https?://huggingface\.co/", address):
        from zoo.checkpoint.web import open_web

        return open_web(address, access, revision=revision)
    if revision is not None:
        raise UnknownNameError(f"{address!r} has no revisions; only hf-hub: and https:// addresses take revision=")
    if scheme == "local-dir" and colon:
        if not rest or "\0" in rest:
            raise UnknownNameError(f"{address!r} names no folder; {FORMS}")
        return open_folder(Path(rest).expanduser(), access)
    return open_folder(_published(address), access)


def _published(name: str) -> Path:
    from zoo.checkpoint.catalog import find

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
    return find(name)


def check_mirror(address: str) -> None:
    """Refuse an address that other machines cannot load from. Raises UnknownNameError, ConfigError."""
    from zoo.checkpoint.download import check_url
    from zoo.checkpoint.hub import parse_hub

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
    from zoo.checkpoint.web import cached_weights

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
    from zoo.checkpoint.download import check_url, is_loopback
    from zoo.checkpoint.hub import open_hub
    from zoo.checkpoint.web import WebSource, offline

    if source.access.local_files_only or offline():
        raise HubError("the network is off")
    if source.remote and is_loopback(address):
        raise HubError("a config.json from the network may not point to this machine")
    if address.startswith("hf-hub:"):
        return open_hub(address.removeprefix("hf-hub:"), source.access)
    # The config.json at hand says what the weights are, so that of the mirror is not asked for.
    return WebSource(address, source.config, source.access, check_url(address))


def _from_mirror(mirror: Source, wanted: Weights) -> Path:
    path = mirror.weights(wanted)
    if path.stat().st_size != wanted.bytes or hashlib.sha256(path.read_bytes()).hexdigest() != wanted.sha256:
        raise CheckpointError("it holds another file than config.json describes")
    return path
