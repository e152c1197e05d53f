"""The one place that writes RECORDS.md: sections between marks, each renewed whole.

`python -m benchmarks.records` renews the table of published numbers from the checkpoints' own results.
"""

from __future__ import annotations

import sys
from pathlib import Path

from zoo.checkpoint import catalog
from zoo.checkpoint.judging import Judgement, judged, versus_text
from zoo.checkpoint.numbers import interval_text
from zoo.checkpoint.results import Metric
from zoo.errors import DataError, ZooError
from zoo.files import write_text

RECORDS = Path(__file__).parents[1] / "RECORDS.md"
#: The section that holds `table()`.
PUBLISHED = "published"


def publish(text: str, out: Path, section: str | None = None) -> None:
    """Print a report, write it to `out/report.md`, and renew a section of RECORDS.md if one is named."""
    write_text(out / "report.md", text + "\n")
    print(text)
    if section:
        renew(section, text)


def renew(name: str, text: str, path: Path = RECORDS) -> None:
    """Put `text` between the marks of section `name`. Raises DataError where the marks are missing."""
    write_text(path, renewed(name, text, path))


def renewed(name: str, text: str, path: Path = RECORDS) -> str:
    """The whole text of `path` with section `name` replaced. Raises DataError where the marks are missing."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, mark, rest = path.read_text(encoding="utf-8").partition(begin)
    _, closing, after = rest.partition(end)
    if not mark or not closing:
        raise DataError(f"{path} must hold the lines {begin} and {end}, between which the section goes")
    return f"{before}{begin}\n\n{text.strip()}\n\n{end}{after}"


#: Protocols that every checkpoint is measured with; what else a card holds stays in the card.
PROTOCOLS = ("logreg", "knn")
HEADERS = ("checkpoint", "data", "protocol", "encoder", "untrained", "raw", "minus the better", "trained", "command")


def table() -> str:
    """A Markdown table: top-1 of every published checkpoint beside its baselines, with the command that repeats it."""
    lines = [f"| {' | '.join(HEADERS)} |", "|" + " --- |" * len(HEADERS)]
    for name in catalog.list_models():
        config, results = catalog.config(name), catalog.results(name)
        training = config.training
        epochs = "epochs not stated" if training.epochs is None else f"{training.epochs:.3g} epochs"
        for each in judged(results.rows) if results else ():
            row = each.row
            if each.metric != "top1" or not row.protocol.startswith(PROTOCOLS):
                continue
            data = f"{row.test.name}/{row.test.split}, {row.train.samples:,} / {row.test.samples:,}"
            values = [row.metrics["top1"], *(_metric(each, subject) for subject in ("untrained", "raw"))]
            cells = [f"`{name}`", data, row.protocol, *(interval_text(value, " %") for value in values)]
            cells += [versus_text(each.versus), f"{epochs}, {training.hardware}", f"`{row.command}`"]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _metric(each: Judgement, subject: str) -> Metric | None:
    return each.baselines[subject].metrics["top1"] if subject in each.baselines else None


def main() -> int:
    """Exit status: 0 written, 2 no marks or a broken checkpoint."""
    try:
        renew(PUBLISHED, table())
    except (ZooError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
