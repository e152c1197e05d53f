"""Results as rows of a table, in the terminal, on pages and as CSV."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from evaluation.report.verdict import group_title, versus_of
from zoo.checkpoint.judging import groups, subject_title, versus_text
from zoo.checkpoint.numbers import interval_text, metric_title, percent
from zoo.checkpoint.results import DataRecord, Result, setting_text, variant_of
from zoo.text import printable

if TYPE_CHECKING:
    from rich.table import Table

#: In `Result.chosen`, but about how the choice went; the CSV file has them.
NOT_SETTINGS = ("iterations", "converged", "held_out_top1", "held_out", "tried", "train_loss")
#: Metrics with a column of their own.
OWN_COLUMN = ("top1", "mean_per_class")
HEADERS = ("protocol", "subject", "top-1 %", "mean per class %", "encoder minus this", "chosen", "train / test")
#: What stands in brackets, for tables.
CAPTION = "95 % intervals over test samples, and over the initialisations of the untrained encoder"
SUPERSCRIPT = str.maketrans("0123456789,", "⁰¹²³⁴⁵⁶⁷⁸⁹˒")


@dataclass(frozen=True)
class Line:
    """One row of a table, ready to print."""

    protocol: str
    subject: str
    top1: str
    mean_per_class: str
    versus: str
    chosen: str
    samples: str
    marks: str
    is_baseline: bool

    def cells(self) -> tuple[str, ...]:
        """In the order of `HEADERS`."""
        subject = self.subject + (f" {self.marks}" if self.marks else "")
        return self.protocol, subject, self.top1, self.mean_per_class, self.versus, self.chosen, self.samples


def lines(rows: Sequence[Result], encoder_name: str = "") -> tuple[list[list[Line]], list[str]]:
    """Table lines by group, and the footnotes that `Line.marks` count from 1."""
    notes: list[str] = []
    for row in rows:
        notes.extend(warning for warning in row.warnings if warning not in notes)

    def line(row: Result, group: Sequence[Result]) -> Line:
        marks = ",".join(str(notes.index(warning) + 1) for warning in dict.fromkeys(row.warnings))
        return Line(
            protocol=group_title(group, rows),
            subject=subject_title(row, encoder_name),
            top1=interval_text(row.metrics.get("top1")),
            mean_per_class=interval_text(row.metrics.get("mean_per_class")),
            versus="" if row.subject == "encoder" else versus_text(versus_of(group, row)),
            chosen=_found(row) or "–",
            samples=f"{row.train.samples:,} / {row.test.samples:,}",
            marks=marks.translate(SUPERSCRIPT),
            is_baseline=row.subject != "encoder",
        )

    return [[line(row, group) for row in group] for group in groups(rows)], notes


def table(rows: Sequence[Result], encoder_name: str = "") -> Table:
    """A table for the terminal; warnings are its footnotes."""
    from rich.table import Table
    from rich.text import Text

    grouped, notes = lines(rows, encoder_name)
    caption = f"In brackets: {CAPTION}." + "".join(
        f"\n{str(i).translate(SUPERSCRIPT)} {note}" for i, note in enumerate(notes, 1)
    )
    made = Table(caption=Text(printable(caption, lines=True)), caption_justify="left")
    for header, justify in zip(HEADERS, ("left", "left", "right", "right", "right", "left", "right"), strict=True):
        made.add_column(header, justify=justify)
    for group in grouped:
        for index, line in enumerate(group):
            cells = line.cells() if index == 0 else ("", *line.cells()[1:])
            # As Text: a name with [brackets] is not markup.
            style = "dim" if line.is_baseline else "bold"
            made.add_row(*(Text(printable(cell), style=style) for cell in cells), end_section=index == len(group) - 1)
    return made


def as_csv(rows: Sequence[Result]) -> str:
    """One line per result with all its metrics in columns, fractions of 1 in full precision, for other programs."""
    metrics = sorted({name for row in rows for name in row.metrics})
    pairs = sorted({(each.metric, each.other) for row in rows for each in row.versus})
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(
        ["dataset", "protocol", "variant", "subject", "headline", "headline_value"]
        + [name + part for name in metrics for part in ("", "_low", "_high")]
        + [f"{metric}_minus_{other}{part}" for metric, other in pairs for part in ("", "_low", "_high", "_p")]
        + ["classes", "seed", "chosen", "settings", "warnings", "seconds", "command"]
        + [f"{side}_{field}" for side in ("train", "test") for field in DataRecord.model_fields]
    )
    for row in rows:
        values = [row.metrics.get(name) for name in metrics]
        own = row.metrics.get(row.headline or "")
        found = {(each.metric, each.other): [each.value, each.low, each.high, each.p] for each in row.versus}
        writer.writerow(
            [row.test.name, row.protocol, variant_of(row), row.subject, row.headline]
            + [own.value if own else ""]
            + [x for value in values for x in ((value.value, value.low, value.high) if value else ("", "", ""))]
            + [x for pair in pairs for x in found.get(pair, [""] * 4)]
            + [row.classes, row.seed, json.dumps(row.chosen), json.dumps(row.settings), "; ".join(row.warnings)]
            + [row.seconds, row.command]
            + [getattr(side, field) for side in (row.train, row.test) for field in DataRecord.model_fields]
        )
    return buffer.getvalue()


def _found(row: Result) -> str:
    """What was chosen, and every metric that has no column of its own."""
    others = [f"{metric_title(k)} {percent(v.value)}" for k, v in row.metrics.items() if k not in OWN_COLUMN]
    for name, values in list(row.spread.items())[:1]:
        others.insert(0, f"{len(values)} initialisations: {metric_title(name)} {spread_text(values)}")
    return ", ".join(others + [f"{k} = {setting_text(v)}" for k, v in row.chosen.items() if k not in NOT_SETTINGS])


def spread_text(values: Sequence[float]) -> str:
    """`"17.1 to 20.6"`, per cent."""
    return f"{percent(min(values))} to {percent(max(values))}"
