"""A sheet of search hits: each query beside the pictures nearest to it, as HTML or PNG."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from PIL import Image

from evaluation.report.drawing import canvas, png, style
from evaluation.report.neighbours import draw_tile, tile
from evaluation.report.page import TEMPLATES
from evaluation.report.pictures import tile_uri
from zoo.errors import DataError, ZooError
from zoo.features.search import Hits
from zoo.files import disk_errors, write_whole
from zoo.preprocessing.picture import to_rgb
from zoo.text import printable

#: Queries that a sheet shows: more pictures than this make a file nobody opens.
QUERIES = 100
#: Inches of the PNG: side of a tile, room below it, between tiles.
SIDE, BELOW, SPACE = 1.0, 0.3, 0.1


def write_sheet(hits: Hits, path: str | os.PathLike[str]) -> Path:
    """Write the first 100 queries and their hits as a `.html` page that needs no other file, or as a `.png`.

    Hits that are no files of their own (rows of an array or a Parquet file) are named instead of shown.

    Raises:
        DataError: another suffix, queries without pictures, or the disk is full.
    """
    file = Path(path)
    if file.suffix not in (".html", ".png"):
        raise DataError(f"{file}: a sheet is written as .html or .png, not {file.suffix!r}")
    if hits.pictures is None:
        raise DataError("these hits were found with vectors alone; search with pictures for a sheet, or save a table")
    content = _html(hits).encode() if file.suffix == ".html" else _png(hits)
    with disk_errors(file):
        file.parent.mkdir(parents=True, exist_ok=True)
    return write_whole(file, content)


def _html(hits: Hits) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    rows = []
    for number, query in enumerate(hits.queries[:QUERIES]):
        first = {"picture": tile_uri(hits.pictures.sample(number)), "key": printable(query), "lines": ["query"]}
        found = [
            {
                "picture": tile_uri(_picture(path)),
                "key": printable(name),
                "lines": [f"{hits.similarity[number, rank]:.3f}"],
            }
            for rank, (name, path) in enumerate(zip(hits.names[number], hits.paths[number], strict=True))
        ]
        rows.append([first, *found])
    return environment.get_template("hits.html.j2").render(rows=rows, queries=len(hits.queries))


def _png(hits: Hits) -> bytes:
    count, k = min(QUERIES, len(hits.queries)), hits.similarity.shape[1]
    width = (k + 1) * (SIDE + SPACE) + 2 * SPACE + SIDE / 4
    height = count * (SIDE + BELOW) + SPACE
    with style():
        sheet = canvas(width, height)

        def place(row: int, column: int, picture: Any, text: str) -> None:
            left = SPACE + column * (SIDE + SPACE) + (SIDE / 4 if column else 0)
            bottom = height - SPACE - row * (SIDE + BELOW) - SIDE
            axes = sheet.add_axes((left / width, bottom / height, SIDE / width, SIDE / height))
            draw_tile(axes, tile(picture), text, None)

        for row in range(count):
            place(row, 0, hits.pictures.sample(row), "query")
            for column in range(k):
                place(row, column + 1, _picture(hits.paths[row][column]), f"{hits.similarity[row, column]:.3f}")
        return png(sheet)


def _picture(path: str | None) -> Any:
    """The picture of a hit; grey where it is no file, or one that is gone or broken since it was indexed."""
    try:
        return to_rgb(path) if path is not None else Image.new("RGB", (64, 64), (200, 204, 208))
    except ZooError:
        return Image.new("RGB", (64, 64), (200, 204, 208))
