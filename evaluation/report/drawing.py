"""What all figures share: the picture itself, colours, and matplotlib under our own settings."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

DPI = 128
TEXT, FAINT = "#1b1f24", "#c5ccd3"


@dataclass(frozen=True)
class Figure:
    """A picture for a report.

    Attributes:
        name: file name without ending.
        png: the PNG file.
        caption: what a reader has to know, plain text.
        alt: what a person who cannot see it has to know, plain text.
    """

    name: str
    png: bytes
    caption: str
    alt: str


#: A name longer than this is cut even where long names stand whole: nobody reads on, and a sheet would be all name.
LONGEST = 120


def class_name(class_names: Sequence[str], index: int, length: int = LONGEST) -> str:
    """The name of a class on one line, cut to `length` characters; its number where it has none."""
    text = class_names[index] if 0 <= index < len(class_names) else f"class {index}"
    text = "".join(c if c.isprintable() else " " for c in str(text)).strip()
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"


def wrapped(name: str, width: int) -> str:
    """A name on as many lines as it needs, of at most `width` characters, broken after `_`, `-`, `/` or a space."""
    lines, line = [], ""
    for piece in re.split(r"(?<=[ _/-])", name):
        while len((line + piece).rstrip()) > width:
            if not line:
                line, piece = piece[:width], piece[width:]
            lines.append(line.rstrip())
            line = ""
        line += piece
    return "\n".join([*lines, line.rstrip()] if line.strip() or not lines else lines)


def style() -> Any:
    """Our own settings of matplotlib, whatever the user has set. `$` in a class name is no formula."""
    import matplotlib.style

    wanted = {
        "font.family": "DejaVu Sans", "font.size": 9, "text.color": TEXT, "axes.labelcolor": TEXT,
        "axes.edgecolor": TEXT, "xtick.color": TEXT, "ytick.color": TEXT,
        "figure.facecolor": "white", "text.parse_math": False,
    }  # fmt: skip
    return matplotlib.style.context(["default", wanted])


def canvas(width: float, height: float) -> Any:
    """An empty matplotlib figure, inches. No pyplot: nothing global is touched, no display is needed."""
    from matplotlib.figure import Figure as Canvas

    return Canvas(figsize=(width, height), dpi=DPI)


def png(drawn: Any, tight: bool = False) -> bytes:
    """A canvas as a PNG file; `tight` cuts empty margins."""
    buffer = io.BytesIO()
    with missing_letters():
        drawn.savefig(buffer, format="png", dpi=DPI, bbox_inches="tight" if tight else None)
    return buffer.getvalue()


def lay_out(drawn: Any) -> None:
    """Let matplotlib work out where everything on a canvas lies, so that it can be asked."""
    with missing_letters():
        drawn.draw_without_rendering()


@contextmanager
def missing_letters() -> Iterator[None]:
    """A class name in a script that the font lacks shows boxes; that is not worth a warning per letter."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        yield
