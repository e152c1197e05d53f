"""What `zoo probe` does with its words: one encoder or several, one dataset or a suite; tables, files and pages."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from evaluation.command import ProbeOptions, probe, probe_beside, probe_suite, weights_sha256, write
from evaluation.evaluate import Evaluation
from evaluation.suite import SuiteRun
from zoo.console import output
from zoo.errors import DataError
from zoo.text import printable


def named_places(places: Sequence[str], suite: bool) -> tuple[list[str], str | None]:
    """The encoders and the dataset that a command line names; with a suite the last word is data only if a folder.

    Raises:
        DataError: no dataset where one is needed, or an encoder that is named twice.
    """
    folder = len(places) > 1 and os.path.isdir(os.path.expanduser(places[-1].removeprefix("folder:")))
    if suite:
        encoders, data = (list(places[:-1]), places[-1]) if folder else (list(places), None)
    elif len(places) < 2:
        raise DataError("no dataset was named; give a folder or a name, or --suite for many at once")
    else:
        encoders, data = list(places[:-1]), places[-1]
    twice = next((name for name in encoders if encoders.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{twice} is named twice; name each encoder once")
    return encoders, data


def run_probe(
    encoders: Sequence[str], data: str | None, options: ProbeOptions, out: Path | None = None, *, quiet: bool = False
) -> None:
    """Measure, print the table, and write files and pages to `out`. Raises as `evaluation.command.probe`."""
    if options.suite is not None:
        _suites(encoders, data, options, out, quiet)
    elif len(encoders) == 1:
        from evaluation.report.tables import table

        found = probe(encoders[0], data, options, quiet=quiet)
        output().print(table(found.rows))
        if out is not None:
            print(f"wrote {write(found, encoders[0], out)}")
    else:
        folders = _folders(encoders, out)

        def keep(encoder: str, found: Evaluation) -> None:
            if out is not None:
                print(f"wrote {write(found, encoder, folders[encoder])}")

        several = probe_beside(encoders, data, options, quiet=quiet, measured=keep)
        _beside({next(iter(several.values())).test_data.name: several}, out)


def _suites(encoders: Sequence[str], folder: str | None, options: ProbeOptions, out: Path | None, quiet: bool) -> None:
    from evaluation.report.suite_page import overview, write_suite

    folders = {encoders[0]: out} if len(encoders) == 1 else _folders(encoders, out)
    runs: dict[str, SuiteRun] = {}
    for encoder in encoders:
        runs[encoder] = run = probe_suite(encoder, options, folder=folder, quiet=quiet)
        if len(encoders) == 1:
            output().print(overview(run))
        for skipped in run.skipped if encoder == encoders[0] else ():
            print(printable(f"skipped {skipped.title}: {skipped.reason}"))
        if out is not None:
            weights = None if run.encoder is None else weights_sha256(run.encoder)
            print(f"wrote {write_suite(run, encoder, folders[encoder], weights)}")
    if len(encoders) > 1:
        names = [name for name in runs[encoders[0]].found if all(name in run.found for run in runs.values())]
        if not names:
            raise DataError("no dataset of the suite is here, so there is nothing to compare")
        titles = {name: runs[encoders[0]].entry(name).title for name in names}
        _beside({titles[name]: {e: run.found[name] for e, run in runs.items()} for name in names}, out)


def _beside(datasets: dict[str, dict[str, Evaluation]], out: Path | None) -> None:
    from evaluation.beside import placed_over, sentence
    from evaluation.report.beside_page import overview, write_beside

    found = placed_over(datasets)
    output().print(overview(found))
    for name, tables in found.items():
        print(printable((f"{name}: " if len(found) > 1 else "") + sentence(tables)))
    if out is not None:
        print(f"wrote {write_beside(datasets, out)}")


def _folders(encoders: Sequence[str], out: Path | None) -> dict[str, Path]:
    """A folder for each encoder, by what of its address can be a file name."""
    found: dict[str, Path] = {}
    for number, encoder in enumerate(encoders, start=1):
        name = re.sub(r"[^A-Za-z0-9._-]+", "_", encoder.removeprefix("local-dir:")).strip("._") or "encoder"
        folder = (out or Path()) / name[-80:]
        found[encoder] = folder if folder not in found.values() else folder.with_name(f"{folder.name}_{number}")
    return found
