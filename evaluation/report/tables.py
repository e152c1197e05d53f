"""Results as rows of a table, in the terminal, on pages and as CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from evaluation.report.verdict import group_title, groups, metric_title, subject_title
from zoo.checkpoint.results import DataRecord, Metric, Result, setting_text
from zoo.files import write_whole
from zoo.text import printable

if TYPE_CHECKING:
    from rich.table import Table

#: In `Result.chosen`, but about how the choice went; the CSV file has them.
NOT_SETTINGS = ("iterations", "converged", "held_out_top1", "held_out", "tried", "train_loss")
#: Metrics with a column of their own.
OWN_COLUMN = ("top1", "mean_per_class")
HEADERS = ("protocol", "subject", "top-1 %", "mean per class %", "chosen", "train / test")
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
    made = Table(caption=Text(printable(caption, lines=True)), caption_justify="left")
    for header, justify in zip(HEADERS, ("left", "left", "right", "right", "left", "right"), strict=True):
        made.add_column(header, justify=justify)
    for group in grouped:
        for index, line in enumerate(group):
            cells = line.cells() if index == 0 else ("", *line.cells()[1:])
            # As Text: a name with [brackets] is not markup.
            style = "dim" if line.is_floor else "bold"
            made.add_row(*(Text(printable(cell), style=style) for cell in cells), end_section=index == len(group) - 1)
    return made


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


def _found(row: Result) -> str:
    """What was chosen, and every metric that has no column of its own."""
    others = [f"{metric_title(k)} {_percent(v.value)}" for k, v in row.metrics.items() if k not in OWN_COLUMN]
    return ", ".join(others + [f"{k} = {setting_text(v)}" for k, v in row.chosen.items() if k not in NOT_SETTINGS])


def _percent(fraction: float) -> str:
    return f"{fraction * 100:.1f}"


def _interval(metric: Metric | None) -> str:
    if metric is None:
        return "–"
    return f"{_percent(metric.value)} [{_percent(metric.low)}, {_percent(metric.high)}]"
