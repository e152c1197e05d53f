"""Where a checkpoint's files come from."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Protocol

from zoo.checkpoint.config import MAX_CONFIG_BYTES, CheckpointConfig
from zoo.errors import CheckpointError, ConfigError, HubError, UnknownNameError

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
        from zoo.checkpoint.hub import HubFiles

        return HubFiles(rest, revision=revision, cache_dir=cache_dir, local_files_only=local_files_only)
    if scheme in ("http", "https") and not re.match(r"https?://huggingface\.co/", address):
        from zoo.checkpoint.web import HttpFiles

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
    from zoo.checkpoint.catalog import find

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
    from zoo.checkpoint.download import is_loopback
    from zoo.checkpoint.web import from_mirrors

    return from_mirrors(
        config,
        problem,
        cache_dir=getattr(files, "cache_dir", None),
        local_files_only=getattr(files, "local_files_only", False),
        remote=not isinstance(files, FolderFiles) and not is_loopback(files.label),
    )
