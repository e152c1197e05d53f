"""Tables of results, and one self-contained HTML page that says what they mean."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.results import DataRecord, Metric, Result

if TYPE_CHECKING:
    from rich.table import Table

    from evaluation.figures import Figure

TEMPLATES = Path(__file__).parent / "templates"
#: First part of a protocol's name -> how a sentence says it.
TITLES = {"logreg": "logistic regression", "knn": "weighted kNN"}
#: Shown beside a number nowhere but in the CSV file: not settings, only how the choice went.
NOT_SETTINGS = ("iterations", "converged", "held_out_top1")
#: Above this many comparisons the verdict counts them instead of naming each.
NAMED = 3
HEADERS = ("protocol", "subject", "top-1 %", "mean per class %", "chosen", "train / test")
_ORDER = {"encoder": 0, "untrained": 1, "raw": 2}
_SUPERSCRIPT = str.maketrans("0123456789,", "⁰¹²³⁴⁵⁶⁷⁸⁹˒")


@dataclass(frozen=True)
class Line:
    """One row of a table, ready to print."""

    protocol: str
    subject: str
    top1: str
    mean_per_class: str
    chosen: str
    samples: str
    marks: str
    is_floor: bool

    def cells(self) -> tuple[str, ...]:
        """In the order of `HEADERS`."""
        subject = self.subject + (f" {self.marks}" if self.marks else "")
        return self.protocol, subject, self.top1, self.mean_per_class, self.chosen, self.samples


def groups(rows: Sequence[Result]) -> list[list[Result]]:
    """Rows that may be compared: same protocol, settings, data and seed. The encoder stands first, floors follow."""
    found: dict[str, list[Result]] = {}
    for row in rows:
        key = [row.protocol, row.settings, row.train.model_dump(), row.test.model_dump(), row.seed]
        found.setdefault(json.dumps(key, sort_keys=True, default=str), []).append(row)
    return [sorted(group, key=lambda row: _ORDER[row.subject]) for group in found.values()]


def group_title(group: Sequence[Result], rows: Sequence[Result]) -> str:
    """Protocol, and of data and seed what tells this group from the others in `rows`."""
    first, parts = group[0], [group[0].protocol]
    if len({(row.train.fingerprint, row.test.fingerprint) for row in rows}) > 1:
        parts.append(_data_title(first))
    if len({row.seed for row in rows}) > 1:
        parts.append(f"seed {first.seed}")
    return ", ".join(parts)


def protocol_title(protocol: str) -> str:
    """`"logreg-v1"` -> `"logistic regression"`; an unknown protocol keeps its name."""
    return TITLES.get(re.sub(r"-v\d+$", "", protocol), protocol)


def subject_title(row: Result, encoder_name: str = "") -> str:
    """What was measured, in words."""
    if row.subject == "encoder":
        return f"encoder {encoder_name}".rstrip()
    if row.subject == "untrained":
        return "untrained encoder"
    return "raw pixels"


def verdict(rows: Sequence[Result]) -> str:
    """One sentence: is the encoder better than the better floor, under each protocol, and is that certain?

    Intervals that overlap are called so; nothing is claimed then.
    """
    found = [group for group in groups(rows) if group[0].subject == "encoder" and "top1" in group[0].metrics]
    if not found:
        return "No encoder was measured."
    if len(found) > NAMED:
        return _counted(found)
    sentence = "; ".join(_clause(group, rows) for group in found)
    return f"The encoder {sentence}."


def _clause(group: Sequence[Result], rows: Sequence[Result]) -> str:
    own = group[0].metrics["top1"]
    under = f"under {protocol_title(group[0].protocol)}"
    title = group_title(group, rows)
    if title != group[0].protocol:
        under += f" ({title.partition(', ')[2]})"
    floor = _better_floor(group)
    if floor is None:
        return f"reaches {_percent(own.value)} % {under}, but no floor was measured beside it"
    other = floor.metrics["top1"]
    points, name = f"{abs(own.value - other.value) * 100:.1f} points", subject_title(floor)
    match _comparison(own, other):
        case "above":
            return f"beats the better floor ({name}) by {points} {under} (intervals do not overlap)"
        case "below":
            return f"is WORSE than the better floor ({name}) by {points} {under} (intervals do not overlap)"
    if points.startswith("0.0 "):
        return f"scores the same as the better floor ({name}) {under}"
    way = "above" if own.value > other.value else "below"
    return (
        f"is not clearly different from the better floor ({name}) {under}: {points} {way} it, and the intervals overlap"
    )


def _counted(found: Sequence[Sequence[Result]]) -> str:
    counts = {"above": 0, "overlap": 0, "below": 0, "none": 0}
    for group in found:
        floor = _better_floor(group)
        counts["none" if floor is None else _comparison(group[0].metrics["top1"], floor.metrics["top1"])] += 1
    text = (
        f"In {len(found)} comparisons the encoder beats the better floor {counts['above']} times "
        f"(intervals do not overlap), is not clearly different {counts['overlap']} times, "
        f"and is worse {counts['below']} times"
    )
    return text + (f"; {counts['none']} have no floor beside them." if counts["none"] else ".")


def _better_floor(group: Sequence[Result]) -> Result | None:
    floors = [row for row in group if row.subject != "encoder" and "top1" in row.metrics]
    return max(floors, key=lambda row: row.metrics["top1"].value, default=None)


def _comparison(own: Metric, other: Metric) -> str:
    if own.low > other.high:
        return "above"
    return "below" if own.high < other.low else "overlap"


def lines(rows: Sequence[Result], encoder_name: str = "") -> tuple[list[list[Line]], list[str]]:
    """Table lines by group, and the footnotes that `Line.marks` count from 1."""
    notes: list[str] = []
    for row in rows:
        notes.extend(warning for warning in row.warnings if warning not in notes)

    def line(row: Result, title: str) -> Line:
        marks = ",".join(str(notes.index(warning) + 1) for warning in dict.fromkeys(row.warnings))
        return Line(
            protocol=title,
            subject=subject_title(row, encoder_name),
            top1=_interval(row.metrics.get("top1")),
            mean_per_class=_interval(row.metrics.get("mean_per_class")),
            chosen=", ".join(f"{k} = {_value(v)}" for k, v in row.chosen.items() if k not in NOT_SETTINGS) or "–",
            samples=f"{row.train.samples:,} / {row.test.samples:,}",
            marks=marks.translate(_SUPERSCRIPT),
            is_floor=row.subject != "encoder",
        )

    return [[line(row, group_title(group, rows)) for row in group] for group in groups(rows)], notes


def table(rows: Sequence[Result], encoder_name: str = "") -> Table:
    """A table for the terminal; warnings are its footnotes."""
    from rich.table import Table
    from rich.text import Text

    grouped, notes = lines(rows, encoder_name)
    caption = "95 % bootstrap intervals over test samples" + "".join(
        f"\n{str(i).translate(_SUPERSCRIPT)} {note}" for i, note in enumerate(notes, 1)
    )
    made = Table(caption=Text(caption), caption_justify="left")
    for header, justify in zip(HEADERS, ("left", "left", "right", "right", "left", "right"), strict=True):
        made.add_column(header, justify=justify)
    for group in grouped:
        for index, line in enumerate(group):
            cells = line.cells() if index == 0 else ("", *line.cells()[1:])
            # As Text: a name with [brackets] is not markup.
            style = "dim" if line.is_floor else "bold"
            made.add_row(*(Text(cell, style=style) for cell in cells), end_section=index == len(group) - 1)
    return made


def markdown(rows: Sequence[Result], encoder_name: str = "") -> str:
    """The table in GitHub's Markdown, footnotes below it."""
    grouped, notes = lines(rows, encoder_name)
    text = ["| " + " | ".join(HEADERS) + " |", "|---|---|---:|---:|---|---:|"]
    text += ["| " + " | ".join(_plain(cell) for cell in line.cells()) + " |" for group in grouped for line in group]
    text += [""] * bool(notes)
    text += [f"{str(i).translate(_SUPERSCRIPT)} {_plain(note)}  " for i, note in enumerate(notes, 1)]
    return "\n".join(text) + "\n"


def write_csv(path: str | Path, rows: Sequence[Result]) -> Path:
    """Every row with all its metrics, fractions of 1 in full precision, for other programs. Replaces `path` whole."""
    metrics = sorted({name for row in rows for name in row.metrics})
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow(
        ["protocol", "subject", "seed", "classes"]
        + [name + part for name in metrics for part in ("", "_low", "_high")]
        + ["chosen", "settings", "warnings", "seconds", "command"]
        + [f"{side}_{field}" for side in ("train", "test") for field in DataRecord.model_fields]
    )
    for row in rows:
        values = [row.metrics.get(name) for name in metrics]
        writer.writerow(
            [row.protocol, row.subject, row.seed, row.classes]
            + [x for value in values for x in ((value.value, value.low, value.high) if value else ("", "", ""))]
            + [json.dumps(row.chosen), json.dumps(row.settings), "; ".join(row.warnings), row.seconds, row.command]
            + [getattr(side, field) for side in (row.train, row.test) for field in DataRecord.model_fields]
        )
    return _write(Path(path), buffer.getvalue().encode())


def write_report(
    folder: str | Path,
    rows: Sequence[Result],
    *,
    title: str,
    encoder_name: str,
    figures: Sequence[Figure | None] = (),
    notes: Sequence[str] = (),
    descriptions: Mapping[str, str] | None = None,
    licences: Mapping[str, str] | None = None,
) -> Path:
    """Write `folder/report.html`, which needs no other file, and the figures as PNG files beside it.

    Args:
        folder: made if missing; files of the same name are replaced, each whole or not at all.
        rows: of one encoder and its floors, under any number of protocols.
        figures: in order; None (a figure that could not be drawn) is left out.
        notes: sentences for the reader, such as "trained for 30 epochs only".
        descriptions: protocol name -> what it means; None asks `evaluation.protocol.describe`.
        licences: dataset name -> terms of use.

    Returns:
        Path of `report.html`.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    grouped, warnings = lines(rows, encoder_name)
    drawn = _named(figure for figure in figures if figure is not None)
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    html = environment.get_template("report.html.j2").render(
        title=title,
        encoder_name=encoder_name,
        verdict=verdict(rows),
        groups=grouped,
        headers=HEADERS[1:],
        warnings=warnings,
        notes=notes,
        protocols=_protocols(rows, descriptions),
        figures=[(figure, base64.b64encode(figure.png).decode()) for _, figure in drawn],
        commands=list(dict.fromkeys(row.command for row in rows if row.command)),
        data=_data(rows),
        licences=_licences(rows, licences or {}),
    )
    for name, figure in drawn:
        _write(folder / f"{name}.png", figure.png)
    return _write(folder / "report.html", html.encode())


def _protocols(rows: Sequence[Result], descriptions: Mapping[str, str] | None) -> list[dict[str, Any]]:
    from evaluation.protocol import describe

    found: dict[str, dict[str, Any]] = {}
    for group in groups(rows):
        row = group[0]
        text = describe(row.protocol) if descriptions is None else descriptions.get(row.protocol, "")
        settings = {name: _value(value) for name, value in row.settings.items() if name != "name"}
        entry = {"name": row.protocol, "title": protocol_title(row.protocol), "text": text, "settings": settings}
        found.setdefault(json.dumps(entry, sort_keys=True), entry)
    return list(found.values())


def _data(rows: Sequence[Result]) -> list[dict[str, Any]]:
    found = {}
    for row in rows:
        for role, record in (("train", row.train), ("test", row.test)):
            entry = {"role": role, "classes": row.classes, **record.model_dump()}
            found.setdefault(json.dumps(entry, sort_keys=True), entry)
    return list(found.values())


def _licences(rows: Sequence[Result], licences: Mapping[str, str]) -> list[tuple[str, str]]:
    names = dict.fromkeys(record.name for row in rows for record in (row.train, row.test))
    return [(name, licences.get(name, "unknown")) for name in names]


def _named(figures: Iterable[Figure]) -> list[tuple[str, Figure]]:
    named: dict[str, Figure] = {}
    for figure in figures:
        stem = re.sub(r"[^A-Za-z0-9_-]+", "_", figure.name).strip("_") or "figure"
        name, count = stem, 1
        while name in named:
            count += 1
            name = f"{stem}_{count}"
        named[name] = figure
    return list(named.items())


def _data_title(row: Result) -> str:
    train, test = (f"{record.name} {record.split}" for record in (row.train, row.test))
    return f"{train} → {row.test.split if row.train.name == row.test.name else test}"


def _percent(fraction: float) -> str:
    return f"{fraction * 100:.1f}"


def _interval(metric: Metric | None) -> str:
    if metric is None:
        return "–"
    return f"{_percent(metric.value)} [{_percent(metric.low)}, {_percent(metric.high)}]"


def _value(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(_value(part) for part in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _plain(text: str) -> str:
    """A cell that Markdown shows as it is: no column break, no tag, no line break."""
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def _write(path: Path, content: bytes) -> Path:
    """Write whole or not at all."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    return path
