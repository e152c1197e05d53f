"""The README's table of models, made from the catalogue: `zoo list --write README.md`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zoo.checkpoint.catalog import config, list_models, results
from zoo.errors import ConfigError
from zoo.files import write_text
from zoo.publish.card import comparisons
from zoo.text import Markdown, markdown

START, END = "<!-- models: written by `zoo list --write README.md` -->", "<!-- end of models -->"
COLUMNS = ("model", "method", "input", "features", "MB", "trained on", "linear %", "kNN %", "licence of the data")
#: Column -> what the name of its protocol begins with.
PROTOCOLS = {"linear %": "logreg-", "kNN %": "knn-"}


def models_table() -> str:
    """A Markdown table of all published checkpoints; accuracies with the better baseline in brackets."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---|---|---|--:|--:|---|--:|--:|---|"]
    for name in list_models():
        found, table = config(name), comparisons(results(name))
        data = found.training.dataset
        side = _input(found.input)
        licence = data.licence.partition(" (")[0].partition(";")[0]
        cells = [
            Markdown(f"[{name}](model_cards/{name}.md)"), found.method.title, side, f"{found.num_features:,}",
            f"{found.weights.bytes / 1e6:.1f}", data.name.partition(" (")[0],
            *(_accuracy(table, start) for start in PROTOCOLS.values()), licence,
        ]  # fmt: skip
        lines.append("| " + " | ".join(map(markdown, cells)) + " |")
    return "\n".join(lines) + "\n"


def write_models_table(path: Path) -> None:
    """Put the table between the two marks of a Markdown file.

    Raises:
        ConfigError: the file cannot be read or has no such marks.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from None
    before, start, rest = text.partition(START)
    _, end, after = rest.partition(END)
    if not start or not end:
        raise ConfigError(f"{path} has no place for the table: put the lines {START} and {END} where it belongs")
    write_text(path, f"{before}{START}\n{models_table()}{END}{after}")


def _accuracy(table: list[dict[str, Any]], start: str) -> str:
    """`"71.5 (42.7)"`: top-1 of the encoder, the better baseline in brackets; on leak-free splits where there are."""
    rows = [row for row in table if row["metric"] == "top1" and row["protocol"].startswith(start) and row["encoder"]]
    rows = [row for row in rows if row["test"].split.endswith("leakfree")] or rows
    if not rows:
        return "not measured"
    newest = max(_version(row["protocol"]) for row in rows)
    row = next(row for row in rows if _version(row["protocol"]) == newest)
    baselines = [row[subject].value for subject in ("untrained", "raw") if row[subject] is not None]
    beside = f" ({100 * max(baselines):.1f})" if baselines else ""
    return f"{100 * row['encoder'].value:.1f}{beside}"


def _version(protocol: str) -> int:
    """`"logreg-v3"` -> 3."""
    return int(protocol.rpartition("-v")[2])


def _input(input: Any) -> str:
    if input.modality == "image":
        return f"{input.size[0]} x {input.size[1]} px"
    return f"{input.joints} joints"
