"""Where a checkpoint comes from: an address is opened once, to one immutable value.

A `Source` holds the bytes of config.json, how to get the weights and small files beside it, and a label for messages.
Nothing depends on the order in which these are asked for. `zoo.checkpoint.opening` opens any address.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from zoo.checkpoint.config import MAX_CONFIG_BYTES, Weights
from zoo.errors import CheckpointError, ConfigError

#: Cards, results and reference outputs are far smaller.
MAX_EXTRA_BYTES = 8 << 20


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
