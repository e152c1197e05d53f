"""Tables of results, and one self-contained HTML page that says what they mean."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluation.verdict import group_title, groups, metric_title, protocol_title, subject_title, verdict
from zoo.data.store import replacing
from zoo.results import DataRecord, Metric, Result, setting_text

if TYPE_CHECKING:
    from rich.table import Table

    from evaluation.drawing import Figure

TEMPLATES = Path(__file__).parent / "templates"
#: In `Result.chosen`, but about how the choice went; the CSV file has them.
NOT_SETTINGS = ("iterations", "converged", "held_out_top1", "held_out", "tried", "train_loss")
#: Metrics with a column of their own.
OWN_COLUMN = ("top1", "mean_per_class")
HEADERS = ("protocol", "subject", "top-1 %", "mean per class %", "chosen", "train / test")
#: Figures wider than this are scrolled on a phone instead of shrunk until nobody can read them.
WIDE = 800
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
            chosen=_found(row) or "–",
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
    return write_whole(Path(path), buffer.getvalue().encode())


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
    drawn = named(figure for figure in figures if figure is not None)
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
        wide=WIDE,
        warnings=warnings,
        notes=notes,
        protocols=protocol_texts(rows, descriptions),
        figures=[embedded(figure) for _, figure in drawn],
        commands=list(dict.fromkeys(row.command for row in rows if row.command)),
        data=data_records(rows),
        licences=licence_texts(rows, licences or {}),
    )
    for name, figure in drawn:
        write_whole(folder / f"{name}.png", figure.png)
    return write_whole(folder / "report.html", html.encode())


def _found(row: Result) -> str:
    """What was chosen, and every metric that has no column of its own."""
    others = [f"{metric_title(k)} {_percent(v.value)}" for k, v in row.metrics.items() if k not in OWN_COLUMN]
    return ", ".join(others + [f"{k} = {setting_text(v)}" for k, v in row.chosen.items() if k not in NOT_SETTINGS])


def protocol_texts(rows: Sequence[Result], descriptions: Mapping[str, str] | None) -> list[dict[str, Any]]:
    from evaluation.protocol import describe

    found: dict[str, dict[str, Any]] = {}
    for group in groups(rows):
        row = group[0]
        text = describe(row.protocol) if descriptions is None else descriptions.get(row.protocol, "")
        settings = {name: setting_text(value) for name, value in row.settings.items() if name != "name"}
        entry = {"name": row.protocol, "title": protocol_title(row.protocol), "text": text, "settings": settings}
        found.setdefault(json.dumps(entry, sort_keys=True), entry)
    return list(found.values())


def data_records(rows: Sequence[Result]) -> list[dict[str, Any]]:
    found = {}
    for row in rows:
        for role, record in (("train", row.train), ("test", row.test)):
            entry = {"role": role, "classes": row.classes, **record.model_dump()}
            found.setdefault(json.dumps(entry, sort_keys=True), entry)
    return list(found.values())


def licence_texts(rows: Sequence[Result], licences: Mapping[str, str]) -> list[tuple[str, str]]:
    names = dict.fromkeys(record.name for row in rows for record in (row.train, row.test))
    return [(name, licences.get(name, "unknown")) for name in names]


def embedded(figure: Figure) -> dict[str, Any]:
    width, height = struct.unpack(">II", figure.png[16:24])
    data = base64.b64encode(figure.png).decode()
    return {"data": data, "width": width, "height": height, "caption": figure.caption, "alt": figure.alt}


def named(figures: Iterable[Figure]) -> list[tuple[str, Figure]]:
    named: dict[str, Figure] = {}
    for figure in figures:
        stem = re.sub(r"[^A-Za-z0-9_-]+", "_", figure.name).strip("_") or "figure"
        name, count = stem, 1
        while name in named:
            count += 1
            name = f"{stem}_{count}"
        named[name] = figure
    return list(named.items())


def _percent(fraction: float) -> str:
    return f"{fraction * 100:.1f}"


def _interval(metric: Metric | None) -> str:
    if metric is None:
        return "–"
    return f"{_percent(metric.value)} [{_percent(metric.low)}, {_percent(metric.high)}]"


def _plain(text: str) -> str:
    """A cell that Markdown shows as it is: no column break, no tag, no line break."""
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def write_whole(path: Path, content: bytes) -> Path:
    with replacing(path) as temporary:
        temporary.write_bytes(content)
    return path
