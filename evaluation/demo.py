"""`zoo demo`: the main job in under a minute on what the repository carries."""

from __future__ import annotations

import time
from pathlib import Path

from evaluation.command import report_duplicates, splits, write
from evaluation.evaluate import evaluate
from zoo.checkpoint.catalog import list_models
from zoo.checkpoint.loading import load
from zoo.console import output, shown, stages
from zoo.errors import UnknownNameError, nearest

#: Used where a person happens to have it; otherwise the demo needs nothing but scikit-learn's own images.
LOCAL_DATA = Path("data/cifar10")
BUNDLED_DATA = "digits:placed"
#: Eight actions by forward kinematics; the test split has other people and other cameras.
BUNDLED_MOTION = "synthetic:motion?n=400&sway=50"
#: Modality -> the encoders that the demo prefers, best first. Patterns alone would take the first by the alphabet.
BUNDLED = {"image": ("simclr_resnet18_cifar10", "simclr*", "*"), "skeleton": ("ms2l*", "*")}


def default_encoder(modality: str = "image") -> str:
    """The bundled SimCLR image encoder or MS2L skeleton encoder, else any of that modality in the catalogue.

    Raises:
        UnknownNameError: the catalogue holds no such encoder, or there is no such modality.
    """
    if modality not in BUNDLED:
        raise UnknownNameError(f"unknown modality {modality!r}; {nearest(modality, list(BUNDLED))}")
    found = next((name for pattern in BUNDLED[modality] for name in list_models(pattern, modality=modality)), None)
    if found is None:
        raise UnknownNameError(
            f"the catalogue holds no {modality} encoder; publish one, or give --encoder local-dir:PATH"
        )
    return found


def default_data(modality: str) -> str:
    """What the demo looks at: motion made by the zoo itself for skeletons, else CIFAR-10 if at hand, else digits."""
    if modality == "skeleton":
        return BUNDLED_MOTION
    return str(LOCAL_DATA) if LOCAL_DATA.is_dir() else BUNDLED_DATA


def run(
    data: str | None = None,
    encoder: str | None = None,
    out: Path = Path("reports/demo"),
    limit: int = 1300,
    modality: str = "image",
    *,
    download: bool = False,
    device: str | None = None,
    batch_size: int = 256,
    workers: int | None = None,
    quiet: bool = False,
) -> Path:
    """Load, extract, probe beside the baselines, print the table, write the report.

    Args:
        data: a dataset address; None for `default_data`.
        encoder: an encoder address; None for `default_encoder`.
        out: folder of the report.
        limit: at most this many samples a split.
        modality: `"image"` or `"skeleton"`, for what is not given.
        download: fetch the dataset if it is missing.
        device, batch_size, workers: of the forward pass, see `zoo.extract`.
        quiet: show no progress.

    Returns:
        The path of the HTML report.
    """
    from evaluation.report.tables import table

    started = time.perf_counter()
    console = output()
    encoder = encoder or default_encoder(modality)
    data = data or default_data(modality)
    train, test = splits(data, download=download)
    console.print(
        f"encoder [bold]{shown(encoder)}[/], data [bold]{shown(train.name)}[/]: {shown(train.split)} and "
        f"{shown(test.split)}"
    )
    command = f"zoo demo --data {data} --encoder {encoder} --limit {limit}"
    with stages(quiet) as progress:
        found = evaluate(
            load(encoder), train, test, limit=limit, device=device, batch_size=batch_size, workers=workers,
            command=command, progress=progress,
        )  # fmt: skip
        report_duplicates(found.train_data, found.test_data)
    console.print(table(found.rows))
    report = write(found, encoder, out)
    console.print(f"report with neighbours, embedding map and confusions: [bold]{shown(report)}[/]")
    console.print(f"{time.perf_counter() - started:.0f} s")
    return report
