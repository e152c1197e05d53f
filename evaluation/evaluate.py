"""`evaluate`: one encoder, one dataset, any protocols, beside baselines, with intervals."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from evaluation import floors as floor_features
from evaluation.frozen import Features, Outcome, cached_features, groups_of
from evaluation.metrics import with_intervals
from evaluation.paired import Scores, difference, pooled, scores_of, spread
from evaluation.protocols import PROTOCOLS, protocol
from evaluation.protocols.base import Progress, Protocol
from zoo.checkpoint.results import DataRecord, Metric, Result, Versus
from zoo.data.base import Dataset, Joined
from zoo.data.labels import class_indices
from zoo.data.pairs import check_pair
from zoo.data.splits import at_most
from zoo.encoder import Encoder
from zoo.errors import DataError, UnknownNameError
from zoo.features.extract import embed


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found.

    Attributes:
        rows: one result per protocol and subject.
        train, test: the encoder's own features.
        predicted: versioned protocol name -> the encoder's predictions `(N,)` on the test split.
        train_data, test_data: the splits as evaluated (after `limit`).
        encoder: the encoder that was evaluated.
    """

    rows: tuple[Result, ...]
    train: Features
    test: Features
    train_data: Dataset
    test_data: Dataset
    encoder: Encoder
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
    initialisations: int = 3,
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
        initialisations: the untrained network is the mean over this many random initialisations.
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
    options = {"seed": seed, "precision": precision, "device": device, "progress": progress}
    chosen = [protocol(name, (settings or {}).get(name), **options) for name in protocols]
    for part in filter(None, (train, test, validation)):
        if part.labels is not None:  # said before the features are computed, not after
            class_indices(part.labels, f"{part.name}/{part.split}")
    if initialisations < 1:
        raise DataError(f"the untrained network needs at least 1 initialisation, got {initialisations}")
    if (
        train.labels is not None and len(np.unique(train.labels)) < 2
    ):  # said before the features are computed, not after
        raise DataError(
            f"{train.name}/{train.split} holds one class only ({train.class_names[int(train.labels[0])]!r}); a probe "
            "needs at least two"
        )
    check_pair(train, test)
    train, test = limited(train, limit, seed), limited(test, limit, seed)
    held = None
    if validation is not None:
        before, validation = len(train), limited(validation, limit, seed)
        train = Joined([train, validation])
        held = np.arange(before, len(train), dtype=np.int64)
    forward = {"precision": precision, "device": device, "batch_size": batch_size, "workers": workers}
    own: tuple[Features, Features] | None = None
    found: dict[str, dict[str, _Measured]] = {}
    for subject in ("encoder", "untrained", "raw") if floors else ("encoder",):
        collected = found.setdefault(subject, {})
        for number in range(initialisations if subject == "untrained" else 1):
            network = floor_features.untrained(encoder, seed + number) if subject == "untrained" else encoder
            parts = [_features(subject, network, part, forward, keep, progress) for part in (train, test)]
            own = own or (parts[0], parts[1])
            for each in chosen:
                if each.needs_network and parts[0].network is None:
                    continue
                if progress is not None:
                    progress(f"{each.name} on {subject}", 0, 1)
                started = time.perf_counter()
                for outcome in each.outcomes(*parts, held):
                    key = json.dumps([each.name, outcome.settings])
                    measured = collected.setdefault(key, _Measured(each, []))
                    measured.outcomes.append(outcome)
                    measured.seconds += time.perf_counter() - started
                    started = time.perf_counter()
    assert own is not None
    shared = {
        "modality": train.modality,
        "train": _record(train),
        "test": _record(test),
        "classes": len(np.unique(train.labels)),
        "seed": seed,
        "command": command,
    }
    groups = groups_of(test)
    rows = [
        measured.row(subject, own[1].labels, groups, headline, limit, shared)
        if subject != "encoder"
        else measured.row(subject, own[1].labels, groups, headline, limit, shared).model_copy(
            update={"versus": measured.versus({s: f[key] for s, f in found.items() if key in f}, own[1].labels, groups)}
        )
        for subject, collected in found.items()
        for key, measured in collected.items()
    ]
    predicted: dict[str, np.ndarray] = {}
    for measured in found["encoder"].values():
        answers = measured.outcomes[0].predicted
        if answers is not None and answers.ndim == 1:
            predicted.setdefault(measured.protocol.name, answers)
    return Evaluation(tuple(rows), *own, train, test, encoder, predicted)


@dataclass
class _Measured:
    """What one protocol found on one subject, once per initialisation."""

    protocol: Protocol
    outcomes: list[Outcome]
    seconds: float = 0.0

    def row(
        self,
        subject: str,
        labels: np.ndarray,
        groups: np.ndarray | None,
        headline: str | None,
        limit: int | None,
        shared: dict[str, Any],
    ) -> Result:
        """The row of a table; means over initialisations where there are several."""
        first, seed = self.outcomes[0], self.protocol.seed
        metrics, spreads = measured(first, labels, seed), {}
        if len(self.outcomes) > 1:
            scores = scores_of(self.outcomes, labels)
            metrics = {
                name: pooled(scores[name], _fitting(groups, scores[name]), seed)
                if name in scores
                else _spanned([measured(each, labels, seed)[name] for each in self.outcomes])
                for name in metrics
            }
            spreads = {
                name: spread(scores[name])
                if name in scores
                else tuple(measured(each, labels, seed)[name].value for each in self.outcomes)
                for name in metrics
            }
        chosen = {key: [each.chosen.get(key) for each in self.outcomes] for key in first.chosen}
        return Result(
            protocol=self.protocol.name,
            subject=subject,
            metrics=metrics,
            spread=spreads,
            headline=(self.protocol.headline or headline) if headline else None,
            settings=first.settings | self.protocol.recorded() | {"limit": limit},
            chosen={key: each[0] if each.count(each[0]) == len(each) else each for key, each in chosen.items()},
            warnings=tuple(dict.fromkeys(warning for each in self.outcomes for warning in each.warnings)),
            seconds=round(self.seconds, 2),
            **shared,
        )

    def versus(self, others: dict[str, _Measured], labels: np.ndarray, groups: np.ndarray | None) -> tuple[Versus, ...]:
        """Paired differences with every other subject, for each metric that is a mean over test samples."""
        own = scores_of(self.outcomes, labels)
        return tuple(
            difference(scores, theirs[name], subject, name, _fitting(groups, scores), self.protocol.seed)
            for subject, other in others.items()
            if other is not self
            for theirs in [scores_of(other.outcomes, labels)]
            for name, scores in own.items()
        )


def _fitting(groups: np.ndarray | None, scores: Scores) -> np.ndarray | None:
    """The groups, where the metric is over the test samples; some protocols judge other samples."""
    return groups if groups is not None and scores.values.shape[-1] == len(groups) else None


def _spanned(metrics: Sequence[Metric]) -> Metric:
    """The mean of values whose error has no samples to draw, with brackets that span all of theirs."""
    value = float(np.mean([metric.value for metric in metrics]))
    return Metric(value=value, low=min(m.low for m in metrics), high=max(m.high for m in metrics))


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
    labels = class_indices(dataset.labels, f"{dataset.name}/{dataset.split}")
    if subject == "raw":
        return Features(floor_features.raw(network, dataset), labels, dataset, groups=groups_of(dataset))
    advance = None
    if progress is not None:

        def advance(done: int, total: int) -> None:
            progress(f"{subject}: features of {dataset.split}", done, total)

    if keep:
        folder = None if keep is True else keep
        found = cached_features(network, dataset, **forward, folder=folder, progress=advance)
    else:
        found = embed(network, dataset, **forward, progress=advance)
    return Features(found, labels, dataset, network, groups_of(dataset))


def _record(dataset: Dataset) -> DataRecord:
    return DataRecord(name=dataset.name, split=dataset.split, fingerprint=dataset.fingerprint, samples=len(dataset))
