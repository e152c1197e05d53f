"""What a set of results says: which rows may be compared, and whether the encoder beats its floors."""

from __future__ import annotations

import json
from collections.abc import Sequence

from evaluation.protocols import protocol_title
from zoo.checkpoint.results import Metric, Result, setting_text

#: Above this many comparisons the verdict counts them instead of naming each.
NAMED = 3
_ORDER = {"encoder": 0, "untrained": 1, "raw": 2}


def groups(rows: Sequence[Result]) -> list[list[Result]]:
    """Rows that may be compared: same protocol, settings, data and seed. The encoder stands first, floors follow."""
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


def verdict(rows: Sequence[Result]) -> str:
    """One sentence: does the encoder beat the better of its floors under each protocol, and is that certain?

    Where two 95 % intervals overlap it claims no difference.
    """
    found = [group for group in groups(rows) if group[0].subject == "encoder" and "top1" in group[0].metrics]
    if not found:
        return "No encoder was measured."
    if len(found) > NAMED:
        return _counted(found)
    if all(_outcome(group) == "above" for group in found):
        gains = [f"{_under(group, rows)} by {_points(group)} ({subject_title(_floor(group))})" for group in found]
        return f"The encoder beats the better floor {_and(gains)}; intervals do not overlap."
    return f"The encoder {'; it '.join(_clause(group, rows) for group in found)}."


def _clause(group: Sequence[Result], rows: Sequence[Result]) -> str:
    under, outcome = _under(group, rows), _outcome(group)
    own = group[0].metrics["top1"]
    if outcome == "alone":
        return f"reaches {own.value * 100:.1f} % {under}, with no floor measured beside it"
    floor, points = _floor(group), _points(group)
    against = f"the better floor ({subject_title(floor)}) {under}"
    if outcome == "above":
        return f"beats {against} by {points} (intervals do not overlap)"
    if outcome == "below":
        return f"is worse than {against} by {points} (intervals do not overlap)"
    difference = own.value - floor.metrics["top1"].value
    if round(abs(difference) * 100, 1) == 0:
        return f"scores the same as {against}"
    way = "above" if difference > 0 else "below"
    return f"is not clearly different from {against}: {points} {way} it, and the intervals overlap"


def _counted(found: Sequence[Sequence[Result]]) -> str:
    outcomes = [_outcome(group) for group in found]
    text = (
        f"In {len(found)} comparisons the encoder beats the better floor {_times(outcomes.count('above'))} "
        f"(intervals do not overlap), is not clearly different {_times(outcomes.count('overlap'))} "
        f"and is worse {_times(outcomes.count('below'))}"
    )
    alone = outcomes.count("alone")
    return text + (f"; {_times(alone)} no floor was measured beside it." if alone else ".")


def _outcome(group: Sequence[Result]) -> str:
    floor = _floor(group)
    if floor is None:
        return "alone"
    own, other = group[0].metrics["top1"], floor.metrics["top1"]
    return _comparison(own, other)


def _comparison(own: Metric, other: Metric) -> str:
    if own.low > other.high:
        return "above"
    return "below" if own.high < other.low else "overlap"


def _floor(group: Sequence[Result]) -> Result | None:
    """The better floor of a group; None without floors."""
    floors = [row for row in group if row.subject != "encoder" and "top1" in row.metrics]
    return max(floors, key=lambda row: row.metrics["top1"].value, default=None)


def _points(group: Sequence[Result]) -> str:
    difference = group[0].metrics["top1"].value - _floor(group).metrics["top1"].value
    return f"{abs(difference) * 100:.1f} points"


def _under(group: Sequence[Result], rows: Sequence[Result]) -> str:
    particulars = _particulars(group[0], rows)
    return f"under {protocol_title(group[0].protocol)}" + (f" ({', '.join(particulars)})" if particulars else "")


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
