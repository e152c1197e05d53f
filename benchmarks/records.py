"""The one place that writes RECORDS.md: sections between marks, each renewed whole.

`python -m benchmarks.records` renews the table of published numbers from the checkpoints' own results.
"""

from __future__ import annotations

import sys
from pathlib import Path

from zoo.checkpoint import catalog
from zoo.checkpoint.numbers import interval_text
from zoo.errors import DataError, ZooError
from zoo.files import write_text
from zoo.publish.card import comparisons

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
HEADERS = ("checkpoint", "data", "protocol", "encoder", "untrained", "raw", "trained", "command")


def table() -> str:
    """A Markdown table: top-1 of every published checkpoint beside its floors, with the command that repeats it."""
    lines = [f"| {' | '.join(HEADERS)} |", "|" + " --- |" * len(HEADERS)]
    for name in catalog.list_models():
        config, results = catalog.config(name), catalog.results(name)
        commands = (
            {(row.test, row.train, row.protocol, row.seed): row.command for row in results.rows} if results else {}
        )
        training = config.training
        epochs = "epochs not stated" if training.epochs is None else f"{training.epochs:.3g} epochs"
        trained = f"{epochs}, {training.hardware}"
        for line in comparisons(results):
            if line["metric"] != "top1" or not line["protocol"].startswith(PROTOCOLS):
                continue
            test, train = line["test"], line["train"]
            data = f"{test.name}/{test.split}, {train.samples:,} / {test.samples:,}"
            command = commands[test, train, line["protocol"], line["seed"]]
            numbers = [interval_text(line[subject], " %") for subject in ("encoder", "untrained", "raw")]
            cells = [f"`{name}`", data, line["protocol"], *numbers, trained, f"`{command}`"]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


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
