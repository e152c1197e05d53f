"""What a person sees while an evaluation runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from evaluation.protocols.base import Progress
from zoo.text import printable


def shown(text: object) -> str:
    """Text of others between rich's own marks: nothing in it is a mark or moves the cursor."""
    from rich.markup import escape

    return escape(printable(text))


@contextmanager
def stages(quiet: bool = False) -> Iterator[Progress]:
    """A `(what, done, total)` callback: one bar on a terminal, one line per stage elsewhere."""
    from rich.console import Console
    from rich.progress import Progress as Bar

    console = Console(file=sys.stderr, highlight=False)
    seen: set[str] = set()
    with Bar(console=console, transient=True, disable=quiet or not console.is_terminal) as bar:
        task = bar.add_task("", total=None)

        def advance(what: str, done: int, total: int) -> None:
            bar.update(task, description=shown(what), completed=done, total=total)
            if what not in seen and not quiet and not console.is_terminal:
                console.print(printable(what), markup=False)
            seen.add(what)

        yield advance
