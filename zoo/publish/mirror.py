"""`zoo mirror`: the catalogue as a static tree that any web server can serve."""

from __future__ import annotations

import json
from pathlib import Path

from zoo.checkpoint import catalog
from zoo.checkpoint.config import CheckpointConfig
from zoo.checkpoint.writing import check_replaceable
from zoo.errors import CheckpointError, UnknownNameError
from zoo.files import replacing_folder, write_text
from zoo.publish.contents import checkpoint_files

INDEX = "index.json"


def write_mirror(out: str | Path, names: list[str] | None = None) -> list[str]:
    """Write `out/NAME/` for each checkpoint, and `out/index.json` that lists them.

    Each folder appears whole or not at all, so a server may run meanwhile; folders of checkpoints that are
    not named stay. `zoo.load("https://host/.../NAME")` reads them.

    Args:
        out: the folder to serve.
        names: published checkpoints; None for the whole catalogue.

    Returns:
        The names that were written.

    Raises:
        UnknownNameError: no such checkpoint, or none at all.
        CheckpointError, ConfigError: one does not hold what it promises, or the disk is full.
    """
    out = Path(out)
    chosen = list(catalog.folders()) if names is None else names
    if not chosen:
        raise UnknownNameError(f"there is no checkpoint to write in {', '.join(map(str, catalog.roots()))}")
    folders = [catalog.find(name) for name in chosen]
    listed = _listed(out)
    for name, source in zip(chosen, folders, strict=True):
        config, content = checkpoint_files(source)
        _write(out / name, content)
        listed[name] = _entry(config)
    text = json.dumps({"format_version": 1, "checkpoints": dict(sorted(listed.items()))}, indent=1) + "\n"
    write_text(out / INDEX, text, CheckpointError)
    return chosen


def _entry(config: CheckpointConfig) -> dict[str, object]:
    facts = {"title": config.method.title, "modality": config.modality, "dataset": config.training.dataset.name}
    return facts | {"sha256": config.weights.sha256, "bytes": config.weights.bytes}


def _listed(out: Path) -> dict[str, object]:
    """What an older index lists and is still there."""
    try:
        listed = json.loads((out / INDEX).read_text(encoding="utf-8"))["checkpoints"]
        return {name: entry for name, entry in listed.items() if (out / name / "config.json").is_file()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _write(folder: Path, content: dict[str, bytes]) -> None:
    check_replaceable(folder)
    with replacing_folder(folder) as fresh:
        for name, data in content.items():
            (fresh / name).parent.mkdir(exist_ok=True)
            (fresh / name).write_bytes(data)
