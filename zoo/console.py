"""What a person sees while something long runs: a bar in a terminal, a line now and then in a pipe or a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from zoo.text import printable

if TYPE_CHECKING:
    from rich.console import Console

#: Called with what is being done, how much of it is done, and how much there is.
Progress = Callable[[str, int, int], None]
#: Without a terminal, a stage prints one line when it starts and then at most one line in this many seconds.
LINE_SECONDS = 20.0


def shown(text: object) -> str:
    """Text of others between rich's own marks: nothing in it is a mark or moves the cursor."""
    from rich.markup import escape

    return escape(printable(text))


def output(width: int = 140) -> Console:
    """The console for results: as wide as the terminal, `width` columns where there is none."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else width, highlight=False)


def line(quiet: bool) -> Callable[[str], None] | None:
    """Prints one line to stderr; None where nothing is to be said."""
    return None if quiet else lambda text: print(printable(text), file=sys.stderr)


@contextmanager
def stages(quiet: bool = False, clock: Callable[[], float] = time.monotonic) -> Iterator[Progress]:
    """Progress on stderr, with counts and the time left.

    Args:
        quiet: show nothing.
        clock: seconds that only grow.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    console = Console(file=sys.stderr, highlight=False)
    if quiet:
        yield lambda what, done, total: None
    elif console.is_terminal:
        columns = (
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
            TextColumn("left"), TimeRemainingColumn(),
        )  # fmt: skip
        with Bar(*columns, console=console, transient=True) as bar:
            task = bar.add_task("", total=None)
            now: list[str] = []

            def advance(what: str, done: int, total: int) -> None:
                if now != [what]:  # a new stage has its own clock
                    now[:] = [what]
                    bar.reset(task, total=total, description=shown(what))
                bar.update(task, completed=done, total=total)

            yield advance
    else:
        yield _lines(lambda text: console.print(printable(text), markup=False, soft_wrap=True), clock)


def _lines(say: Callable[[str], None], clock: Callable[[], float]) -> Progress:
    """Progress as lines: the start of each stage, then counts and the time left now and then."""
    started: dict[str, tuple[float, int]] = {}
    last = [0.0]

    def advance(what: str, done: int, total: int) -> None:
        now = clock()
        if what not in started:
            started[what], last[0] = (now, done), now
            say(what if total <= 1 else f"{what}: {done:,} of {total:,}")
        elif now - last[0] >= LINE_SECONDS and done < total:
            first, before = started[what]
            left = (now - first) / max(done - before, 1) * (total - done)
            last[0] = now
            say(f"{what}: {done:,} of {total:,}, {duration(left)} left")

    return advance


def duration(seconds: float) -> str:
    """`95.0` -> `"95 s"`, `600` -> `"10 min"`, `9000` -> `"2.5 h"`."""
    minutes = seconds / 60
    return f"{seconds:.0f} s" if minutes < 2 else f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:,.1f} h"
