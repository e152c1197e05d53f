"""`zoo demo`: load, probe beside baselines, adapt without labels, probe again, on what the repository carries."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from evaluation.command import ProbeOptions, report_duplicates, splits, write
from evaluation.evaluate import Evaluation, evaluate
from zoo.checkpoint.catalog import list_models
from zoo.checkpoint.loading import load
from zoo.console import Progress, output, shown, stages
from zoo.data.base import Dataset
from zoo.errors import UnknownNameError, nearest
from zoo.files import write_whole

#: Used where a person happens to have it; otherwise the demo needs nothing but scikit-learn's own images.
LOCAL_DATA = Path("data/cifar10")
BUNDLED_DATA = "digits:placed"
#: Eight actions by forward kinematics; the test split has other people and other cameras.
BUNDLED_MOTION = "synthetic:motion?n=400&sway=50"
#: How to read the first table.
LEGEND = (
    "kNN accuracy on frozen features. Baselines: the same network with random weights (untrained), and the raw input. "
    "What training gave is the distance to the better one."
)
#: The first probe takes less than half of this on two cores with AVX2; later than this the demo says that it is slow.
SLOW_SECONDS = 60
#: Modality -> the encoders that the demo prefers, best first. Patterns alone would take the first by the alphabet.
BUNDLED = {"image": ("distill_airbench_cifar10", "simclr*", "*"), "skeleton": ("ms2l*", "*")}


def default_encoder(modality: str = "image") -> str:
    """The bundled distilled image encoder or MS²L skeleton encoder, else any of that modality in the catalogue.

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


#: Trains the encoder at an address further on the pictures of a split, without labels; gives the new address, and
#: whether the training reached its end. Called as `adapt(encoder, dataset address, split, samples, folder)`.
Adapt = Callable[[str, str, str, int, Path], tuple[str, bool]]


def run(
    data: str | None = None,
    encoder: str | None = None,
    out: Path = Path("reports/demo"),
    limit: int = 600,
    modality: str = "image",
    *,
    adapt: Adapt | None = None,
    picture: Path | None = None,
    download: bool = False,
    device: str | None = None,
    batch_size: int = 256,
    workers: int | None = None,
    quiet: bool = False,
) -> Path:
    """Load, extract, probe beside the baselines; adapt to the training pictures without labels, and probe again.

    Args:
        data: a dataset address; None for `default_data`.
        encoder: an encoder address; None for `default_encoder`.
        out: folder of the report; that of the adapted encoder is in `out/adapted`.
        limit: at most this many samples a split.
        modality: `"image"` or `"skeleton"`, for what is not given.
        adapt: how to adapt, which is training and so no business of this room; None leaves it out.
        picture: a PNG file for the two maps of the features, before and after adapting, side by side.
        download: fetch the dataset if it is missing.
        device, batch_size, workers: of the forward pass, see `zoo.extract`.
        quiet: show no progress.

    Returns:
        The path of the last HTML report.
    """
    from evaluation.report.tables import table

    console, started = output(), time.monotonic()
    say = partial(console.print, soft_wrap=True)  # a path or a command stays in one line
    encoder, data = encoder or default_encoder(modality), data or default_data(modality)
    train, test = splits(data, ProbeOptions(download=download))
    forward = {"device": device, "batch_size": batch_size, "workers": workers}
    command = f"zoo demo --data {data} --encoder {encoder} --limit {limit}"

    def probed(address: str, floors: bool) -> Evaluation:
        with stages(quiet) as progress:
            found = evaluate(
                load(address), train, test, protocols=["knn"], limit=limit, floors=floors, initialisations=1,
                command=command, progress=_watched(progress, time.monotonic(), say), **forward,
            )  # fmt: skip
            if floors:
                report_duplicates(found.train_data, found.test_data)
        return found

    say(
        f"1. load [bold]{shown(encoder)}[/] and probe it on [bold]{shown(train.name)}[/]: {shown(train.split)} and "
        f"{shown(test.split)}"
    )
    before = probed(encoder, True)
    console.print(table(before.rows))
    say(LEGEND, markup=False)
    report = write(before, encoder, out)
    say(f"report with nearest neighbours and a map: [bold]{shown(report)}[/] ({time.monotonic() - started:.0f} s)")
    if adapt is not None and train.modality == "image":
        report = _adapted(adapt, encoder, data, before, out, lambda address: probed(address, False), picture)
    elif train.modality == "skeleton":
        say("Adapting is shown with images only; `zoo train --list` names the recipes for skeletons.")
    say(
        "See it on CIFAR-10: `zoo demo --data CIFAR10 --download`; on your own pictures: `zoo demo --data FOLDER`.",
        markup=False,
    )
    return report


def _adapted(
    adapt: Adapt,
    encoder: str,
    data: str,
    before: Evaluation,
    out: Path,
    probed: Callable[[str], Evaluation],
    picture: Path | None,
) -> Path:
    """The second half of the story; returns the report of the adapted encoder."""
    say, started = partial(output().print, soft_wrap=True), time.monotonic()
    split: Dataset = before.train_data
    say(f"2. adapt it to the {len(split):,} training pictures, without their labels")
    address, finished = adapt(encoder, data, split.split, len(split), out / "adapted" / "run")
    if not finished:
        say("This machine is slow: adapting was stopped early, so less is gained than it could be.")
    say(f"   {time.monotonic() - started:.0f} s; 3. probe again")
    after = probed(address)
    report = write(after, address, out / "adapted")
    if picture is not None:
        write_whole(picture, _side_by_side(before, after))
        say(f"both maps: [bold]{picture}[/]")
    first, second = (found.rows[0].metrics["top1"] for found in (before, after))
    say(
        f"   kNN accuracy: {100 * first.value:.1f} % [{100 * first.low:.1f}, {100 * first.high:.1f}] before, "
        f"[bold]{100 * second.value:.1f} %[/] [{100 * second.low:.1f}, {100 * second.high:.1f}] after",
    )
    say(f"report of the adapted encoder: [bold]{shown(report)}[/]; it is zoo.load({shown(repr(address))})")
    return report


def _side_by_side(*found: Evaluation) -> bytes:
    """The maps of several evaluations in one row, as a PNG."""
    from PIL import Image

    from evaluation.report.maps import embedding_map

    drawn = (embedding_map(each.test.features, each.test.labels, each.test_data.class_names) for each in found)
    maps = [Image.open(io.BytesIO(each.png)).convert("RGB") for each in drawn if each is not None]
    row = Image.new("RGB", (sum(each.width for each in maps), max(each.height for each in maps)), "white")
    left = 0
    for each in maps:
        row.paste(each, (left, 0))
        left += each.width
    row.thumbnail((1600, 1600))
    file = io.BytesIO()
    row.quantize(64).save(file, "PNG", optimize=True)
    return file.getvalue()


def _watched(progress: Progress, started: float, say: Callable[[str], None]) -> Progress:
    """`progress` that says once that the machine is slower than expected."""
    said: list[bool] = []

    def advance(what: str, done: int, total: int) -> None:
        progress(what, done, total)
        if not said and time.monotonic() - started > SLOW_SECONDS and total > 1 and done < total:
            said.append(True)
            say(f"This machine is slower than expected; `zoo demo --limit {max(20, total // 4)}` takes less time.")

    return advance
