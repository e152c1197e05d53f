"""`python -m evaluation ENCODER DATASET`: probes beside baselines, as a table, files and a report."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from evaluation.evaluate import Evaluation, evaluate
from evaluation.protocols import PROTOCOLS
from evaluation.protocols.finetune import SIMCLR_TRANSFER
from evaluation.suite import read_suite, run_suite, suite_names
from zoo.checkpoint.loading import load
from zoo.checkpoint.results import Results
from zoo.data.addresses import available_splits, open_dataset
from zoo.data.base import Dataset
from zoo.data.registry import examples
from zoo.encoder import Encoder
from zoo.errors import DataError, UnknownNameError
from zoo.text import printable


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        prog="python -m evaluation",
        description="Probe an encoder on a labelled dataset, beside an untrained encoder and raw input.",
    )
    made.add_argument("encoder", help="a catalogue name, hf-hub:org/name[@revision] or local-dir:PATH")
    made.add_argument(
        "dataset",
        nargs="?",
        help=f"{examples()}; with --suite optional: a folder with train/ and test/ to add to the suite",
    )
    made.add_argument("--suite", help=f"measure on many datasets at once: {' or '.join(suite_names())}")
    made.add_argument("--data-root", help="with --suite: the folder that holds the datasets; default $ZOO_DATA")
    made.add_argument("--train-split", default="train")
    made.add_argument("--test-split", help="default: test if there is one, else the validation split")
    made.add_argument("--root", help="where torchvision datasets lie")
    made.add_argument("--download", action="store_true", help="fetch the dataset if it is missing")
    made.add_argument(
        "--protocol", help=f"comma-separated, of {', '.join(PROTOCOLS)}; default: logreg,knn, or those of the suite"
    )
    made.add_argument("--k", type=int, nargs="+", help="fix the grid of k instead of the protocol's")
    made.add_argument("--labels", type=float, nargs="+", help="few_label: shares of each class, or numbers per class")
    made.add_argument(
        "--simclr-finetune",
        action="store_true",
        help="finetune: SimCLR's 20,000 steps, batch 256 and grid of 56 settings",
    )
    made.add_argument("--no-floors", action="store_true", help="leave out the untrained encoder and the raw input")
    made.add_argument(
        "--initialisations",
        type=int,
        default=3,
        help="the untrained encoder is the mean over this many random networks",
    )
    made.add_argument("--limit", type=int, help="at most this many samples a split, stratified")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--precision", default="auto", choices=("auto", "fp32", "bf16", "fp16"))
    made.add_argument("--out", type=Path, help="folder for results.json, results.csv and report.html")
    return made


def run(options: argparse.Namespace, command: str, quiet: bool = False) -> Evaluation:
    """Evaluate as the parsed options say; progress goes to stderr."""
    from evaluation.console import stages

    if options.limit is not None and options.limit < 4:
        raise DataError(f"--limit {options.limit} leaves nothing to measure; give at least 4")
    if options.dataset is None:
        raise DataError("no dataset was named; give a folder or a name, or --suite for many at once")
    encoder = load(options.encoder)
    train, test = splits(options.dataset, options.train_split, options.test_split, options.root, options.download)
    with stages(quiet) as progress:
        found = evaluate(
            encoder,
            train,
            test,
            protocols=_protocols(options, ("logreg", "knn")),
            settings=_settings(options),
            floors=not options.no_floors,
            initialisations=options.initialisations,
            limit=options.limit,
            seed=options.seed,
            precision=options.precision,
            command=command,
            progress=progress,
        )
        report_duplicates(found.train_data, found.test_data)
    return found


def suite(options: argparse.Namespace, command: str) -> int:
    """Run a suite as the parsed options say; exit status 0 also where datasets were skipped."""
    from rich.console import Console

    from evaluation.console import stages
    from evaluation.report.suite_page import overview, write_suite

    encoder = load(options.encoder)
    with stages() as progress:
        found = run_suite(
            encoder,
            options.suite,
            options.data_root or options.root,
            folders=[options.dataset] if options.dataset else [],
            protocols=_protocols(options, read_suite(options.suite).protocols),
            settings=_settings(options),
            download=options.download,
            floors=not options.no_floors,
            initialisations=options.initialisations,
            limit=options.limit,
            seed=options.seed,
            precision=options.precision,
            command=command,
            progress=progress,
        )
    console = Console(width=None if sys.stdout.isatty() else 140, highlight=False)
    console.print(overview(found))
    for skipped in found.skipped:
        console.print(printable(f"skipped {skipped.title}: {skipped.reason}"), markup=False)
    if options.out is not None:
        print(f"wrote {write_suite(found, options.encoder, options.out, weights_sha256(encoder))}")
    return 0


def _protocols(options: argparse.Namespace, default: Sequence[str]) -> list[str]:
    """The short names that were asked for."""
    if options.protocol is None:
        return list(default)
    return [name.strip() for name in options.protocol.split(",") if name.strip()]


def _settings(options: argparse.Namespace) -> dict[str, dict[str, object]]:
    """Changes to the protocols' settings."""
    changes: dict[str, dict[str, object]] = {}
    if options.k:
        changes["knn"] = {"k_grid": tuple(options.k)}
    if options.labels:
        changes["few_label"] = {"amounts": tuple(options.labels)}
    if options.simclr_finetune:
        changes["finetune"] = SIMCLR_TRANSFER
    return changes


def splits(
    address: str,
    train_split: str = "train",
    test_split: str | None = None,
    root: str | None = None,
    download: bool = False,
) -> tuple[Dataset, Dataset]:
    """The two labelled splits of a dataset that a probe needs.

    Raises:
        UnknownNameError: the dataset has no such splits; says which it has.
    """
    if test_split is None:
        known = available_splits(address, root=root)
        test_split = next((s for s in ("test", "val") if s in known), None)
        if test_split is None:
            raise UnknownNameError(
                f"{address} has no test or val split (it has: {', '.join(known) or 'none'}); name one with --test-split"
            )
    return (
        open_dataset(address, train_split, root=root, download=download),
        open_dataset(address, test_split, root=root, download=download),
    )


def report_duplicates(train: Dataset, test: Dataset) -> None:
    """Warn of test samples whose content is also in the training split."""
    from zoo.data.duplicates import duplicates

    copies = {b for _, b in duplicates(train, test)}
    if copies:
        warnings.warn(
            f"{len(copies)} of {len(test)} test samples of {test.name} are exact copies of training samples",
            stacklevel=2,
        )


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
    predicted = next(iter(found.predicted.values()), None)
    figures = [
        score_chart(found.rows),
        nearest_neighbours(
            found.train.features, found.train.labels, found.train_data,
            found.test.features, found.test.labels, found.test_data, names,
        ),
        embedding_map(found.test.features, found.test.labels, names),
        None if predicted is None else confusion(found.test.labels, predicted, names),
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


def _without_out(arguments: list[str]) -> list[str]:
    """The command without its output folder: the numbers do not depend on it."""
    kept, skip = [], False
    for argument in arguments:
        if skip:
            skip = False
        elif argument == "--out":
            skip = True
        elif not argument.startswith("--out="):
            kept.append(argument)
    return kept
