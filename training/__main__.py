"""`python -m training RECIPE [key=value ...]` is `zoo train`; under torchrun the same, over many processes."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import zoo.cli


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 1 stopped early with the state saved or failed, 2 bad input."""
    return zoo.cli.main(arguments, command="train", program="python -m training")


if __name__ == "__main__":
    sys.exit(main())
