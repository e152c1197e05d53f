"""Several encoders beside each other: a table for the terminal, one JSON, one HTML page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluation.beside import NEIGHBOURS, Pair, Placed, pairs, placed_over, sentence
from evaluation.evaluate import Evaluation
from evaluation.protocols import protocol_title
from evaluation.report.page import TEMPLATES
from zoo.checkpoint.judging import versus_text
from zoo.checkpoint.numbers import interval_text, metric_title, percent
from zoo.checkpoint.results import variant_of
from zoo.files import write_whole
from zoo.text import page_text, printable

if TYPE_CHECKING:
    from rich.table import Table

#: What stands below every table.
CAPTION = (
    "In brackets: 95 % intervals. Differences are paired over the same test samples; their p-values are corrected for "
    "all comparisons shown (Holm)."
)
WORDS = {"best": "best", "worse": "worse", "same": "not distinguishable", "unknown": "not tested"}


def overview(found: dict[str, list[list[Placed]]]) -> Table:
    """All datasets, protocols and encoders, for the terminal."""
    from rich.table import Table
    from rich.text import Text

    made = Table(caption=Text(CAPTION), caption_justify="left")
    titles = ["protocol", "encoder", "result %", "untrained %", "minus the best", "verdict"]
    several = len(found) > 1
    for header in (["dataset"] if several else []) + titles:
        made.add_column(header, justify="right" if "%" in header or "minus" in header else "left")
    for name, each in found.items():
        for table in each:
            for index, one in enumerate(table):
                cells = [cell(one) for cell in CELLS]
                cells[0] = cells[0] if index == 0 else ""
                cells = ([name if index == 0 else ""] if several else []) + cells
                made.add_row(*(Text(printable(text)) for text in cells), end_section=index == len(table) - 1)
    return made


def write_beside(datasets: dict[str, dict[str, Evaluation]], folder: str | Path) -> Path:
    """`folder/compare.json` and `folder/compare.html`, which needs no other file; returns the page's path."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    found = placed_over(datasets)
    alike = {name: pairs(each) for name, each in datasets.items()}
    plain = {
        name: {
            "protocols": [[_plain(one) for one in table] for table in found[name]],
            "alike": [{**asdict(pair), "overlap": pair.overlap.model_dump()} for pair in alike[name]],
        }
        for name in datasets
    }
    write_whole(folder / "compare.json", (json.dumps(plain, indent=1, ensure_ascii=False) + "\n").encode())
    return write_whole(folder / "compare.html", render(datasets, found, alike).encode())


def render(
    datasets: dict[str, dict[str, Evaluation]], found: dict[str, list[list[Placed]]], alike: dict[str, list[Pair]]
) -> str:
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
    names = list(dict.fromkeys(name for each in datasets.values() for name in each))
    return environment.get_template("beside.html.j2").render(
        title=" against ".join(names) if len(names) == 2 else f"{len(names)} encoders beside each other",
        names=names,
        caption=CAPTION,
        neighbours=NEIGHBOURS,
        sections=[_section(name, datasets[name], found[name], alike[name]) for name in datasets],
        commands=list(dict.fromkeys(r.command for d in datasets.values() for e in d.values() for r in e.rows)),
    )


def _section(
    name: str, each: dict[str, Evaluation], found: Sequence[Sequence[Placed]], alike: Sequence[Pair]
) -> dict[str, Any]:
    first = next(iter(each.values()))
    return {
        "title": name,
        "samples": f"{len(first.train_data):,} training and {len(first.test_data):,} test samples",
        "verdict": sentence(found),
        "tables": [
            {"title": CELLS[0](table[0]), "lines": [[cell(one) for cell in CELLS[1:]] for one in table]}
            for table in found
        ],
        "alike": [
            (pair.first, pair.second, "–" if pair.cka is None else f"{pair.cka:.2f}", interval_text(pair.overlap))
            for pair in alike
        ],
    }


def _title(one: Placed) -> str:
    variant = variant_of(one.row)
    return f"{protocol_title(one.row.protocol)}{f', {variant}' if variant else ''}: {metric_title(one.metric)}"


def _plain(one: Placed) -> dict[str, Any]:
    return {
        "encoder": one.encoder,
        "protocol": one.row.protocol,
        "metric": one.metric,
        "result": one.row.metrics[one.metric].model_dump(),
        "untrained": None if one.untrained is None else one.untrained.model_dump(),
        "minus_the_best": None if one.versus is None else one.versus.model_dump(),
        "p_corrected": one.p,
        "verdict": WORDS[one.outcome],
    }


#: The cells of a line, in order.
CELLS = (
    _title,
    lambda one: one.encoder,
    lambda one: interval_text(one.row.metrics[one.metric]),
    lambda one: "–" if one.untrained is None else percent(one.untrained.value),
    lambda one: versus_text(one.versus),
    lambda one: WORDS[one.outcome],
)
