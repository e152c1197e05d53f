"""Samples that cannot be read: all of them found and named at once, or left out."""

from __future__ import annotations

from collections.abc import Mapping

from zoo.data.base import Dataset
from zoo.device import chunks_in_order
from zoo.errors import DataError, InputError

#: How many samples an error names.
SHOWN = 20


def unreadable(data: Dataset) -> dict[int, str]:
    """Position -> problem of every sample that cannot be read; decodes them all."""

    def problems(piece: range) -> list[tuple[int, str]]:
        found = []
        for index in piece:
            try:
                sample = data.sample(index)
                if data.modality == "image":
                    from zoo.preprocessing.picture import to_rgb

                    to_rgb(sample)
            except (DataError, InputError) as error:
                found.append((index, str(error)))
        return found

    return {index: text for piece in chunks_in_order(problems, len(data)) for index, text in piece}


def refusal(data: Dataset, bad: Mapping[int, str] | list[str]) -> DataError:
    """The error that names all unreadable samples at once."""
    problems = sorted(bad.values() if isinstance(bad, Mapping) else bad)
    if len(problems) == 1:
        return DataError(f"{problems[0]} (1 of {len(data):,} samples of {data.name}; skip_bad=True leaves it out)")
    shown = "\n  ".join(problems[:SHOWN])
    more = f"\n  and {len(problems) - SHOWN:,} more" if len(problems) > SHOWN else ""
    return DataError(
        f"{len(problems):,} of {len(data):,} samples of {data.name} cannot be read (skip_bad=True leaves them out):\n  "
        f"{shown}{more}"
    )


def readable(data: Dataset) -> Dataset:
    """`data` without the samples that cannot be read; which and why is in its report.

    Raises:
        DataError: none can be read.
    """
    bad = unreadable(data)
    if len(bad) == len(data):
        raise refusal(data, bad)
    return data.without(bad) if bad else data
