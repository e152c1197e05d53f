"""Reports: the verdict is honest, the tables hold the numbers of the rows, the page needs no other file."""

from __future__ import annotations

import csv
import io
import re
from html.parser import HTMLParser

import pytest

from evaluation.protocols.knn import KnnV1
from evaluation.protocols.logistic import LogRegV2
from evaluation.report.drawing import Figure
from evaluation.report.maps import score_chart
from evaluation.report.page import write_report
from evaluation.report.tables import as_csv, lines, table
from evaluation.report.verdict import groups, verdict
from zoo.checkpoint.results import DataRecord, Metric, Result

HOSTILE = "<script>alert('x')</script>\"&|[red]"
VOID = {"meta", "img", "br", "link", "input", "hr"}


def row(subject="encoder", value=0.713, half=0.012, protocol="logreg-v2", **changes) -> Result:
    settings = (LogRegV2() if protocol.startswith("logreg") else KnnV1()).model_dump(mode="json", exclude={"name"})
    fields = {
        "protocol": protocol,
        "subject": subject,
        "train": DataRecord(name="cifar10", split="train", fingerprint="a1" * 32, samples=50_000),
        "test": DataRecord(name="cifar10", split="test", fingerprint="b2" * 32, samples=10_000),
        "classes": 10,
        "metrics": {
            "top1": Metric(value=value, low=value - half, high=value + half),
            "mean_per_class": Metric(value=value - 0.1, low=value - 0.11, high=value - 0.09),
        },
        "settings": settings,
        "chosen": {"C": 0.01, "iterations": 80, "converged": True} if protocol.startswith("logreg") else {"k": 20},
        "command": f"python -m evaluation simclr cifar10 --protocol {protocol}",
    }
    return Result(**(fields | changes))


def rows() -> list[Result]:
    return [
        row("raw", 0.39),
        row("encoder", 0.713, warnings=("C lies at the edge", "not converged")),
        row("untrained", 0.401),
        row("encoder", 0.665, protocol="knn-v1", warnings=("not converged",)),
        row("untrained", 0.33, protocol="knn-v1"),
        row("raw", 0.345, protocol="knn-v1"),
    ]


class Page(HTMLParser):
    """Collects tags, text and attributes, and fails on tags that do not close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.text, self.attributes, self.open = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, *attribute) for attribute in attributes]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_verdict_of_a_win_names_both_protocols_and_margins():
    said = verdict(rows())
    assert "beats the better floor under logistic regression by 31.2 points (untrained encoder)" in said
    assert "under weighted kNN by 32.0 points (raw pixels)" in said
    assert said.endswith("intervals do not overlap.")


def test_verdict_of_overlapping_intervals_claims_nothing():
    said = verdict([row(value=0.50), row("untrained", 0.48), row("raw", 0.2)])
    assert "not clearly different from the better floor (untrained encoder)" in said
    assert "2.0 points above it, and the intervals overlap" in said
    assert "beats" not in said
    assert "scores the same" in verdict([row(value=0.5), row("raw", 0.5)])


def test_verdict_of_a_loss_says_so():
    said = verdict([row(value=0.30), row("untrained", 0.25), row("raw", 0.39)])
    assert "is worse than the better floor (raw pixels) under logistic regression by 9.0 points" in said
    assert "beats" not in said


def test_verdict_of_mixed_outcomes_states_each():
    said = verdict([row(), row("raw", 0.3), row(value=0.3, protocol="knn-v1"), row("raw", 0.4, protocol="knn-v1")])
    assert re.search(r"beats .* logistic regression by 41.3 points .*; it is worse than .* kNN by 10.0 points", said)


def test_verdict_without_floor_or_encoder():
    assert "reaches 71.3 %" in verdict([row()])
    assert "no floor" in verdict([row()])
    assert verdict([row("raw")]) == "No encoder was measured."


def test_verdict_counts_many_comparisons():
    many = [
        row(s, v, seed=n) for n, own in enumerate((0.9, 0.9, 0.5, 0.1)) for s, v in (("encoder", own), ("raw", 0.5))
    ]
    said = verdict(many)
    assert "In 4 comparisons" in said
    assert "beats the better floor 2 times" in said
    assert "not clearly different once" in said
    assert "worse once" in said


def test_floors_are_compared_only_with_the_same_protocol_data_settings_and_seed():
    changed = row("raw", 0.1, settings={"max_iter": 3})
    assert [len(group) for group in groups([row(), changed, row("raw", seed=1), row("raw", protocol="knn-v1")])] == [
        1
    ] * 4
    first = groups(rows())[0]
    assert [r.subject for r in first] == ["encoder", "untrained", "raw"]


def test_the_table_holds_the_numbers_of_the_rows():
    grouped, notes = lines(rows(), "simclr")
    made = [line.cells() for group in grouped for line in group]
    assert made[0] == (
        "logreg-v2", "encoder simclr ¹˒²", "71.3 [70.1, 72.5]", "61.3 [60.3, 62.3]", "C = 0.01", "50,000 / 10,000",
    )  # fmt: skip
    assert [line[1] for line in made] == [
        "encoder simclr ¹˒²", "untrained encoder", "raw pixels", "encoder simclr ²", "untrained encoder", "raw pixels",
    ]  # fmt: skip
    assert [line[2].split()[0] for line in made] == ["71.3", "40.1", "39.0", "66.5", "33.0", "34.5"]
    assert notes == ["C lies at the edge", "not converged"]


def test_terminal_table_prints_names_as_they_are():
    from rich.console import Console

    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(table(rows(), "[red]simclr"))
    text = console.export_text()
    assert "encoder [red]simclr ¹˒²" in text
    assert "71.3 [70.1, 72.5]" in text
    assert "¹ C lies at the edge" in text


def test_csv_keeps_full_precision():
    value = 0.7130000000000123
    read = list(csv.DictReader(io.StringIO(as_csv([row(value=value), row("raw", metrics={})]))))
    assert float(read[0]["top1"]) == value and read[0]["dataset"] == "cifar10"
    assert read[0]["test_fingerprint"] == "b2" * 32
    assert read[1]["top1"] == ""


@pytest.fixture
def page(tmp_path):
    figure = score_chart(rows(), HOSTILE)
    hostile = Figure("../sco res", figure.png, HOSTILE, HOSTILE)
    return write_report(
        tmp_path / "new" / "report",
        [*rows(), row("raw", test=DataRecord(name=HOSTILE, split="x", fingerprint="c3" * 32, samples=5))],
        title=HOSTILE,
        encoder_name=HOSTILE,
        figures=[figure, None, hostile, figure],
        notes=[HOSTILE],
        licences={HOSTILE: HOSTILE},
    )


def test_page_is_self_contained_and_well_formed(page):
    text = page.read_text(encoding="utf-8")
    parsed = Page(text)
    assert not {"script", "link", "iframe", "object", "embed", "base"} & set(parsed.tags)
    for tag, name, value in parsed.attributes:
        assert name not in ("href", "srcset", "onload", "onerror", "style")
        if name == "src":
            assert tag == "img"
            assert value.startswith("data:image/png;base64,")
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    assert "prefers-color-scheme: dark" in style
    assert ("meta", "name", "viewport") in parsed.attributes


def test_page_escapes_hostile_names(page):
    text = page.read_text(encoding="utf-8")
    assert "<script" not in text
    assert "".join(Page(text).text).count("<script>alert('x')</script>") >= 5


def test_page_shows_verdict_numbers_protocols_commands_and_fingerprints(page):
    text = " ".join("".join(Page(page.read_text(encoding="utf-8")).text).split())
    assert "31.2 points" in text
    for wanted in ("71.3 [70.1, 72.5]", "34.5 [33.3, 35.7]", "C = 0.01", "k = 20", "50,000 / 10,000", "not converged"):
        assert wanted in text
    assert "Multinomial logistic regression on frozen, standardised features; C is cross-validated" in text
    assert "python -m evaluation simclr cifar10 --protocol knn-v1" in text
    assert "a1" * 32 in text
    assert "cifar10unknown" in text.replace(" ", "")


def test_figures_lie_beside_the_page_under_safe_names(page):
    names = sorted(path.name for path in page.parent.iterdir())
    assert names == ["report.html", "sco_res.png", "scores.png", "scores_2.png"]
    assert not list(page.parent.parent.glob("*.png"))


def test_given_descriptions_replace_our_own(tmp_path):
    path = write_report(tmp_path, [row()], title="t", encoder_name="e", descriptions={"logreg-v2": "My own words."})
    text = path.read_text(encoding="utf-8")
    assert "My own words." in text
    assert "Multinomial" not in text


def test_a_failed_write_keeps_the_old_page(tmp_path, monkeypatch):
    path = write_report(tmp_path, [row()], title="old", encoder_name="e")
    monkeypatch.setattr("pathlib.Path.write_bytes", lambda self, data: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_report(tmp_path, [row()], title="new", encoder_name="e")
    assert "<title>old</title>" in path.read_text(encoding="utf-8")
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
