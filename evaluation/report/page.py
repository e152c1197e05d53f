"""Tables of results, and one self-contained HTML page that says what they mean."""

from __future__ import annotations

import base64
import json
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluation.protocols import describe, protocol_title
from evaluation.report.tables import CAPTION, HEADERS, lines
from evaluation.report.verdict import verdict
from zoo.checkpoint.judging import groups
from zoo.checkpoint.results import Result, setting_text
from zoo.files import write_whole
from zoo.text import page_text

if TYPE_CHECKING:
    from evaluation.report.drawing import Figure

TEMPLATES = Path(__file__).parent / "templates"
#: Figures wider than this are scrolled on a phone instead of shrunk until nobody can read them.
WIDE = 700


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
        rows: of one encoder and its baselines, under any number of protocols.
        figures: in order; None (a figure that could not be drawn) is left out.
        notes: sentences for the reader, such as "trained for 30 epochs only".
        descriptions: protocol name -> what it means; None asks `evaluation.protocols.describe`.
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
        finalize=page_text,
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
        caption=CAPTION,
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


def protocol_texts(rows: Sequence[Result], descriptions: Mapping[str, str] | None) -> list[dict[str, Any]]:
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
