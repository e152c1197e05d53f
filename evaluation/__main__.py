"""`python -m evaluation ENCODER DATASET`: probes beside floors, with intervals, as table, files and report."""

from __future__ import annotations

import shlex
import sys

from evaluation.command import _without_out, parser, run, suite, write
from zoo.errors import ZooError


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 done, 2 bad input."""
    given = sys.argv[1:] if arguments is None else arguments
    options = parser().parse_args(given)
    command = f"python -m evaluation {shlex.join(_without_out(given))}"
    try:
        if options.suite:
            return suite(options, command)
        found = run(options, command)
    except ZooError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    from rich.console import Console

    from evaluation.report.tables import table

    Console(width=None if sys.stdout.isatty() else 140).print(table(found.rows))
    if options.out is not None:
        print(f"wrote {write(found, options.encoder, options.out)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
