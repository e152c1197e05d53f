"""The run folder's `state/`: everything a killed run needs to continue, never half-written."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import torch

from training.errors import TrainingError

LAST, PREVIOUS = "last.pt", "previous.pt"


def save_state(folder: Path, state: dict[str, Any]) -> None:
    """Write `state` as `last.pt`; the one before it stays as `previous.pt`.

    Raises:
        TrainingError: the disk is full or not writable; the older states are untouched.
    """
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{LAST}.{os.getpid()}.tmp"
    try:
        with open(temporary, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        if (folder / LAST).exists():
            os.replace(folder / LAST, folder / PREVIOUS)
        os.replace(temporary, folder / LAST)
    except (OSError, RuntimeError) as error:
        temporary.unlink(missing_ok=True)
        free = shutil.disk_usage(folder).free
        raise TrainingError(
            f"cannot save the state to {folder}: {error} ({free / 1e6:.0f} MB free); "
            "the last good state is kept: free some space and run the same command again"
        ) from None


def has_state(folder: Path) -> bool:
    """Whether `load_state` will find a state, readable or not."""
    return any((folder / name).exists() for name in (LAST, PREVIOUS))


def load_state(folder: Path, device: torch.device) -> tuple[dict[str, Any], str] | None:
    """The newest readable state and its file name; None when the run has none.

    A crash between the two renames, or a damaged `last.pt`, falls back to `previous.pt`.

    Raises:
        TrainingError: states exist but none can be read.
    """
    problems = []
    for name in (LAST, PREVIOUS):
        path = folder / name
        if not path.exists():
            continue
        try:
            return torch.load(path, map_location=device, weights_only=True), name
        except Exception as error:  # torch raises a dozen types for a damaged file
            problems.append(f"{name}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")
    if problems:
        raise TrainingError(
            f"no state in {folder} can be read ({'; '.join(problems)}); start over with --fresh or another --out"
        )
    return None
