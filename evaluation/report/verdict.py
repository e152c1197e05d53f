"""What a set of results says: which rows may be compared, and whether the encoder beats its baselines."""

from __future__ import annotations

from collections.abc import Sequence

from evaluation.protocols import protocol_title
from zoo.checkpoint.judging import (
    LEVEL,
    Judgement,
    headline_of,
    headline_versus,
    judged,
    subject_title,
    versus_text,
)
from zoo.checkpoint.numbers import percent, points
from zoo.checkpoint.results import Result, Versus, setting_text

#: Above this many comparisons the verdict counts them instead of naming each.
NAMED = 3


def group_title(group: Sequence[Result], rows: Sequence[Result]) -> str:
    """The protocol, and whatever of data, settings and seed tells this group from the others in `rows`."""
    return ", ".join([group[0].protocol, *_particulars(group[0], rows)])


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
    comparisons = sum(len(headline_versus(row)) for row in rows)
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


def versus_of(group: Sequence[Result], row: Result) -> Versus | None:
    """The encoder's paired difference with a baseline row of its group, in the headline metric."""
    return next((each for each in headline_versus(group[0]) if each.other == row.subject), None)


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
