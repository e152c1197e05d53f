"""What a person sees while training: a progress bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from zoo.text import printable

#: Without a terminal, at most one line in this many seconds.
LINE_SECONDS = 20.0


class ConsoleReport:
    """Progress with throughput, ETA, loss and the held-out kNN."""

    def __init__(self, steps_done: int = 0, quiet: bool = False) -> None:
        self.quiet = quiet
        self.console = Console(file=sys.stderr, highlight=False)
        self.live = self.console.is_terminal
        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[status]}"),
            console=self.console,
            disable=quiet or not self.live,
        )
        self._task: Any = None
        self._line, self._knn, self._started, self._first = 0.0, "", time.monotonic(), steps_done

    def __enter__(self) -> ConsoleReport:
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def start(self, name: str, step: int, total: int) -> None:
        """Begin the bar at `step` of `total`."""
        self._started, self._first = time.monotonic(), step
        self._task = self._progress.add_task(escape(printable(name)), total=total, completed=step, status="")

    def data(self, done: int, total: int) -> None:
        """Progress of decoding the data once."""
        if done >= total or time.monotonic() - self._line > LINE_SECONDS:
            self._line = time.monotonic()
            self.say(f"decoding {done:,} of {total:,}")

    def advance(self, step: int) -> None:
        """One more step is done."""
        if self._task is not None:
            self._progress.update(self._task, completed=step)

    def log(self, record: dict[str, float], total: int) -> None:
        """Averages since the last record."""
        status = f"loss {record['loss']:.4f}  {record['samples_per_s']:,.0f} samples/s{self._knn}"
        if self._task is not None:
            self._progress.update(self._task, completed=record["step"], status=status)
        if not self.live and time.monotonic() - self._line > LINE_SECONDS:
            self._line = time.monotonic()
            done = record["step"] - self._first
            eta = (time.monotonic() - self._started) / max(done, 1) * (total - record["step"])
            self.say(f"step {record['step']}/{total}  epoch {record['epoch']:.2f}  {status}  ETA {eta / 60:.0f} min")

    def monitor(self, record: dict[str, float]) -> None:
        """A new held-out kNN accuracy."""
        self._knn = f"  held-out kNN {100 * record['held_out_knn']:.1f} %"
        self.say(f"epoch {record['epoch']:.2f}{self._knn}")

    def say(self, message: str) -> None:
        """One line, where anything is to be shown."""
        if not self.quiet:
            self.console.print(printable(message), markup=False, soft_wrap=True)
