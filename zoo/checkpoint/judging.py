"""What stored results say: which rows may be compared, and whether an encoder beats its baselines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from zoo.checkpoint.numbers import points
from zoo.checkpoint.results import Metric, Result, Versus

#: A difference is said to be one below this p-value, after correction for all comparisons that stand together.
LEVEL = 0.05
_ORDER = {"encoder": 0, "untrained": 1, "raw": 2}


@dataclass(frozen=True)
class Judgement:
    """How the encoder stands against the better of its baselines under one protocol.

    Attributes:
        outcome: `"above"`, `"below"`, `"same"` (not distinguishable), or `"alone"` where no baseline was measured.
        row: the encoder's. metric: what was compared.
        baselines: subject -> the row of a baseline in which the metric was measured.
        baseline: the better one; None without any.
        versus: the paired difference with it; None for results that were stored without one.
        p: of the difference, corrected for all comparisons.
    """

    outcome: Literal["above", "below", "same", "alone"]
    row: Result
    metric: str
    baselines: dict[str, Result]
    baseline: Result | None = None
    versus: Versus | None = None
    p: float | None = None


def groups(rows: Sequence[Result]) -> list[list[Result]]:
    """Rows that may be compared: same protocol, settings, data and seed. The encoder stands first, baselines follow."""
    found: dict[str, list[Result]] = {}
    for row in rows:
        found.setdefault(setting_key(row), []).append(row)
    return [sorted(group, key=lambda row: _ORDER[row.subject]) for group in found.values()]


def setting_key(row: Result) -> str:
    """Equal for rows that may be compared: everything but what was measured, and what it gave."""
    key = [row.protocol, row.settings, row.train.model_dump(), row.test.model_dump(), row.seed]
    return json.dumps(key, sort_keys=True, default=str)


def subject_title(row: Result, encoder_name: str = "") -> str:
    """What was measured, in words."""
    if row.subject == "encoder":
        return f"encoder {encoder_name}".rstrip()
    raw = {"image": "raw pixels", "skeleton": "raw joints"}[row.modality]
    return "untrained encoder" if row.subject == "untrained" else raw


def headline_of(row: Result) -> str:
    """The metric that a comparison is about: the field's for the dataset, else top-1, the mAP, or the first."""
    if row.headline:
        return row.headline
    return next((name for name in ("top1", "map") if name in row.metrics), next(iter(row.metrics)))


def headline_versus(row: Result) -> list[Versus]:
    """The paired differences of an encoder's row in its headline metric."""
    return [each for each in row.versus if each.metric == headline_of(row)] if row.versus else []


def judged(rows: Sequence[Result], family: Sequence[Result] | None = None) -> list[Judgement]:
    """One judgement per protocol, data set and setting that the encoder was measured under.

    Args:
        family: all results that stand together; their comparisons are corrected together (Holm). Default `rows`.
    """
    compared = [(row, each) for row in (rows if family is None else family) for each in headline_versus(row)]
    adjusted = holm([each.p for _, each in compared])
    corrected = {(id(row), each.other): p for (row, each), p in zip(compared, adjusted, strict=True)}
    found = []
    for row, *others in groups(rows):
        if row.subject != "encoder":
            continue
        metric = headline_of(row)
        baselines = {other.subject: other for other in others if metric in other.metrics}
        better = max(baselines.values(), key=lambda other: other.metrics[metric].value, default=None)
        if better is None:
            found.append(Judgement("alone", row, metric, baselines))
            continue
        versus = next((each for each in headline_versus(row) if each.other == better.subject), None)
        p = None if versus is None else corrected.get((id(row), versus.other), versus.p)
        outcome = _paired(versus, p) if versus else _apart(row.metrics[metric], better.metrics[metric])
        found.append(Judgement(outcome, row, metric, baselines, better, versus, p))
    return found


def versus_text(versus: Versus | None) -> str:
    """`"+31.2 [+30.1, +32.3]"` in points; a dash for None."""
    return "–" if versus is None else f"{points(versus.value)} [{points(versus.low)}, {points(versus.high)}]"


def holm(p: Sequence[float]) -> list[float]:
    """P-values corrected for several comparisons (Holm 1979), in the order given."""
    adjusted, largest = [0.0] * len(p), 0.0
    for rank, index in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        largest = max(largest, min(1.0, (len(p) - rank) * p[index]))
        adjusted[index] = largest
    return adjusted


def _paired(versus: Versus, p: float | None) -> Literal["above", "below", "same"]:
    certain = p is not None and p < LEVEL
    if certain and versus.low > 0:
        return "above"
    return "below" if certain and versus.high < 0 else "same"


def _apart(own: Metric, other: Metric) -> Literal["above", "below", "same"]:
    if own.low > other.high:
        return "above"
    return "below" if own.high < other.low else "same"
