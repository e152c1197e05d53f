"""`probe` and `probe_suite`: what `zoo probe` and `python -m evaluation` call, as typed functions."""

from __future__ import annotations

import shlex
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from evaluation.evaluate import Evaluation, evaluate
from evaluation.protocols import protocol_title
from evaluation.protocols.finetune import SIMCLR_TRANSFER
from evaluation.suite import SuiteRun, read_suite, run_suite
from zoo.checkpoint.loading import load
from zoo.checkpoint.results import Results
from zoo.console import line, stages
from zoo.data.addresses import available_splits, open_dataset
from zoo.data.base import Dataset
from zoo.data.pairs import opened
from zoo.encoder import Encoder
from zoo.errors import ConfigError, DataError, UnknownNameError, nearest

#: Options that decide how fast numbers come, not which, and so are no part of a stored command.
SPEED = ("device", "batch_size", "workers")
#: What a stored command may begin with.
STARTS = (["python", "-m", "evaluation"], ["zoo", "probe"])


@dataclass(frozen=True)
class ProbeOptions:
    """How to probe; each field is the option of the same name on the command line, with its meaning and default.

    Attributes:
        suite: name of many datasets to measure on; None for one dataset.
        data_root: where the datasets of a suite lie; None for $ZOO_DATA.
        train_split, test_split: names of splits; `test_split` None for test, else the validation split.
        root: where torchvision datasets lie. download: fetch the dataset if it is missing.
        classes, test_share, skip_bad: as in `zoo.open_dataset`; for one dataset, not for a suite.
        labels_file: the table of labels, which `zoo.open_dataset` takes as `labels`; not for a suite.
        protocol: short names separated by commas; None for logreg and knn, or those of the suite.
        k: a fixed grid of k for the kNN probe; empty for the protocol's own.
        labels: amounts of labels for few_label: shares of each class, or numbers per class.
        simclr_finetune: fine-tune as SimCLR did, with its 20,000 steps and 56 settings.
        no_floors: leave out the baselines (the untrained network and the raw input).
        initialisations: the untrained network is the mean over this many random networks.
        limit: at most this many samples a split, stratified by class.
        seed: the seed of all random choices.
        precision: of the forward pass: auto, fp32, bf16 or fp16.
        device, batch_size, workers: as in `zoo.extract`.
    """

    suite: str | None = None
    data_root: str | None = None
    train_split: str = "train"
    test_split: str | None = None
    root: str | None = None
    download: bool = False
    classes: str | None = None
    labels_file: str | None = None
    test_share: float | None = None
    skip_bad: bool = False
    protocol: str | None = None
    k: tuple[int, ...] = ()
    labels: tuple[float, ...] = ()
    simclr_finetune: bool = False
    no_floors: bool = False
    initialisations: int = 3
    limit: int | None = None
    seed: int = 0
    precision: str = "auto"
    device: str | None = None
    batch_size: int = 256
    workers: int | None = None

    def protocols(self, default: Sequence[str]) -> list[str]:
        """The short names that were asked for."""
        if self.protocol is None:
            return list(default)
        return [name.strip() for name in self.protocol.split(",") if name.strip()]

    def measuring(self, default: Sequence[str]) -> dict[str, Any]:
        """What `evaluate` and `run_suite` are told alike; `default`: the protocols where none were asked for."""
        return {
            "protocols": self.protocols(default),
            "settings": self.settings(),
            "floors": not self.no_floors,
            "initialisations": self.initialisations,
            "limit": self.limit,
            "seed": self.seed,
            "precision": self.precision,
            "device": self.device,
            "batch_size": self.batch_size,
            "workers": self.workers,
        }

    def settings(self) -> dict[str, dict[str, object]]:
        """Changes to the protocols' settings."""
        changes: dict[str, dict[str, object]] = {}
        if self.k:
            changes["knn"] = {"k_grid": self.k}
        if self.labels:
            changes["few_label"] = {"amounts": self.labels}
        if self.simclr_finetune:
            changes["finetune"] = SIMCLR_TRANSFER
        return changes


def command_text(encoder: str, data: str | None, options: ProbeOptions) -> str:
    """The command that repeats the numbers; options that have their default, or only change the speed, are left out."""
    words = ["python", "-m", "evaluation", encoder, *([] if data is None else [data])]
    for field in fields(options):
        value = getattr(options, field.name)
        if field.name in SPEED or value == field.default:
            continue
        words.append("--" + field.name.replace("_", "-"))
        if isinstance(value, tuple):
            words += [f"{each:g}" for each in value]
        elif value is not True:
            words.append(str(value))
    return shlex.join(words)


def read_command(text: str) -> tuple[str, str | None, ProbeOptions] | None:
    """Encoder, data and options of a probe command as `command_text` writes it; None for one of another program.

    Raises:
        ConfigError: it is a probe command, but an option or a value of it is not known.
    """
    words = shlex.split(text)
    start = next((start for start in STARTS if words[: len(start)] == start), None)
    if start is None:
        return None
    known = {"--" + field.name.replace("_", "-"): field for field in fields(ProbeOptions)}
    known |= {"--no-baselines": known["--no-floors"]}
    given: dict[str, object] = {}
    places, rest = [], words[len(start) :]
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            places.append(word)
            continue
        name, _, value = word.partition("=")
        if name not in known:
            raise ConfigError(f"{text!r}: no option {name}; {nearest(name, list(known))}")
        field = known[name]
        if field.default is False:
            given[field.name] = True
            continue
        values = [value] if value else [rest.pop(0)] if rest else []
        while isinstance(field.default, tuple) and rest and _number(rest[0]) is not None:
            values.append(rest.pop(0))
        read = values if field.type.startswith("str") else [_number(each) for each in values]
        if not read or None in read:
            raise ConfigError(f"{text!r}: {name} needs a value of type {field.type}")
        given[field.name] = tuple(read) if isinstance(field.default, tuple) else read[0]
    if not 1 <= len(places) <= 2:
        raise ConfigError(f"{text!r} must name an encoder and at most one dataset")
    return places[0], places[1] if len(places) == 2 else None, ProbeOptions(**given)


def _number(text: str) -> int | float | None:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return None


def probe(
    encoder: str,
    data: str,
    options: ProbeOptions | None = None,
    *,
    command: str | None = None,
    quiet: bool = False,
) -> Evaluation:
    """Probe an encoder on one labelled dataset, beside its baselines. Progress goes to stderr.

    Args:
        encoder: an address that `zoo.load` takes.
        data: an address that `zoo.open_dataset` takes.
        options: None for all defaults.
        command: text to store with the numbers; None for the command that repeats this call.
        quiet: show no progress.

    Raises:
        ZooError: an unknown name, data that cannot be probed, or weights that cannot be loaded.
    """
    options = options or ProbeOptions()
    _check_limit(options)
    train, test = opened(lambda: splits(data, options), line(quiet))
    network = load(encoder)
    with stages(quiet) as progress:
        found = evaluate(
            network,
            train,
            test,
            **options.measuring(("logreg", "knn")),
            command=command_text(encoder, data, options) if command is None else command,
            progress=progress,
        )
        report_duplicates(found.train_data, found.test_data)
    return found


def probe_beside(
    encoders: Sequence[str],
    data: str,
    options: ProbeOptions | None = None,
    *,
    quiet: bool = False,
    measured: Callable[[str, Evaluation], None] | None = None,
) -> dict[str, Evaluation]:
    """Probe several encoders on one labelled dataset; features are kept in the cache. Progress goes to stderr.

    Args:
        encoders: addresses that `zoo.load` takes; the result has them as keys.
        data, options, quiet: as in `probe`.
        measured: called with an encoder and what was measured as soon as it is done, so that nothing of it is lost if a
            later one fails.

    Raises:
        ZooError: as `probe`; every address is opened before anything is computed.
    """
    options = options or ProbeOptions()
    _check_limit(options)
    train, test = opened(lambda: splits(data, options), line(quiet))
    networks = {address: load(address) for address in encoders}
    raw_results: dict[str, Any] = {}
    with stages(quiet) as progress:
        found: dict[str, Evaluation] = {}
        for address, network in networks.items():
            found[address] = evaluate(
                network,
                train,
                test,
                **options.measuring(("logreg", "knn")),
                keep=True,
                command=command_text(address, data, options),
                progress=lambda what, done, total, name=address: progress(f"{name}: {what}", done, total),
                raw_results=raw_results,
            )
            if measured is not None:
                measured(address, found[address])
        report_duplicates(train, test)
    return found


def probe_suite(
    encoder: str, options: ProbeOptions, *, folder: str | None = None, command: str | None = None, quiet: bool = False
) -> SuiteRun:
    """Probe an encoder on every dataset of the suite `options.suite` that is there.

    Args:
        encoder: an address that `zoo.load` takes.
        folder: an image folder with train and test to add to the suite.
        command, quiet: as in `probe`.

    Raises:
        ZooError: as `probe`, but a dataset that is missing is skipped.
    """
    assert options.suite is not None
    _check_limit(options)
    for name in ("classes", "labels_file", "test_share", "skip_bad"):
        if getattr(options, name) not in (None, False):
            raise DataError(f"--{name.replace('_', '-')} is for one dataset; leave it out with --suite")
    with stages(quiet) as progress:
        return run_suite(
            load(encoder),
            options.suite,
            options.data_root or options.root,
            folders=[] if folder is None else [folder],
            **options.measuring(read_suite(options.suite).protocols),
            download=options.download,
            command=command_text(encoder, folder, options) if command is None else command,
            progress=progress,
        )


def _check_limit(options: ProbeOptions) -> None:
    if options.limit is not None and options.limit < 4:
        raise DataError(f"--limit {options.limit} leaves nothing to measure; give at least 4")


def splits(address: str, options: ProbeOptions) -> tuple[Dataset, Dataset]:
    """The two labelled splits of a dataset that a probe needs, read as the options say.

    Raises:
        UnknownNameError: the dataset has no such splits; says which it has. DataError: nor has it labels.
    """
    reading = {
        "root": options.root, "classes": options.classes, "labels": options.labels_file, "skip_bad": options.skip_bad
    }  # fmt: skip
    test_split = options.test_split
    if test_split is None:
        known = available_splits(address, **reading)
        test_split = next((s for s in ("test", "val") if s in known), None)
        if test_split is None:
            if known == ["all"] and open_dataset(address, "all", **reading).labels is None:
                raise DataError(
                    f"{address} has neither labels nor splits; a probe needs both. `zoo look ENCODER {address}` tells "
                    "what can be told without"
                )
            raise UnknownNameError(
                f"{address} has no test or val split (it has: {', '.join(known) or 'none'}); name one with --test-split"
            )
    reading |= {"download": options.download, "test_share": options.test_share}
    return open_dataset(address, options.train_split, **reading), open_dataset(address, test_split, **reading)


def report_duplicates(train: Dataset, test: Dataset) -> None:
    """Warn of test samples whose content is also in the training split, and of other labels that they have there."""
    from zoo.data.duplicates import duplicates, overlap_report

    if duplicates(train, test):
        warnings.warn(overlap_report(train, test), stacklevel=2)


def write(found: Evaluation, encoder: str, folder: Path) -> Path:
    """results.json, results.csv and report.html in `folder`; returns the report's path."""
    from evaluation.report.attention_masks import attention_masks
    from evaluation.report.maps import confusion, embedding_map, score_chart
    from evaluation.report.neighbours import nearest_neighbours
    from evaluation.report.page import write_report
    from evaluation.report.skeleton_strips import motion_strips
    from evaluation.report.tables import as_csv
    from zoo.files import write_text

    folder.mkdir(parents=True, exist_ok=True)
    network = found.encoder
    results = Results(weights_sha256=weights_sha256(network), rows=found.rows)
    for name, text in (("results.json", results.to_json()), ("results.csv", as_csv(found.rows))):
        write_text(folder / name, text, DataError)
    names = found.test_data.class_names
    shown = next(iter(found.predicted), None)  # the first protocol that classified
    figures = [
        score_chart(found.rows),
        nearest_neighbours(
            found.train.features, found.train.labels, found.train_data,
            found.test.features, found.test.labels, found.test_data, names,
        ),
        embedding_map(found.test.features, found.test.labels, names),
        None
        if shown is None
        else confusion(found.test.labels, found.predicted[shown], names, title=protocol_title(shown)),
        attention_masks(network, found.test_data),
        motion_strips(network, found.train_data, found.test_data),
    ]  # fmt: skip
    title = f"{encoder} on {found.test_data.name}"
    return write_report(
        folder, found.rows, title=title, encoder_name=encoder, figures=[f for f in figures if f is not None]
    )


def weights_sha256(network: Encoder) -> str | None:
    """The hash in the checkpoint's config.json; None for an encoder that was never published."""
    return network.config.weights.sha256 if network.config is not None else None
