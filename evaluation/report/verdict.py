"""What a set of results says: which rows may be compared, and whether the encoder beats its baselines."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from evaluation.paired import holm
from evaluation.protocols import protocol_title
from zoo.checkpoint.numbers import percent, points
from zoo.checkpoint.results import Metric, Result, Versus, setting_text

#: Above this many comparisons the verdict counts them instead of naming each.
NAMED = 3
#: A difference is said to be one below this p-value, after correction for all comparisons of a page.
LEVEL = 0.05
_ORDER = {"encoder": 0, "untrained": 1, "raw": 2}


@dataclass(frozen=True)
class Judgement:
    """How the encoder stands against the better of its baselines under one protocol.

    Attributes:
        outcome: `"above"`, `"below"`, `"same"` (not distinguishable), or `"alone"` where no baseline was measured.
        row: the encoder's. baseline: the better baseline's; None without one.
        metric: what was compared.
        versus: the paired difference; None for results that were stored without one.
        p: of the difference, corrected for all comparisons.
    """

    outcome: Literal["above", "below", "same", "alone"]
    row: Result
    metric: str
    baseline: Result | None = None
    versus: Versus | None = None
    p: float | None = None


def groups(rows: Sequence[Result]) -> list[list[Result]]:
    """Rows that may be compared: same protocol, settings, data and seed. The encoder stands first, baselines follow."""
    found: dict[str, list[Result]] = {}
    for row in rows:
        key = [row.protocol, row.settings, row.train.model_dump(), row.test.model_dump(), row.seed]
        found.setdefault(json.dumps(key, sort_keys=True, default=str), []).append(row)
    return [sorted(group, key=lambda row: _ORDER[row.subject]) for group in found.values()]


def group_title(group: Sequence[Result], rows: Sequence[Result]) -> str:
    """The protocol, and whatever of data, settings and seed tells this group from the others in `rows`."""
    return ", ".join([group[0].protocol, *_particulars(group[0], rows)])


def subject_title(row: Result, encoder_name: str = "") -> str:
    """What was measured, in words."""
    if row.subject == "encoder":
        return f"encoder {encoder_name}".rstrip()
    return (
        "untrained encoder"
        if row.subject == "untrained"
        else {"image": "raw pixels", "skeleton": "raw joints"}[row.modality]
    )


def headline_of(row: Result) -> str:
    """The metric that a comparison is about: the field's for the dataset, else top-1, else the first."""
    return row.headline or ("top1" if "top1" in row.metrics else next(iter(row.metrics)))


def judged(rows: Sequence[Result], family: Sequence[Result] | None = None) -> list[Judgement]:
    """One judgement per protocol, data set and setting that the encoder was measured under.

    Args:
        family: all results that stand on the same page; their comparisons are corrected together. Default `rows`.
    """
    compared = [(row, versus) for row in (rows if family is None else family) for versus in _headline_versus(row)]
    adjusted = holm([versus.p for _, versus in compared])
    corrected = {(id(row), versus.other): p for (row, versus), p in zip(compared, adjusted, strict=True)}
    found = []
    for group in groups(rows):
        row = group[0]
        if row.subject != "encoder":
            continue
        metric = headline_of(row)
        baselines = [other for other in group[1:] if metric in other.metrics]
        better = max(baselines, key=lambda other: other.metrics[metric].value, default=None)
        if better is None:
            found.append(Judgement("alone", row, metric))
            continue
        versus = next((each for each in _headline_versus(row) if each.other == better.subject), None)
        p = None if versus is None else corrected.get((id(row), versus.other), versus.p)
        outcome = _paired(versus, p) if versus else _apart(row.metrics[metric], better.metrics[metric])
        found.append(Judgement(outcome, row, metric, better, versus, p))
    return found


def verdict(rows: Sequence[Result]) -> str:
    """One sentence or two: does the encoder beat the better of its baselines under each protocol, and is that certain?

    A difference is one of paired results on the same test samples, corrected (Holm) for all comparisons with baselines
    in `rows`. Results stored without paired differences are called different only where their intervals are apart.
    """
    found = [each for each in judged(rows) if each.metric == headline_of(each.row)]
    if not found:
        return "No encoder was measured."
    if len(found) > NAMED:
        return f"{counted(found)} {how(found, rows)}".strip()
    if all(each.outcome == "above" for each in found):
        gains = [f"{_under(each.row, rows)} by {gap(each)} ({subject_title(each.baseline)})" for each in found]
        return f"The encoder beats the better baseline {_and(gains)}. {how(found, rows)}".strip()
    return f"The encoder {'; it '.join(_clause(each, rows) for each in found)}. {how(found, rows)}".strip()


def counted(found: Sequence[Judgement]) -> str:
    """One sentence that counts outcomes."""
    outcomes = [each.outcome for each in found]
    text = (
        f"In {len(found)} comparisons the encoder beats the better baseline {_times(outcomes.count('above'))}, "
        f"is not distinguishable from it {_times(outcomes.count('same'))} and is worse "
        f"{_times(outcomes.count('below'))}"
    )
    alone = outcomes.count("alone")
    return text + (f"; {_times(alone)} no baseline was measured beside it." if alone else ".")


def how(found: Sequence[Judgement], rows: Sequence[Result]) -> str:
    """What the comparisons rest on: paired or not, corrected or not, groups, initialisations."""
    if all(each.versus is None for each in found):
        unpaired = any(each.outcome != "alone" for each in found)
        return "Not compared in pairs: measure again to store paired differences." if unpaired else ""
    comparisons = sum(len(_headline_versus(row)) for row in rows)
    parts = ["In brackets: 95 % intervals of the difference on the same test samples"]
    drawn = {each.versus.groups for each in found if each.versus and each.versus.groups}
    if drawn:
        parts.append(f"drawn in whole groups such as persons ({', '.join(map(str, sorted(drawn)))})")
    initialisations = {len(next(iter(row.spread.values()))) for row in rows if row.spread}
    if initialisations:
        parts.append(
            f"the untrained encoder is the mean of {', '.join(map(str, sorted(initialisations)))} initialisations"
        )
    if comparisons > 1:
        parts.append(f"p below {LEVEL:g} after Holm's correction for {comparisons} comparisons")
    return "; ".join(parts) + "."


def gap(each: Judgement) -> str:
    """The difference without its sign: `"4.7 points [1.6, 7.9]"`; without an interval where none is stored."""
    assert each.baseline is not None
    if each.versus is None:
        difference = each.row.metrics[each.metric].value - each.baseline.metrics[each.metric].value
        return f"{percent(abs(difference))} points"
    value, low, high = each.versus.value, each.versus.low, each.versus.high
    if value < 0:
        value, low, high = -value, -high, -low
    return f"{percent(value)} points [{percent(low)}, {percent(high)}]"


def versus_text(versus: Versus | None) -> str:
    """`"+31.2 [+30.1, +32.3]"` in points; a dash for None."""
    return "–" if versus is None else f"{points(versus.value)} [{points(versus.low)}, {points(versus.high)}]"


def versus_of(group: Sequence[Result], row: Result) -> Versus | None:
    """The encoder's paired difference with a baseline row of its group, in the headline metric."""
    return next((each for each in _headline_versus(group[0]) if each.other == row.subject), None)


def _headline_versus(row: Result) -> list[Versus]:
    return [] if not row.versus else [each for each in row.versus if each.metric == headline_of(row)]


def _paired(versus: Versus, p: float | None) -> Literal["above", "below", "same"]:
    certain = p is not None and p < LEVEL
    if certain and versus.low > 0:
        return "above"
    return "below" if certain and versus.high < 0 else "same"


def _apart(own: Metric, other: Metric) -> Literal["above", "below", "same"]:
    if own.low > other.high:
        return "above"
    return "below" if own.high < other.low else "same"


def _clause(each: Judgement, rows: Sequence[Result]) -> str:
    under, own = _under(each.row, rows), each.row.metrics[each.metric]
    if each.baseline is None:
        return f"reaches {percent(own.value)} % {under}, with no baseline measured beside it"
    against = f"the better baseline ({subject_title(each.baseline)}) {under}"
    if each.outcome == "above":
        return f"beats {against} by {gap(each)}"
    if each.outcome == "below":
        return f"is worse than {against} by {gap(each)}"
    if each.versus is None:
        difference = points(own.value - each.baseline.metrics[each.metric].value)
        return f"is not distinguishable from {against} ({difference} points, intervals overlap)"
    corrected = each.versus.low > 0 or each.versus.high < 0
    after = ", but not after correction for all comparisons" if corrected else ""
    return f"is not distinguishable from {against}: {versus_text(each.versus)} points{after}"


def _under(row: Result, rows: Sequence[Result]) -> str:
    particulars = _particulars(row, rows)
    return f"under {protocol_title(row.protocol)}" + (f" ({', '.join(particulars)})" if particulars else "")


def _particulars(row: Result, rows: Sequence[Result]) -> list[str]:
    parts = []
    if len({(other.train.fingerprint, other.test.fingerprint) for other in rows}) > 1:
        train, test = (f"{record.name} {record.split}" for record in (row.train, row.test))
        parts.append(f"{train} → {row.test.split if row.train.name == row.test.name else test}")
    same = [other.settings for other in rows if other.protocol == row.protocol]
    for name, value in row.settings.items():
        if any(settings.get(name) != value for settings in same):
            parts.append(f"{name} {setting_text(value)}")
    if len({other.seed for other in rows}) > 1:
        parts.append(f"seed {row.seed}")
    return parts


def _and(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
