"""`python -m evaluation ENCODER DATASET` is `zoo probe`: probes beside baselines, as table, files and report."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import zoo.cli


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 2 bad input."""
    return zoo.cli.main(arguments, command="probe", program="python -m evaluation")


if __name__ == "__main__":
    sys.exit(main())
