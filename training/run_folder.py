"""The run folder: recipe, environment, metrics, curves; and the encoder it ends in."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from training.environment import environment
from training.pictures import draw_curves
from training.recipe import Recipe, parse_recipe
from training.state import has_state
from zoo.errors import TrainingError
from zoo.files import hold, is_held, write_text

#: Keys that a resumed run may change: they steer watching and saving, not the result.
FREE_KEYS = (
    "log_every",
    "save_minutes",
    "monitor",
    "data.dataset",
    "data.root",
    "data.labels",  # the table may have moved; the fingerprint covers what it says
    "data.download",
    "data.stream_workers",
    "data.title",
    "data.licence",
    "encoder.init",  # the same weights may have moved; encoder.init_sha256 says which they are
    "weight_mean.export",
)
#: Held while a process trains in the folder; the system lets go of it when the process dies, so the file may stay.
LOCK = ".lock"
#: What a run writes before it looks at the data.
PREPARED = {"recipe.yaml", "environment.json"}


class RunFolder:
    """`recipe.yaml`, `environment.json`, `metrics.jsonl`, `curves.png`, TensorBoard events, `state/`, `encoder/`."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.state = self.path / "state"
        self.metrics = self.path / "metrics.jsonl"
        self._board: Any = None

    def is_empty(self) -> bool:
        """Whether nothing is there, or no more than the lock of a run that could not start."""
        return not self.path.exists() or not self._contents()

    def _contents(self) -> list[Path]:
        """All but the lock and the note of who holds it."""
        return [child for child in self.path.iterdir() if not child.name.startswith(LOCK)]

    def has_state(self) -> bool:
        """Whether a training here has saved its state, so that the next one continues."""
        return has_state(self.state)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else trains in the folder meanwhile.

        Raises:
            TrainingError: another process does, or the folder cannot be written to.
        """
        busy = f"another process is training in {self.path}; wait until it ends, or give --out another folder"
        with hold(self.path / LOCK, TrainingError, busy):
            yield

    def clear(self) -> None:
        """Delete all but the lock, which the caller holds."""
        for child in self._contents():
            if child.is_dir() and not child.is_symlink():
                shutil.rmtree(child)
            else:
                child.unlink()

    def check(self, recipe: Recipe) -> None:
        """See that the folder is new or belongs to this recipe; write nothing.

        Raises:
            TrainingError: the folder holds another recipe's run, or something that is no run.
        """
        written = self.path / "recipe.yaml"
        if written.exists():
            # Parsed again, so that a key that a newer version added has its default on both sides.
            before = parse_recipe(yaml.safe_load(written.read_text()), str(written)).dump()
            differences = _differences(before, recipe.dump())
            if differences:
                raise TrainingError(
                    f"{self.path} holds a run with other settings ({'; '.join(differences[:4])}); "
                    "give --out another folder, or --fresh to start over"
                )
        elif not self.is_empty():
            raise TrainingError(f"{self.path} is not empty and holds no run; give --out another folder")

    def prepare(self, recipe: Recipe, command: str) -> bool:
        """Make the folder, or check that it belongs to this recipe; whether it is new. Raises as `check`."""
        self.check(recipe)
        new = not (self.path / "recipe.yaml").exists()
        self.path.mkdir(parents=True, exist_ok=True)
        write_text(self.path / "recipe.yaml", yaml.safe_dump(recipe.dump(), sort_keys=False))
        write_text(self.path / "environment.json", json.dumps(environment(command), indent=1) + "\n")
        return new

    def forget(self) -> None:
        """Delete what `prepare` wrote if nothing came of it, so that a mended command finds no other run's recipe."""
        if {child.name for child in self._contents()} <= PREPARED:
            for name in PREPARED:
                (self.path / name).unlink(missing_ok=True)

    def truncate_metrics(self, step: int) -> None:
        """Drop records after `step`: the steps of a killed run that are about to be repeated."""
        if self.metrics.exists():
            lines = self.metrics.read_text().splitlines()
            kept = [line for line in lines if (record := _parse(line)) is not None and record["step"] <= step]
            if len(kept) != len(lines):
                write_text(self.metrics, "".join(line + "\n" for line in kept))
        if self._board is not None:
            self._board.close()
        self._board = None
        self._purge = step

    def log(self, record: dict[str, float]) -> None:
        """Append one record to `metrics.jsonl` and TensorBoard."""
        with open(self.metrics, "a", encoding="utf-8") as file:
            file.write(json.dumps({k: _rounded(v) for k, v in record.items()}) + "\n")
        if self._board is None:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(self.path / "tensorboard", purge_step=getattr(self, "_purge", 0) + 1)
        for key, value in record.items():
            if key not in ("step", "wall_time_s"):
                self._board.add_scalar(key, value, int(record["step"]))

    def records(self) -> list[dict[str, float]]:
        """All records of `metrics.jsonl`."""
        if not self.metrics.exists():
            return []
        return [r for line in self.metrics.read_text().splitlines() if (r := _parse(line)) is not None]

    def close(self) -> None:
        """Flush TensorBoard and draw `curves.png`."""
        if self._board is not None:
            self._board.close()
            self._board = None
        draw_curves(self.records(), self.path / "curves.png", self.path.name)


def is_training(path: Path) -> bool:
    """Whether a process trains in the run folder `path` at this moment."""
    return is_held(path / LOCK)


def _differences(old: Any, new: Any) -> list[str]:
    a, b = _flat(old), _flat(new)
    keys = [k for k in dict.fromkeys([*a, *b]) if a.get(k) != b.get(k)]
    free = tuple(FREE_KEYS)
    return [
        f"{k} was {a.get(k)!r}, now {b.get(k)!r}"
        for k in keys
        if not any(k == f or k.startswith(f + ".") for f in free)
    ]


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        return {k2: v2 for k, v in value.items() for k2, v2 in _flat(v, f"{prefix}{k}.").items()}
    return {prefix.rstrip("."): value}


def _parse(line: str) -> dict[str, float] | None:
    try:
        record = json.loads(line)
    except ValueError:  # the last line of a killed run may be cut
        return None
    return record if isinstance(record, dict) and "step" in record else None


def _rounded(value: float) -> float:
    return value if isinstance(value, int) else float(f"{value:.6g}")
