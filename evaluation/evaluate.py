"""`evaluate`: one encoder, one dataset, any protocols, beside baselines, with intervals."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from evaluation import floors as floor_features
from evaluation.frozen import Features, Outcome, cached_features
from evaluation.metrics import with_intervals
from evaluation.protocols import EVALUATORS, HEADLINES, PROTOCOLS, protocol
from evaluation.protocols.few_label import FewLabelProbe, FewLabelV1, metrics_over_draws
from evaluation.protocols.finetune import FineTuner, FineTuneV1
from zoo.checkpoint.results import DataRecord, Metric, Result
from zoo.data.base import Dataset, Joined
from zoo.data.splits import at_most
from zoo.encoder import Encoder
from zoo.errors import DataError, UnknownNameError
from zoo.features.extract import embed

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found.

    Attributes:
        rows: one result per protocol and subject.
        train, test: the encoder's own features.
        predicted: versioned protocol name -> the encoder's predictions `(N,)` on the test split.
        train_data, test_data: the splits as evaluated (after `limit`).
    """

    rows: tuple[Result, ...]
    train: Features
    test: Features
    train_data: Dataset
    test_data: Dataset
    predicted: dict[str, np.ndarray] = field(default_factory=dict)


def evaluate(
    encoder: Encoder,
    train: Dataset,
    test: Dataset,
    *,
    protocols: Sequence[str] = ("logreg", "knn"),
    settings: dict[str, dict[str, Any]] | None = None,
    floors: bool = True,
    validation: Dataset | None = None,
    headline: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    precision: str = "auto",
    device: str | None = None,
    batch_size: int = 256,
    workers: int | None = None,
    keep: str | Path | bool = False,
    command: str = "",
    progress: Progress | None = None,
) -> Evaluation:
    """Probe an encoder on one dataset.

    Args:
        encoder: a loaded encoder.
        train, test: labelled splits with the same classes.
        protocols: short names from `evaluation.protocols.PROTOCOLS`.
        settings: changes to a protocol's settings, such as `{"knn": {"k_grid": [5]}}`.
        floors: also the untrained network and the raw input, under the same protocols.
        validation: the official validation split: settings are chosen on it, then it joins the training split.
        headline: the metric that the field reports for this dataset, where something is classified.
        limit: at most this many samples a split, stratified and seeded.
        seed: of every random choice.
        precision, device, batch_size, workers: of the forward pass, see `zoo.extract`.
        keep: read features from, and leave them in, a folder (True: $ZOO_CACHE/features), mapped into memory.
        command: what a person types to repeat the numbers; stored with them.
        progress: called as `progress(what, done, total)`.

    Raises:
        DataError: splits that cannot be probed. UnknownNameError: an unknown protocol.
    """
    if not protocols:
        raise UnknownNameError(f"no protocol was given; known: {', '.join(PROTOCOLS)}")
    chosen = [protocol(name, **(settings or {}).get(name, {})) for name in protocols]
    if train.labels is None or test.labels is None:
        raise DataError(f"{train.name} has no labels; a probe needs them (class folders give labels)")
    if train.class_names != test.class_names:
        raise DataError(
            f"the splits have different classes: {list(train.class_names)[:5]}... in {train.split}, "
            f"{list(test.class_names)[:5]}... in {test.split}"
        )
    if len(np.unique(train.labels)) < 2:  # said before the features are computed, not after
        raise DataError(
            f"{train.name}/{train.split} holds one class only ({train.class_names[int(train.labels[0])]!r}); a probe "
            "needs at least two"
        )
    train, test = limited(train, limit, seed), limited(test, limit, seed)
    held = None
    if validation is not None:
        before, validation = len(train), limited(validation, limit, seed)
        train = Joined([train, validation])
        held = np.arange(before, len(train), dtype=np.int64)
    forward = {"precision": precision, "device": device, "batch_size": batch_size, "workers": workers}
    rows: list[Result] = []
    own: tuple[Features, Features] | None = None
    predicted: dict[str, np.ndarray] = {}
    for subject in ("encoder", "untrained", "raw") if floors else ("encoder",):
        network = floor_features.untrained(encoder, seed) if subject == "untrained" else encoder
        parts = [_features(subject, network, part, forward, keep, progress) for part in (train, test)]
        for setting in chosen:
            if isinstance(setting, FineTuneV1) and subject == "raw":  # there is no network to train
                continue
            if progress is not None:
                progress(f"{setting.name} on {subject}", 0, 1)
            started = time.perf_counter()
            shared = {
                "protocol": setting.name,
                "subject": subject,
                "modality": train.modality,
                "train": _record(train),
                "test": _record(test),
                "classes": len(np.unique(train.labels)),
                "seed": seed,
                "command": command,
            }
            if isinstance(setting, FewLabelV1):
                rows += [
                    row.model_copy(update={"headline": headline})
                    for row in _few_label(setting, shared, parts, seed, limit)
                ]
                continue
            if isinstance(setting, FineTuneV1):
                tuner = FineTuner(setting, seed, precision=precision, device=device, progress=progress)
                outcome = tuner.run(network, train, test, held)
            else:
                outcome = EVALUATORS[setting.name](setting, seed).run(*parts, held)
            rows.append(
                Result(
                    **shared,
                    metrics=measured(outcome, parts[1].labels, seed),
                    headline=HEADLINES.get(setting.name, headline) if headline else None,
                    settings=setting.model_dump(mode="json", exclude={"name"}) | {"limit": limit},
                    chosen=outcome.chosen,
                    warnings=outcome.warnings,
                    seconds=round(time.perf_counter() - started, 2),
                )
            )
            if subject == "encoder" and outcome.predicted is not None:
                predicted[setting.name] = outcome.predicted
        own = own or (parts[0], parts[1])
    assert own is not None
    return Evaluation(tuple(rows), *own, train, test, predicted)


def measured(outcome: Outcome, labels: np.ndarray, seed: int) -> dict[str, Metric]:
    """All metrics of an outcome; both accuracies where something was classified."""
    own = {} if outcome.predicted is None else with_intervals(labels, outcome.predicted, seed)
    return own | outcome.metrics


def limited(dataset: Dataset, limit: int | None, seed: int = 0) -> Dataset:
    """At most `limit` samples of a split, stratified and seeded; the split itself if it is smaller."""
    if limit is None or len(dataset) <= limit:
        return dataset
    return dataset.subset(at_most(dataset.labels, len(dataset), limit, seed))


def _features(
    subject: str,
    network: Encoder,
    dataset: Dataset,
    forward: dict[str, Any],
    keep: str | Path | bool,
    progress: Progress | None,
) -> Features:
    assert dataset.labels is not None
    labels = np.asarray(dataset.labels, dtype=np.int64)
    if subject == "raw":
        return Features(floor_features.raw(network, dataset), labels)
    advance = None
    if progress is not None:

        def advance(done: int, total: int) -> None:
            progress(f"{subject}: features of {dataset.split}", done, total)

    if keep:
        folder = None if keep is True else keep
        return Features(cached_features(network, dataset, **forward, folder=folder, progress=advance), labels)
    return Features(embed(network, dataset, **forward, progress=advance), labels)


def _few_label(
    setting: FewLabelV1,
    shared: dict[str, Any],
    parts: Sequence[Features],
    seed: int,
    limit: int | None,
) -> list[Result]:
    """One row per amount of labels; `shared`: the fields that do not depend on it."""
    rows, started = [], time.perf_counter()
    fixed = setting.model_dump(mode="json", exclude={"name", "amounts"}) | {"limit": limit}
    for outcome in FewLabelProbe(setting, seed).outcomes(*parts):
        rows.append(
            Result(
                **shared,
                metrics=metrics_over_draws(parts[1].labels, outcome.predicted, seed),
                settings={"labels": outcome.title, **fixed},
                chosen={"samples": outcome.labels},
                warnings=outcome.warnings,
                seconds=round(time.perf_counter() - started, 2),
            )
        )
        started = time.perf_counter()
    return rows


def _record(dataset: Dataset) -> DataRecord:
    return DataRecord(name=dataset.name, split=dataset.split, fingerprint=dataset.fingerprint, samples=len(dataset))
