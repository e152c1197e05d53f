"""Text on its way to a reader, above all what others wrote: in a terminal, Markdown or an error it shows what it holds.

Names, titles and licences come from files of others. An escape sequence in one could redraw a terminal, a mark of
direction (CVE-2021-42574) could make a name read as another, a tag or a fence could end what a card says.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any

#: Unicode categories that act on the text around them instead of being seen: controls, formats, halves of surrogate
#: pairs, line and paragraph separators.
_ACTING = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
#: Formats that scripts need inside words: the zero-width non-joiner and joiner.
_LETTERS = "\u200c\u200d"


def printable(text: object, lines: bool = False) -> str:
    r"""`text` with every character that acts instead of being seen written out, as in `\x1b`, `\u202e` or `\n`.

    Args:
        text: anything; `str` is taken of it.
        lines: leave line breaks and tabs, for text that has lines of its own.
    """
    text = str(text)
    if text.isprintable():
        return text
    kept = _LETTERS + ("\n\t" if lines else "")
    return "".join(
        c if c in kept or unicodedata.category(c) not in _ACTING else c.encode("unicode_escape").decode() for c in text
    )


def clipped(text: object, longest: int = 80) -> str:
    """`printable`, cut to `longest` characters with an ellipsis: for what a file says, inside a sentence of ours."""
    # Cut first: what is written out may be ten times as long, and nobody pays for the rest.
    shown = printable(str(text)[: longest + 1])
    return shown if len(shown) <= longest else shown[: longest - 3] + "..."


def quoted(text: object, longest: int = 80) -> str:
    """`clipped` between quotation marks: a name that a file gives."""
    return f"'{clipped(text, longest)}'"


class Markdown(str):
    """Text that is Markdown already, so that nothing escapes it again."""


def markdown(value: Any) -> Markdown:
    """`value` as Markdown that shows it as it is, on one line: no tag, link, heading, code, emphasis or table cell."""
    if isinstance(value, Markdown):
        return value
    text = printable(" ".join(str(value).split()))
    text = re.sub(r"([\\`*|]|(?<!/)~)", r"\\\1", text)  # "/~" is common in web addresses and opens nothing
    text = re.sub(r"(?<!\w)_|_(?!\w)", r"\\_", text)
    text = re.sub(r"&(?=#?\w+;)", "&amp;", text).replace("<", "&lt;")
    text = re.sub(r"\](?=[(\[:])", r"\\]", text)
    # A block begins where a line does, and a value may stand there.
    text = re.sub(r"^(?:(#{1,6}|[-+=]+)(?=\s|$)|(\d{1,9})(?=[.)](?:\s|$)))", _defused, text)
    return Markdown("&gt;" + text[1:] if text.startswith(">") else text)


def _defused(start: re.Match[str]) -> str:
    return f"\\{start[1]}" if start[1] else f"{start[2]}\\"


def code_span(value: Any, cell: bool = False) -> Markdown:
    """`value` as code within a line; its fence is longer than any run of backticks in it (CommonMark 6.1).

    `cell`: within a table, which is cut at every bar before code is looked for (GFM 4.10).
    """
    text = printable(" ".join(str(value).split()))
    text = text.replace("|", "\\|") if cell else text
    fence = "`" * (1 + _longest_run(text))
    space = " " if "`" in text or not text else ""
    return Markdown(f"{fence}{space}{text}{space}{fence}")


def code_block(value: Any, language: str = "") -> Markdown:
    """`value` as a block of code that nothing in it can end (CommonMark 4.5)."""
    text = printable(value, lines=True)
    fence = "`" * max(3, 1 + _longest_run(text))
    return Markdown(f"{fence}{language}\n{text}\n{fence}")


def _longest_run(text: str) -> int:
    return max(map(len, re.findall("`+", text)), default=0)


def web_link(value: Any) -> Markdown:
    """A web address as a link; anything else, such as `javascript:`, as text."""
    plain = re.fullmatch(r"https?://[!-;=?-~]+", str(value))
    return Markdown(f"<{value}>") if plain else markdown(value)


def page_text(value: Any) -> Any:
    """What a template of a page prints, before it is escaped for HTML: text without characters that act."""
    return printable(value, lines=True) if type(value) is str else value


def amount(value: float | None) -> str:
    """A number for a reader: thousands marked, at most one decimal from 1 on; "unknown" for None."""
    if value is None:
        return "unknown"
    return f"{value:,}" if isinstance(value, int) else f"{round(value, 1) if value >= 1 else value:,g}"
