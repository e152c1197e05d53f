"""`python -m benchmarks.records`: the table of published numbers in RECORDS.md, from the checkpoints' own results."""

from __future__ import annotations

import sys
from pathlib import Path

from zoo.checkpoint import catalog
from zoo.checkpoint.results import Metric
from zoo.errors import DataError, ZooError
from zoo.files import write_text
from zoo.publish.card import comparisons

RECORDS = Path(__file__).parents[1] / "RECORDS.md"


def publish(text: str, out: Path, section: str | None = None) -> None:
    """Print a report, write it to `out/report.md`, and renew a section of RECORDS.md if one is named."""
    write_text(out / "report.md", text + "\n")
    print(text)
    if section:
        renew(section, text)


def renew(name: str, text: str, path: Path = RECORDS) -> None:
    """Put `text` between the marks of section `name`. Raises DataError where the marks are missing."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, mark, rest = path.read_text(encoding="utf-8").partition(begin)
    _, closing, after = rest.partition(end)
    if not mark or not closing:
        raise DataError(f"{path} must hold the lines {begin} and {end}, between which the section goes")
    write_text(path, f"{before}{begin}\n\n{text.strip()}\n\n{end}{after}")


FILE = catalog.EMBEDDED.parent.parent / "RECORDS.md"
BEGIN, END = "<!-- published: written by `python -m benchmarks.records` -->", "<!-- /published -->"
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
            numbers = [_percent(line[subject]) for subject in ("encoder", "untrained", "raw")]
            cells = [f"`{name}`", data, line["protocol"], *numbers, trained, f"`{command}`"]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def render(text: str) -> str:
    """`text` of RECORDS.md with the table between its two marks renewed.

    Raises:
        DataError: the marks are missing.
    """
    before, mark, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not mark or not end:
        raise DataError(f"RECORDS.md must hold the lines {BEGIN!r} and {END!r}, between which the table goes")
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


def _percent(metric: Metric | None) -> str:
    if metric is None:
        return "–"
    return f"{100 * metric.value:.1f} % [{100 * metric.low:.1f}, {100 * metric.high:.1f}]"


def main() -> int:
    """Exit status: 0 written, 2 no marks or a broken checkpoint."""
    try:
        text = render(FILE.read_text(encoding="utf-8"))
        write_text(FILE, text)
    except (ZooError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
