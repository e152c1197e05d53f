"""A suite's results: one JSON, one CSV with a row per result, one HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluation.evaluate import Evaluation
from evaluation.protocols import protocol_title
from evaluation.report.confused import class_rows, confused_pairs
from evaluation.report.maps import confusion
from evaluation.report.neighbours import nearest_neighbours
from evaluation.report.page import TEMPLATES, WIDE, data_records, embedded, licence_texts, protocol_texts
from evaluation.report.tables import CAPTION, HEADERS, as_csv, lines
from evaluation.report.verdict import counted, how
from evaluation.suite import Entry, SuiteResults, SuiteRun
from zoo.checkpoint.judging import Judgement, judged, versus_text
from zoo.checkpoint.numbers import interval_text, metric_title, percent, points
from zoo.checkpoint.results import Metric, Result, variant_of
from zoo.files import write_whole
from zoo.text import page_text, printable

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Headline:
    """One line of the overview: the field's metric under one protocol, encoder beside baselines, in per cent."""

    protocol: str
    metric: str
    encoder: str
    untrained: str
    raw: str
    gain: str
    outcome: str


def write_suite(run: SuiteRun, encoder_name: str, folder: str | Path, weights_sha256: str | None = None) -> Path:
    """Write results.json, results.csv and report.html, which needs no other file; returns the report's path."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    results = SuiteResults(weights_sha256=weights_sha256, rows=run.rows, suite=run.name, skipped=run.skipped)
    write_whole(folder / "results.json", results.to_json().encode())
    write_whole(folder / "results.csv", as_csv(run.rows).encode())
    return write_whole(folder / "report.html", render(run, encoder_name).encode())


def overview(run: SuiteRun) -> Table:
    """The field's metric of every dataset and protocol, for the terminal."""
    from rich.table import Table
    from rich.text import Text

    made = Table(caption=Text(printable(verdict(run))), caption_justify="left")
    for header in ("dataset", "protocol", "metric", "encoder %", "untrained %", "raw %", "minus the better baseline"):
        made.add_column(header, justify="right" if "%" in header or "minus" in header else "left")
    for name, found in run.found.items():
        lines_ = headlines(found.rows, run.rows)
        for index, line in enumerate(lines_):
            cells = (run.entry(name).title if index == 0 else "", line.protocol, line.metric, line.encoder)
            gain = line.gain + (" (not distinguishable)" if line.outcome == "same" else "")
            texts = (Text(printable(cell)) for cell in (*cells, line.untrained, line.raw, gain))
            made.add_row(*texts, end_section=index == len(lines_) - 1)
    return made


def render(run: SuiteRun, encoder_name: str) -> str:
    """The page as text."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        finalize=page_text,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    sections = [_section(run.entry(name), found, encoder_name, run.rows) for name, found in run.found.items()]
    licences = {record.name: found.test_data.licence for found in run.found.values() for record in _records(found)}
    return environment.get_template("suite.html.j2").render(
        title=f"{run.suite.title}: {encoder_name}",
        encoder_name=encoder_name,
        verdict=verdict(run),
        sections=sections,
        skipped=run.skipped,
        headers=HEADERS[1:],
        caption=CAPTION,
        wide=WIDE,
        protocols=protocol_texts(run.rows, None),
        commands=list(dict.fromkeys(row.command for row in run.rows if row.command)),
        data=data_records(run.rows),
        licences=licence_texts(run.rows, licences),
    )


def verdict(run: SuiteRun) -> str:
    """How often the encoder beats the better baseline over all datasets, by the field's metric."""
    if not run.found:
        return f"No dataset of the suite is here: {len(run.skipped)} were skipped."
    found = judged(run.rows)
    text = f"Measured on {len(run.found)} of {len(run.found) + len(run.skipped)} datasets"
    if all(each.outcome == "alone" for each in found):
        return f"{text}, with no baseline beside the encoder."
    return f"{text}, by the metric of the field. {counted(found)} {how(found, run.rows)}"


def headlines(rows: Sequence[Result], family: Sequence[Result] | None = None) -> list[Headline]:
    """One line per protocol (and amount of labels).

    Args:
        family: all results of the page, whose comparisons are corrected together; default `rows`.
    """
    found = []
    for each in judged(rows, family):
        values = {subject: row.metrics[each.metric] for subject, row in each.baselines.items()}
        variant = variant_of(each.row)
        found.append(
            Headline(
                protocol=protocol_title(each.row.protocol) + (f", {variant}" if variant else ""),
                metric=metric_title(each.metric),
                encoder=interval_text(each.row.metrics[each.metric]),
                untrained=_value(values.get("untrained")),
                raw=_value(values.get("raw")),
                gain=_gain(each),
                outcome=each.outcome,
            )
        )
    return found


def _gain(each: Judgement) -> str:
    if each.versus is not None or each.baseline is None:
        return versus_text(each.versus)
    return points(each.row.metrics[each.metric].value - each.baseline.metrics[each.metric].value)


def _section(entry: Entry, found: Evaluation, encoder_name: str, family: Sequence[Result]) -> dict[str, Any]:
    grouped, warnings = lines(found.rows, encoder_name)
    names, true = found.test_data.class_names, found.test.labels
    shown = next(iter(found.predicted), None)  # the first protocol that classified
    figures = [
        nearest_neighbours(
            found.train.features, found.train.labels, found.train_data,
            found.test.features, true, found.test_data, names, queries=6,
        )
    ]  # fmt: skip
    if shown is not None:
        figures.insert(0, confused_pairs(true, found.predicted[shown], found.test_data))
        figures.append(confusion(true, found.predicted[shown], names, title=protocol_title(shown)))
    return {
        "name": entry.name,
        "title": entry.title,
        "note": entry.note,
        "metric": metric_title(entry.metric),
        "samples": f"{len(found.train_data):,} training and {len(found.test_data):,} test images, {len(names)} classes",
        "headlines": headlines(found.rows, family),
        "groups": grouped,
        "warnings": warnings,
        "figures": [embedded(figure) for figure in figures if figure is not None],
        "classes": class_rows(true, found.predicted[shown], names) if shown else [],
        "shown": protocol_title(shown) if shown else "",
    }


def _records(found: Evaluation) -> list[Any]:
    return [record for row in found.rows for record in (row.train, row.test)]


def _value(metric: Metric | None) -> str:
    return "–" if metric is None else percent(metric.value)
