"""What is published: read from the checkpoint folders themselves, so no second list can go stale."""

from __future__ import annotations

import os
import re
import warnings
from fnmatch import fnmatchcase
from pathlib import Path

from zoo.checkpoint.config import CheckpointConfig, read_config
from zoo.checkpoint.results import Results, read_results
from zoo.errors import ConfigError, UnknownNameError, nearest

MODALITIES = ("image", "skeleton")
EMBEDDED = Path(__file__).resolve().parents[1] / "checkpoints"


def roots() -> list[Path]:
    """Folders of checkpoint folders: those that `ZOO_CHECKPOINTS` lists (as PATH does), else the embedded one."""
    listed = [part for part in os.environ.get("ZOO_CHECKPOINTS", "").split(os.pathsep) if part]
    return [Path(part).expanduser() for part in listed] or [EMBEDDED]


def folders() -> dict[str, Path]:
    """Name -> checkpoint folder, in natural order; the first root that has a name wins."""
    found: dict[str, Path] = {}
    for root in roots():
        for path in root.glob("*/config.json"):
            if not path.parent.name.startswith("."):
                found.setdefault(path.parent.name, path.parent)
    return dict(sorted(found.items(), key=lambda item: _natural(item[0])))


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]


def find(name: str) -> Path:
    """The folder of a published checkpoint.

    Raises:
        UnknownNameError: no such checkpoint; names the nearest.
    """
    known = folders()
    if name not in known:
        raise UnknownNameError(f"no checkpoint is called {name!r}; {nearest(name, list(known))}")
    return known[name]


def config(name: str) -> CheckpointConfig:
    """The validated config of a published checkpoint. Raises UnknownNameError, ConfigError."""
    folder = find(name)
    found = read_config(folder)
    if found.name != name:
        raise ConfigError(f"{folder}: config.json is named {found.name!r}; rename the folder or publish again")
    return found


def results(name: str) -> Results | None:
    """The published measurements of a checkpoint, None if it has none.

    Raises:
        UnknownNameError: no such checkpoint.
        ConfigError: results.json is malformed or was measured on other weights.
    """
    path = find(name) / "results.json"
    if not path.exists():
        return None
    found = read_results(path)
    check_measured_on(found, config(name), str(path))
    return found


def check_measured_on(results: Results | None, config: CheckpointConfig, source: str) -> None:
    """Refuse measurements of other weights than `config`'s. Raises ConfigError."""
    if results is not None and results.weights_sha256 != config.weights.sha256:
        raise ConfigError(f"{source} was measured on other weights; evaluate again and publish with overwrite=True")


def list_models(pattern: str = "*", modality: str | None = None, method: str | None = None) -> list[str]:
    """Names of the published checkpoints, in natural order (resnet18 before resnet50 before resnet101).

    Args:
        pattern: shell-style, such as `"simclr*"`.
        modality: `"image"` or `"skeleton"`; None for both.
        method: the training method by its registry name or title, such as `"simclr"` or `"SimCLR"`, in any case;
            None for all.

    Raises:
        UnknownNameError: no published checkpoint has that modality or method; names the nearest.
    """
    if modality not in (None, *MODALITIES):
        raise UnknownNameError(f"unknown modality {modality!r}; {nearest(modality, list(MODALITIES))}")
    chosen, methods = [], set()
    for name in folders():
        try:
            found = config(name)
        except ConfigError as error:
            # One broken private checkpoint must not hide the others.
            warnings.warn(f"left out of the catalogue: {error}", stacklevel=2)
            continue
        names = {found.method.name.lower(), found.method.title.lower()}
        fits = modality in (None, found.modality) and (method is None or method.lower() in names)
        if fits and fnmatchcase(name, pattern):
            chosen.append(name)
        methods |= {found.method.name, found.method.title}
    if method is not None and method.lower() not in {known.lower() for known in methods}:
        raise UnknownNameError(f"no checkpoint is trained with method {method!r}; {nearest(method, sorted(methods))}")
    return chosen
