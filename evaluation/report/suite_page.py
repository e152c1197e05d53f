"""A suite's results: one JSON, one CSV with a row per result, one HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluation.evaluate import Evaluation
from evaluation.report.confused import class_rows, confused_pairs
from evaluation.report.maps import confusion
from evaluation.report.neighbours import nearest_neighbours
from evaluation.report.page import TEMPLATES, WIDE, data_records, embedded, licence_texts, protocol_texts
from evaluation.report.tables import HEADERS, lines
from evaluation.report.verdict import groups, metric_title, protocol_title
from evaluation.suite import Entry, SuiteResults, SuiteRun, as_csv
from zoo.checkpoint.results import Metric, Result
from zoo.files import write_whole
from zoo.text import page_text, printable

if TYPE_CHECKING:
    from rich.table import Table

#: The protocol whose predictions the per-class tables and confused pairs show, the first that was run.
SHOWN = ("transfer-v1", "logreg-v2", "logreg-v1", "finetune-v1", "knn-v1")


@dataclass(frozen=True)
class Headline:
    """One line of the overview: the field's metric under one protocol, encoder beside floors, in per cent."""

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
    write_whole(folder / "results.csv", as_csv(run).encode())
    return write_whole(folder / "report.html", render(run, encoder_name).encode())


def overview(run: SuiteRun) -> Table:
    """The field's metric of every dataset and protocol, for the terminal."""
    from rich.table import Table
    from rich.text import Text

    made = Table(caption=Text(printable(verdict(run))), caption_justify="left")
    for header in ("dataset", "protocol", "metric", "encoder %", "untrained %", "raw %", "above the better floor"):
        made.add_column(header, justify="right" if "%" in header or "above" in header else "left")
    for name, found in run.found.items():
        lines_ = headlines(found.rows)
        for index, line in enumerate(lines_):
            cells = (run.entry(name).title if index == 0 else "", line.protocol, line.metric, line.encoder)
            gain = line.gain + (" (overlap)" if line.outcome == "overlap" else "")
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
    sections = [_section(run.entry(name), found, encoder_name) for name, found in run.found.items()]
    licences = {record.name: found.test_data.licence for found in run.found.values() for record in _records(found)}
    return environment.get_template("suite.html.j2").render(
        title=f"{run.suite.title}: {encoder_name}",
        encoder_name=encoder_name,
        verdict=verdict(run),
        sections=sections,
        skipped=run.skipped,
        headers=HEADERS[1:],
        wide=WIDE,
        protocols=protocol_texts(run.rows, None),
        commands=list(dict.fromkeys(row.command for row in run.rows if row.command)),
        data=data_records(run.rows),
        licences=licence_texts(run.rows, licences),
    )


def verdict(run: SuiteRun) -> str:
    """One sentence over all datasets: how often the encoder beats the better floor, by the field's metric."""
    if not run.found:
        return f"No dataset of the suite is here: {len(run.skipped)} were skipped."
    lines_ = [line for found in run.found.values() for line in headlines(found.rows)]
    outcomes = [line.outcome for line in lines_]
    alone = outcomes.count("alone")
    text = f"Measured on {len(run.found)} of {len(run.found) + len(run.skipped)} datasets"
    if alone == len(outcomes):
        return f"{text}, with no floor beside the encoder."
    text += (
        f". By the metric of the field the encoder beats the better floor in {outcomes.count('above')} of "
        f"{len(outcomes)} comparisons (intervals do not overlap), is not clearly different in "
        f"{outcomes.count('overlap')} and worse in {outcomes.count('below')}"
    )
    return text + (f"; {alone} have no floor beside them." if alone else ".")


def headlines(rows: Sequence[Result]) -> list[Headline]:
    """One line per protocol (and amount of labels)."""
    found = []
    for group in groups(rows):
        if group[0].subject != "encoder":
            continue
        name = group[0].headline or next(iter(group[0].metrics))
        values = {row.subject: row.metrics[name] for row in group if name in row.metrics}
        own, floors = values["encoder"], [value for subject, value in values.items() if subject != "encoder"]
        labels = group[0].settings.get("labels")
        better = max(floors, key=lambda metric: metric.value, default=None)
        found.append(
            Headline(
                protocol=protocol_title(group[0].protocol) + (f", {labels}" if labels else ""),
                metric=metric_title(name),
                encoder=_interval(own),
                untrained=_value(values.get("untrained")),
                raw=_value(values.get("raw")),
                gain="–" if better is None else f"{100 * (own.value - better.value):+.1f}".replace("-", "−"),
                outcome=_outcome(own, better),
            )
        )
    return found


def _section(entry: Entry, found: Evaluation, encoder_name: str) -> dict[str, Any]:
    grouped, warnings = lines(found.rows, encoder_name)
    names, true = found.test_data.class_names, found.test.labels
    shown = next((name for name in SHOWN if name in found.predicted), None)
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
        "headlines": headlines(found.rows),
        "groups": grouped,
        "warnings": warnings,
        "figures": [embedded(figure) for figure in figures if figure is not None],
        "classes": class_rows(true, found.predicted[shown], names) if shown else [],
        "shown": protocol_title(shown) if shown else "",
    }


def _records(found: Evaluation) -> list[Any]:
    return [record for row in found.rows for record in (row.train, row.test)]


def _outcome(own: Metric, floor: Metric | None) -> str:
    if floor is None:
        return "alone"
    if own.low > floor.high:
        return "above"
    return "below" if own.high < floor.low else "overlap"


def _value(metric: Metric | None) -> str:
    return "–" if metric is None else f"{100 * metric.value:.1f}"


def _interval(metric: Metric) -> str:
    return f"{_value(metric)} [{_value(metric.model_copy(update={'value': metric.low}))}, {100 * metric.high:.1f}]"
