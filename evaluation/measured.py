"""From what protocols find on each subject to the rows of a table, with spreads and paired differences."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from evaluation.frozen import Features, Outcome
from evaluation.metrics import with_intervals
from evaluation.paired import Scores, difference, pooled, scores_of, spread
from evaluation.protocols.base import Protocol
from zoo.checkpoint.results import Metric, Result, Versus

#: What a reader must know where groups are known but the test split holds one.
ONE_GROUP = "all test samples belong to one group (such as a person): intervals say nothing of other groups"


@dataclass
class Measured:
    """What one protocol found on one subject: an outcome for each initialisation of the network."""

    protocol: Protocol
    outcomes: list[Outcome]
    seconds: float = 0.0


def collect(protocol: Protocol, parts: Sequence[Features], held: np.ndarray | None, into: dict[str, Measured]) -> None:
    """Run a protocol on the training and the test part, and add its outcomes to those of earlier initialisations.

    Args:
        into: name and variant -> what was measured; added to.
    """
    train, test = parts
    started = time.perf_counter()
    for outcome in protocol.outcomes(train, test, held):
        key = json.dumps([protocol.name, outcome.settings])
        measured = into.setdefault(key, Measured(protocol, []))
        measured.outcomes.append(outcome)
        measured.seconds += time.perf_counter() - started
        started = time.perf_counter()


def table_rows(
    found: dict[str, dict[str, Measured]],
    test: Features,
    headline: str | None,
    limit: int | None,
    shared: dict[str, Any],
) -> list[Result]:
    """One row per subject, protocol and variant; the encoder's carries its paired differences with the others.

    Args:
        found: subject -> what `collect` gathered.
        test: the test split, for its labels and groups.
        headline: the metric of the field where something is classified; None outside suites.
        limit: stored among the settings. shared: fields that all rows have.
    """
    rows, notes = [], ()
    if test.groups is not None and len(np.unique(test.groups)) < 2:
        # One group has no spread to measure; the samples' own is all there is.
        test, notes = replace(test, groups=None), (ONE_GROUP,)
    for subject, collected in found.items():
        for key, measured in collected.items():
            others = {name: each[key] for name, each in found.items() if name != subject and key in each}
            rows.append(
                Result(
                    protocol=measured.protocol.name,
                    subject=subject,
                    versus=_versus(measured, others, test) if subject == "encoder" else (),
                    headline=(measured.protocol.headline or headline) if headline else None,
                    settings=measured.outcomes[0].settings | measured.protocol.recorded() | {"limit": limit},
                    chosen=_chosen(measured.outcomes),
                    seed=measured.protocol.seed,
                    warnings=(*dict.fromkeys(w for outcome in measured.outcomes for w in outcome.warnings), *notes),
                    seconds=round(measured.seconds, 2),
                    **_numbers(measured, test),
                    **shared,
                )
            )
    return rows


def predictions(collected: dict[str, Measured]) -> dict[str, np.ndarray]:
    """Versioned protocol name -> predictions `(N,)` on the test split, of the protocol's first variant."""
    found: dict[str, np.ndarray] = {}
    for measured in collected.values():
        predicted = measured.outcomes[0].predicted
        if predicted is not None and predicted.ndim == 1:
            found.setdefault(measured.protocol.name, predicted)
    return found


def _numbers(measured: Measured, test: Features) -> dict[str, Any]:
    """Metrics, as means over initialisations where there are several, and then each initialisation's value."""
    seed = measured.protocol.seed
    each = [_metrics(outcome, test.labels, seed) for outcome in measured.outcomes]
    if len(each) == 1:
        return {"metrics": each[0]}
    scores = scores_of(measured.outcomes, test.labels)
    metrics, spreads = {}, {}
    for name in each[0]:
        if name in scores:
            metrics[name] = pooled(scores[name], _fitting(test.groups, scores[name]), seed)
            spreads[name] = spread(scores[name])
        else:
            metrics[name] = _spanned([values[name] for values in each])
            spreads[name] = tuple(values[name].value for values in each)
    return {"metrics": metrics, "spread": spreads}


def _versus(measured: Measured, others: dict[str, Measured], test: Features) -> tuple[Versus, ...]:
    """Paired differences with every other subject, for each metric that is a mean over samples."""
    own, found = scores_of(measured.outcomes, test.labels), []
    for subject, other in others.items():
        theirs = scores_of(other.outcomes, test.labels)
        for name, scores in own.items():
            groups = _fitting(test.groups, scores)
            found.append(difference(scores, theirs[name], subject, name, groups, measured.protocol.seed))
    return tuple(found)


def _metrics(outcome: Outcome, labels: np.ndarray, seed: int) -> dict[str, Metric]:
    """All metrics of an outcome; both accuracies where something was classified."""
    own = {} if outcome.predicted is None else with_intervals(labels, outcome.predicted, seed)
    return own | outcome.metrics


def _chosen(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """What was chosen; a list where initialisations chose differently."""
    found = {key: [outcome.chosen.get(key) for outcome in outcomes] for key in outcomes[0].chosen}
    return {key: each[0] if each.count(each[0]) == len(each) else each for key, each in found.items()}


def _fitting(groups: np.ndarray | None, scores: Scores) -> np.ndarray | None:
    """The groups, where the metric is over the test samples; some protocols judge something else."""
    return groups if scores.of_test_samples else None


def _spanned(metrics: Sequence[Metric]) -> Metric:
    """The mean of values whose error has no samples to draw, with brackets that span all of theirs."""
    value = float(np.mean([metric.value for metric in metrics]))
    return Metric(value=value, low=min(m.low for m in metrics), high=max(m.high for m in metrics))
