"""Suites: one encoder on many datasets, each by the metric of its field; what is missing is skipped and said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from pydantic import ValidationError

from evaluation.evaluate import Evaluation, evaluate
from evaluation.protocols import protocol
from evaluation.protocols.base import Progress
from zoo.checkpoint.results import Result, Results
from zoo.data.addresses import open_dataset
from zoo.data.base import Dataset
from zoo.data.duplicates import duplicates, overlap_report
from zoo.data.tree import split_folders
from zoo.encoder import Encoder
from zoo.errors import ConfigError, DataError, UnknownNameError, nearest
from zoo.files import data_root
from zoo.strict import Strict, first_problem

SUITES = Path(__file__).parent / "suites"
#: Few images per class: with more neighbours than a class has, the others outvote it.
SMALL_CLASS, SMALL_GRID = 100, (1, 5, 10, 20)
#: Labels per class, then shares. More than this many labels are not few, and cost hours on one core.
AMOUNTS, FEW = (1.0, 5.0, 10.0, 0.01, 0.1, 0.25, 0.5), 12_500


class Entry(Strict):
    """One dataset of a suite; see `suites/fine_grained.yaml`."""

    name: str
    title: str
    source: str
    train: str
    test: str
    validation: str | None = None
    metric: Literal["top1", "mean_per_class"] = "top1"
    note: str = ""


class Suite(Strict):
    """A named list of datasets, and the protocols that suit them."""

    title: str
    protocols: tuple[str, ...]
    datasets: tuple[Entry, ...]


class Skipped(Strict):
    """A dataset that was not measured: which, and why, with the way to get it."""

    dataset: str
    title: str
    reason: str


class SuiteResults(Results):
    """A suite's results.json: `Results`, and what was left out."""

    suite: str
    skipped: tuple[Skipped, ...] = ()


@dataclass(frozen=True)
class SuiteRun:
    """What `run_suite` found: evaluations by dataset name, in the suite's order, and what was skipped."""

    name: str
    suite: Suite
    found: dict[str, Evaluation]
    skipped: tuple[Skipped, ...]

    @property
    def rows(self) -> tuple[Result, ...]:
        """All results."""
        return tuple(row for evaluation in self.found.values() for row in evaluation.rows)

    @property
    def encoder(self) -> Encoder | None:
        """The probed encoder; None where every dataset was skipped."""
        return next((evaluation.encoder for evaluation in self.found.values()), None)

    def entry(self, name: str) -> Entry:
        """The entry of a dataset."""
        return next(entry for entry in self.suite.datasets if entry.name == name)


def suite_names() -> list[str]:
    """Names that `--suite` takes."""
    return sorted(path.stem for path in SUITES.glob("*.yaml"))


def read_suite(name: str) -> Suite:
    """A suite by name.

    Raises:
        UnknownNameError: no such suite. ConfigError: its file is not valid.
    """
    if name not in suite_names():
        raise UnknownNameError(f"unknown suite {name!r}; {nearest(name, suite_names())}")
    path = SUITES / f"{name}.yaml"
    try:
        return Suite.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        raise ConfigError(f"{path} is not a valid suite: {first_problem(error)}") from None


def run_suite(
    encoder: Encoder,
    name: str,
    root: str | Path | None = None,
    *,
    folders: Sequence[str | Path] = (),
    protocols: Sequence[str] | None = None,
    settings: dict[str, dict[str, Any]] | None = None,
    download: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> SuiteRun:
    """Evaluate an encoder on every dataset of a suite that is there.

    Args:
        encoder: a loaded encoder for images.
        name: of the suite.
        root: where the datasets lie, each in its own layout or as `NAME/train`, `NAME/test`; default $ZOO_DATA.
        folders: image folders with train and test (and val) to add, judged by top-1.
        protocols: short names instead of the suite's own.
        settings: as in `evaluate`.
        download: fetch what torchvision can fetch.
        options: `floors`, `limit`, `seed`, `precision`, `keep`, `command` of `evaluate`.

    Raises:
        UnknownNameError: no such suite or protocol. DataError: the encoder does not take images. A dataset that is
        missing or damaged never raises: it is among `SuiteRun.skipped`.
    """
    suite = read_suite(name)
    for short in protocols or ():  # a typing error must not look like missing data
        protocol(short, (settings or {}).get(short))
    if encoder.modality != "image":
        raise DataError(f"the suites hold images; {encoder.name} takes {encoder.modality} data")
    for folder in folders:
        own = _entry_of(folder, {entry.name for entry in suite.datasets})
        suite = suite.model_copy(update={"datasets": (*suite.datasets, own)})
    options.setdefault("keep", True)
    found: dict[str, Evaluation] = {}
    skipped: list[Skipped] = []
    for entry in suite.datasets:
        where = None if progress is None else _prefixed(progress, entry.name)
        try:
            train, validation, test = open_entry(entry, root, download)
            chosen = _settings(train, validation) | (settings or {})
            done = evaluate(
                encoder, train, test, validation=validation, headline=entry.metric, settings=chosen,
                protocols=suite.protocols if protocols is None else protocols, progress=where, **options,
            )  # fmt: skip
            found[entry.name] = _with_copies(done)
        except DataError as error:
            skipped.append(Skipped(dataset=entry.name, title=entry.title, reason=str(error)))
    return SuiteRun(name, suite, found, tuple(skipped))


def open_entry(entry: Entry, root: str | Path | None, download: bool) -> tuple[Dataset, Dataset | None, Dataset]:
    """Training, validation (or None) and test split of an entry.

    A folder `root/NAME` with train and test folders comes first, then the source's own layout below `root`.

    Raises:
        DataError: it is not there; says how to get it.
    """
    folder = Path(entry.source) if entry.source.startswith("folder:") else data_root(root) / entry.name
    if entry.source.startswith("folder:"):
        folder = Path(entry.source.removeprefix("folder:"))
    if folder.is_dir():
        known = split_folders(folder)
        if {"train", "test"} <= known.keys():
            val = open_dataset(folder, "val") if "val" in known else None
            return open_dataset(folder, "train"), val, open_dataset(folder, "test")
        if entry.source.startswith("folder:"):
            raise DataError(f"{folder} has no train and test folders (it has: {', '.join(known) or 'neither'})")
    elif entry.source.startswith("folder:"):
        raise DataError(f"{folder} does not exist; give a folder with train/CLASS/ and test/CLASS/")

    def part(split: str) -> Dataset:
        return open_dataset(entry.source, split, root=root, download=download)

    try:
        return part(entry.train), part(entry.validation) if entry.validation else None, part(entry.test)
    except DataError as error:
        raise DataError(f"{error}; or put images into {folder}/train/CLASS/ and {folder}/test/CLASS/") from None


def _entry_of(folder: str | Path, taken: set[str]) -> Entry:
    """The entry of a folder of one's own; where its name is taken, it gets a number and is shown by its path."""
    path = Path(folder).expanduser()
    name, count = path.name, 1
    while name in taken:
        count += 1
        name = f"{path.name}_{count}"
    title = path.name if count == 1 else str(path)
    return Entry(name=name, title=title, source=f"folder:{path}", train="train", test="test")


def _settings(train: Dataset, validation: Dataset | None) -> dict[str, dict[str, Any]]:
    """Settings that depend on how many images a class has."""
    if train.labels is None:
        return {}
    counts = np.bincount(train.labels)
    if validation is not None and validation.labels is not None:
        counts = counts + np.bincount(validation.labels, minlength=len(counts))[: len(counts)]
    samples, classes = int(counts.sum()), int((counts > 0).sum())
    small = samples / classes < SMALL_CLASS
    # Shares that leave less than one label per class, or amounts that are not few, are left out.
    labels = {amount: amount * (samples if amount < 1 else classes) for amount in AMOUNTS}
    amounts = tuple(a for a, n in labels.items() if n <= FEW and (a >= 1 or n >= classes))
    return {"few_label": {"amounts": amounts}} | ({"knn": {"k_grid": SMALL_GRID}} if small else {})


def _with_copies(found: Evaluation) -> Evaluation:
    """A warning on every row where test samples are exact copies of training samples."""
    if not duplicates(found.train_data, found.test_data):
        return found
    text = overlap_report(found.train_data, found.test_data)
    rows = tuple(row.model_copy(update={"warnings": (*row.warnings, text)}) for row in found.rows)
    return replace(found, rows=rows)


def _prefixed(progress: Progress, name: str) -> Progress:
    return lambda what, done, total: progress(f"{name}: {what}", done, total)
