"""What a run continues from: `state/last.pt` and, in case that is damaged, `state/previous.pt`.

A state is a `torch.save` file with the SHA-256 of its bytes behind it, which torch does not mind. Without the hash most
damage goes unnoticed: torch reads tensors without looking at any checksum.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import torch

from zoo.errors import TrainingError
from zoo.files import disk_errors, remove_leftovers, replacing

LAST, PREVIOUS = "last.pt", "previous.pt"
#: Stands before the hash at the end of a state.
MARK = b"encoder-zoo state sha256"
_TAIL = len(MARK) + 32
#: What every state holds.
PARTS = {"step": int, "wall_time": float, "fingerprint": str, "samples": int, "method": dict, "optimizer": dict}


class Unusable(Exception):
    """A state that cannot be continued from; says why."""


def save_state(folder: Path, state: dict[str, Any]) -> None:
    """Write `state` as `last.pt`; the one before it stays as `previous.pt`.

    Raises:
        TrainingError: the disk is full or not writable; the older states are untouched.
    """
    kept, fix = "the last good state is kept", "free some space and run the same command again"
    with disk_errors(folder, TrainingError):
        folder.mkdir(parents=True, exist_ok=True)
    # Half a state of a killed process may be as large as a whole one; nobody else writes here, as the run is locked.
    remove_leftovers(folder / LAST)
    with (
        replacing(folder / LAST, TrainingError, previous=folder / PREVIOUS, kept=kept, fix=fix) as temporary,
        open(temporary, "w+b") as file,
    ):
        try:
            torch.save(state, file)
        except RuntimeError as error:  # what torch's own writer makes of a full disk, whose error it met before
            met = error.__context__
            raise met if isinstance(met, OSError) else OSError(str(error).splitlines()[0]) from None
        digest = _sha256(file, file.seek(0, os.SEEK_END))
        file.seek(0, os.SEEK_END)
        file.write(MARK + digest)


def has_state(folder: Path) -> bool:
    """Whether `load_state` will find a state, readable or not."""
    return any((folder / name).exists() for name in (LAST, PREVIOUS))


def load_state(
    folder: Path, device: torch.device, check: Callable[[dict[str, Any]], None] = lambda state: None
) -> tuple[dict[str, Any], str] | None:
    """The newest usable state and its file name; None when the run has none.

    A crash between the two renames, a damaged `last.pt`, or one that `check` refuses, falls back to `previous.pt`.

    Args:
        check: raises `Unusable` for a state that does not fit the run; sees only states whose hash is right.

    Raises:
        TrainingError: states exist but none can be used.
    """
    problems = []
    for name in (LAST, PREVIOUS):
        path = folder / name
        if not path.exists():
            continue
        try:
            _verify(path)
            state = torch.load(path, map_location=device, weights_only=True)
            check(state)
            return state, name
        except Exception as error:  # torch raises a dozen types for a damaged file
            said = str(error).splitlines()[0] if str(error) else ""
            kind = "" if isinstance(error, Unusable) else f"{type(error).__name__}: "
            problems.append(f"{name}: {kind}{said}")
    if problems:
        raise TrainingError(
            f"no state in {folder} can be used ({'; '.join(problems)}); start over with --fresh or another --out"
        )
    return None


def check_parts(state: Any, method: torch.nn.Module, optimizer: torch.optim.Optimizer, averaged: bool) -> None:
    """See that a state has all parts of a run with this method and optimizer. Raises Unusable; changes nothing."""
    if not isinstance(state, dict):
        raise Unusable(f"a state is a dictionary, this is a {type(state).__name__}")
    for key, kind in PARTS.items():
        if not isinstance(state.get(key), kind):
            came = type(state[key]).__name__ if key in state else "nothing"
            raise Unusable(f"{key!r} must be of type {kind.__name__}, there is {came}")
    if averaged and not isinstance(state.get("weight_mean"), dict):
        raise Unusable("'weight_mean' is missing")
    ours, theirs = method.state_dict(), state["method"]
    for key in [*ours, *theirs]:
        if key not in ours or key not in theirs:
            raise Unusable(f"the weights {'lack' if key in ours else 'have an unknown'} {key!r}")
        if not isinstance(theirs[key], torch.Tensor) or theirs[key].shape != ours[key].shape:
            shape = list(getattr(theirs[key], "shape", []))
            raise Unusable(f"{key!r} must have the shape {list(ours[key].shape)}, there is {shape}")
    groups = state["optimizer"].get("param_groups")
    sizes = [len(group["params"]) for group in optimizer.param_groups]
    if not isinstance(groups, list) or [len(group.get("params", ())) for group in groups] != sizes:
        raise Unusable(f"the optimizer must have parameter groups of {sizes}")


def _verify(path: Path) -> None:
    """Raises Unusable if the file is not as it was written."""
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        if size >= _TAIL:
            file.seek(size - _TAIL)
            tail = file.read(_TAIL)
            if tail.startswith(MARK):
                if _sha256(file, size - _TAIL) != tail[len(MARK) :]:
                    raise Unusable("it is damaged: its bytes do not have the sha256 that was written with them")
                return
        # Of an older version, or with damage in the mark itself: the checksums of its parts have to do.
        file.seek(0)
        with zipfile.ZipFile(file) as parts:
            if broken := parts.testzip():
                raise Unusable(f"it is damaged: {broken} does not have its checksum")


def _sha256(file: BinaryIO, size: int) -> bytes:
    """Of the first `size` bytes."""
    digest = hashlib.sha256()
    file.seek(0)
    while size > 0 and (part := file.read(min(size, 1 << 20))):
        digest.update(part)
        size -= len(part)
    return digest.digest()
