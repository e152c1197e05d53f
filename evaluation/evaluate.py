"""`evaluate`: one encoder, one dataset, any protocols, beside baselines, with intervals."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from evaluation import floors as floor_features
from evaluation.frozen import Features, cached_features, groups_of
from evaluation.measured import Measured, collect, predictions, table_rows
from evaluation.protocols import PROTOCOLS, protocol
from evaluation.protocols.base import Progress, Protocol
from zoo.checkpoint.results import DataRecord, Result
from zoo.data.base import Dataset
from zoo.data.joined import Joined
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
    raw_results: dict[str, dict[str, Measured]] | None = None,
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
        seed: the seed of all random choices.
        precision, device, batch_size, workers: of the forward pass, see `zoo.extract`.
        keep: read features from, and leave them in, a folder (True: $ZOO_CACHE/features), mapped into memory.
        command: what a person types to repeat the numbers; stored with them.
        progress: called as `progress(what, done, total)`.
        raw_results: a dictionary that evaluations of several encoders share, so that the raw input, which is the same
            for all that take pictures of one size, is probed once.

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
    # Said before the features are computed, not after.
    if train.labels is not None and len(np.unique(train.labels)) < 2:
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
    found: dict[str, dict[str, Measured]] = {}
    for subject in ("encoder", "untrained", "raw") if floors else ("encoder",):
        shares = subject == "raw" and raw_results is not None
        key = _raw_key(encoder, (train, test, validation), chosen, seed) if shares else ""
        if shares and key in raw_results:
            found[subject] = raw_results[key]
            continue
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
                collect(each, parts, held, collected)
        if shares:
            raw_results[key] = collected
    assert own is not None
    shared = {
        "modality": train.modality,
        "train": _record(train),
        "test": _record(test),
        "classes": len(np.unique(train.labels)),
        "command": command,
    }
    rows = table_rows(found, own[1], headline, limit, shared)
    return Evaluation(tuple(rows), *own, train, test, encoder, predictions(found["encoder"]))


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


def _raw_key(encoder: Encoder, datasets: Sequence[Dataset | None], protocols: Sequence[Protocol], seed: int) -> str:
    """Tells what a probe of the raw input depends on: pictures are taken in 0..1, whatever they are normalised by."""
    prepared = encoder.input.model_dump(mode="json", exclude={"mean", "std"})
    parts = [[each.fingerprint, len(each)] if each is not None else None for each in datasets]
    return json.dumps([prepared, parts, [[each.name, each.recorded()] for each in protocols], seed], default=str)


def _record(dataset: Dataset) -> DataRecord:
    return DataRecord(name=dataset.name, split=dataset.split, fingerprint=dataset.fingerprint, samples=len(dataset))
