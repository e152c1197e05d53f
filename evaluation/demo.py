"""`zoo demo`: the main job in under a minute on what the repository carries."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from evaluation import evaluate
from evaluation.__main__ import report_duplicates, splits, write
from evaluation.console import stages
from zoo.catalog import list_models
from zoo.errors import UnknownNameError
from zoo.loading import load

#: Used where a person happens to have it; otherwise the demo needs nothing but scikit-learn's own images.
LOCAL_DATA = Path("data/cifar10")
BUNDLED_DATA = "digits:placed"


def default_encoder() -> str:
    """The bundled SimCLR image encoder, else any image encoder of the catalogue.

    Raises:
        UnknownNameError: the catalogue holds no image encoder.
    """
    names = list_models("simclr*", modality="image") or list_models(modality="image")
    if not names:
        raise UnknownNameError("the catalogue holds no image encoder; publish one, or give --encoder local-dir:PATH")
    return names[0]


def run(
    data: str | None = None, encoder: str | None = None, out: Path = Path("reports/demo"), limit: int = 2000
) -> Path:
    """Load, extract, probe beside the floors, print the table, write the report.

    Args:
        data: a dataset address; None for `data/cifar10` if it is there, else scikit-learn's digits.
        encoder: an encoder address; None for the bundled SimCLR.
        out: folder of the report.
        limit: at most this many images a split.

    Returns:
        The path of the HTML report.
    """
    from rich.console import Console

    from evaluation.report import table

    started = time.perf_counter()
    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    encoder = encoder or default_encoder()
    data = data or (str(LOCAL_DATA) if LOCAL_DATA.is_dir() else BUNDLED_DATA)
    train, test = splits(data)
    console.print(f"encoder [bold]{encoder}[/], data [bold]{train.name}[/]: {train.split} and {test.split}")
    command = f"zoo demo --data {data} --encoder {encoder} --limit {limit}"
    with stages() as progress:
        report_duplicates(train, test, limit, 0)
        found = evaluate(load(encoder), train, test, limit=limit, command=command, progress=progress)
    console.print(table(found.rows))
    report = write(found, encoder, out)
    console.print(f"report with neighbours, embedding map and confusions: [bold]{report}[/]")
    console.print(f"{time.perf_counter() - started:.0f} s")
    return report
