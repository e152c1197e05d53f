"""Several encoders beside each other on the same test samples: which is the best, and is that certain?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from evaluation.compare import linear_cka, neighbour_overlap, paired_difference
from evaluation.evaluate import Evaluation
from evaluation.metrics import mean_with_interval
from zoo.checkpoint.judging import LEVEL, headline_of, holm, setting_key
from zoo.checkpoint.results import Metric, Result, Versus
from zoo.errors import DataError

#: Nearest neighbours whose overlap is compared, and test samples that similarities are taken from at most.
NEIGHBOURS, ALIKE_SAMPLES = 10, 5000


@dataclass(frozen=True)
class Placed:
    """One encoder under one protocol.

    Attributes:
        encoder: as the caller named it. row: its result. metric: what encoders are ordered by.
        untrained: the same network with random weights, None where that was not measured.
        versus: this encoder minus the best one, paired over test samples; None for the best, and where a protocol gives
            no numbers per sample. p: its p-value, corrected for all comparisons of the table.
        outcome: `"best"`, `"worse"`, `"same"` (not distinguishable from the best), or `"unknown"`.
    """

    encoder: str
    row: Result
    metric: str
    untrained: Metric | None
    versus: Versus | None
    p: float | None
    outcome: Literal["best", "worse", "same", "unknown"]


@dataclass(frozen=True)
class Pair:
    """How alike two encoders see the test samples: linear CKA, and the share of neighbours that they have in common."""

    first: str
    second: str
    cka: float | None
    overlap: Metric


def placed(found: dict[str, Evaluation], seed: int = 0) -> list[list[Placed]]:
    """One list per protocol and setting, the best encoder first.

    Args:
        found: evaluations on one dataset, by the name of the encoder.
        seed: of the bootstrap.

    Raises:
        DataError: fewer than two encoders, or other test samples.
    """
    return _corrected(_tables(found, seed))


def placed_over(datasets: dict[str, dict[str, Evaluation]], seed: int = 0) -> dict[str, list[list[Placed]]]:
    """`placed` for several datasets, with the p-values of all comparisons corrected together."""
    tables = {name: _tables(found, seed) for name, found in datasets.items()}
    corrected = iter(_corrected([table for each in tables.values() for table in each]))
    return {name: [next(corrected) for _ in each] for name, each in tables.items()}


def pairs(found: dict[str, Evaluation]) -> list[Pair]:
    """How alike each two encoders see the first test samples, spread over the split, by the features at hand."""
    samples = len(next(iter(found.values())).test.labels)
    rows = slice(None, None, -(-samples // ALIKE_SAMPLES))
    features = {name: each.test.features[rows] for name, each in found.items()}
    return [_pair(one, other, features) for one, other in combinations(features, 2)]


def _pair(one: str, other: str, features: dict) -> Pair:
    try:
        cka = linear_cka(features[one], features[other])
    except DataError:  # features that do not vary are like nothing
        cka = None
    k = min(NEIGHBOURS, len(features[one]) - 1)
    return Pair(one, other, cka, mean_with_interval(neighbour_overlap(features[one], features[other], k)))


def _tables(found: dict[str, Evaluation], seed: int) -> list[list[Placed]]:
    if len(found) < 2:
        raise DataError(f"a comparison needs at least two encoders, got {len(found)}")
    names = list(found)
    settings: dict[str, dict[str, Result]] = {}
    for name, each in found.items():
        for row in each.rows:
            if row.subject == "encoder":
                settings.setdefault(setting_key(row), {})[name] = row
    return [_table({name: rows[name] for name in names if name in rows}, found, seed) for rows in settings.values()]


def _table(rows: dict[str, Result], found: dict[str, Evaluation], seed: int) -> list[Placed]:
    metric = headline_of(next(iter(rows.values())))
    order = sorted(rows, key=lambda name: -rows[name].metrics[metric].value)
    best, table = order[0], []
    for name in order:
        versus = None if name == best else _versus(found[name], found[best], rows[name].protocol, metric, seed)
        untrained = next(
            (r.metrics.get(metric) for r in found[name].rows
             if r.subject == "untrained" and setting_key(r) == setting_key(rows[name])), None,
        )  # fmt: skip
        outcome = "best" if name == best else "unknown"
        table.append(Placed(name, rows[name], metric, untrained, versus, None, outcome))
    return table


def _versus(own: Evaluation, best: Evaluation, protocol: str, metric: str, seed: int) -> Versus | None:
    if protocol not in own.predicted or protocol not in best.predicted:
        return None
    # Predictions are kept by protocol: with several amounts of labels nobody knows whose they are.
    if sum(row.protocol == protocol and row.subject == "encoder" for row in own.rows) > 1:
        return None
    found = paired_difference(own, best, seed)[protocol]
    return next((each for each in found if each.metric == metric), None)


def _corrected(tables: list[list[Placed]]) -> list[list[Placed]]:
    compared = [each for table in tables for each in table if each.versus is not None]
    adjusted = dict(zip(map(id, compared), holm([each.versus.p for each in compared]), strict=True))

    def judged(each: Placed) -> Placed:
        p = adjusted.get(id(each))
        outcome = each.outcome if p is None else "worse" if p < LEVEL else "same"
        return Placed(each.encoder, each.row, each.metric, each.untrained, each.versus, p, outcome)

    return [[judged(each) for each in table] for table in tables]


def sentence(tables: Sequence[Sequence[Placed]]) -> str:
    """What the tables say, in one or two sentences."""
    said = []
    for table in tables:
        best, rest = table[0], table[1:]
        same = [each.encoder for each in rest if each.outcome == "same"]
        if all(each.outcome == "unknown" for each in rest):
            said.append(f"{best.row.protocol}: {best.encoder} has the highest number; its lead was not tested.")
        elif same:
            said.append(
                f"{best.row.protocol}: {best.encoder} has the highest number, not distinguishable from "
                f"{' and '.join(same)}."
            )
        else:
            said.append(f"{best.row.protocol}: {best.encoder} beats {'the other' if len(rest) == 1 else 'all others'}.")
    return " ".join(said)
