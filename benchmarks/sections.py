"""Reports of benchmarks, and the sections of RECORDS.md that they fill: `<!-- NAME -->` to `<!-- /NAME -->`."""

from __future__ import annotations

from pathlib import Path

from training.run import write_text
from zoo.errors import DataError

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
