"""Pictures inside a page: tiles and one sprite for a map, as data URIs."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

from PIL import Image

from evaluation.report.neighbours import SMALL, tile

#: Side in pixels of the pictures on a map.
SPRITE = 48
#: Side in pixels that a tile has at most.
TILE = 128


def data_uri(image: Image.Image, quality: int = 85) -> str:
    """A picture as text: small ones as PNG, pixel for pixel, others as JPEG."""
    buffer = io.BytesIO()
    small = max(image.size) <= SMALL
    image.save(buffer, format="PNG" if small else "JPEG", **({} if small else {"quality": quality}))
    kind = "png" if small else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def tile_uri(sample: Any) -> str:
    """A sample as a square tile."""
    square = tile(sample)
    if square.width > TILE:
        square = square.resize((TILE, TILE), Image.Resampling.LANCZOS)
    return data_uri(square)


def sprite(samples: Sequence[Any]) -> tuple[str, int]:
    """All samples on one picture, row by row, and how many stand in a row."""
    columns = max(1, round(len(samples) ** 0.5))
    rows = -(-len(samples) // columns)
    sheet = Image.new("RGB", (columns * SPRITE, rows * SPRITE))
    for number, sample in enumerate(samples):
        small = tile(sample).resize((SPRITE, SPRITE), Image.Resampling.LANCZOS)
        sheet.paste(small, (number % columns * SPRITE, number // columns * SPRITE))
    return data_uri(sheet), columns
