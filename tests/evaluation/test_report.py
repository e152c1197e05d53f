"""Reports: the verdict is honest, the tables hold the numbers of the rows, the page needs no other file."""

from __future__ import annotations

import csv
import io
import re
from html.parser import HTMLParser

import pytest

from evaluation.protocols.knn import KnnV2
from evaluation.protocols.logistic import LogRegV3
from evaluation.report.drawing import Figure
from evaluation.report.maps import score_chart
from evaluation.report.page import write_report
from evaluation.report.tables import as_csv, lines, table
from evaluation.report.verdict import verdict
from zoo.checkpoint.judging import groups, judged
from zoo.checkpoint.results import DataRecord, Metric, Result, Versus
from zoo.errors import DataError

HOSTILE = "<script>alert('x')</script>\"&|[red]"
VOID = {"meta", "img", "br", "link", "input", "hr", "wbr"}


def row(subject="encoder", value=0.713, half=0.012, protocol="logreg-v3", **changes) -> Result:
    settings = (LogRegV3() if protocol.startswith("logreg") else KnnV2()).model_dump(mode="json", exclude={"name"})
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


def minus(other: str, value: float, half: float = 0.01, p: float = 1e-6, **changes) -> Versus:
    fields = {"other": other, "metric": "top1", "value": value, "low": value - half, "high": value + half, "p": p}
    return Versus(**fields | {"test": "bootstrap"} | changes)


def rows() -> list[Result]:
    won = minus("untrained", 0.312), minus("raw", 0.323)
    knn = minus("untrained", 0.335), minus("raw", 0.32)
    return [
        row("raw", 0.39),
        row("encoder", 0.713, warnings=("C lies at the edge", "not converged"), versus=won),
        row("untrained", 0.401, spread={"top1": (0.39, 0.401, 0.412)}),
        row("encoder", 0.665, protocol="knn-v2", warnings=("not converged",), versus=knn),
        row("untrained", 0.33, protocol="knn-v2"),
        row("raw", 0.345, protocol="knn-v2"),
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
    assert "beats the better baseline under logistic regression by 31.2 points [30.2, 32.2] (untrained encoder)" in said
    assert "under weighted kNN by 32.0 points [31.0, 33.0] (raw pixels)" in said
    assert "mean of 3 initialisations" in said and "Holm's correction for 4 comparisons" in said


def test_verdict_of_a_clear_loss_is_a_loss_though_the_intervals_overlap():
    """The intervals of the two rows overlap; the paired difference does not hold zero."""
    lost = row(value=0.479, half=0.03, versus=(minus("raw", -0.047, 0.032, 0.004, groups=10),))
    said = verdict([lost, row("raw", 0.526, 0.03)])
    assert "is worse than the better baseline (raw pixels) under logistic regression by 4.7 points [1.5, 7.9]" in said
    assert "whole groups such as persons (10)" in said


def test_verdict_of_a_difference_that_chance_explains_claims_nothing():
    said = verdict([row(value=0.50, versus=(minus("untrained", 0.02, 0.03, 0.2),)), row("untrained", 0.48)])
    assert "is not distinguishable from the better baseline (untrained encoder)" in said
    assert "+2.0 [−1.0, +5.0] points" in said and "beats" not in said


def test_one_small_difference_among_many_comparisons_is_corrected_away():
    own = row(value=0.5, versus=(minus("untrained", 0.02, 0.019, 0.04), minus("raw", 0.3, 0.01, 0.5)))
    alone = row(value=0.5, versus=(minus("untrained", 0.02, 0.019, 0.04),))
    floors = [row("untrained", 0.48), row("raw", 0.2)]
    assert [each.outcome for each in judged([alone, *floors])] == ["above"]
    assert [each.outcome for each in judged([own, *floors])] == ["same"]
    assert "but not after correction for all comparisons" in verdict([own, *floors])


def test_results_stored_without_pairs_are_told_apart_only_where_their_intervals_are():
    said = verdict([row(value=0.50), row("untrained", 0.30), row("raw", 0.2)])
    assert "beats the better baseline under logistic regression by 20.0 points (untrained encoder)" in said
    assert "Not compared in pairs: measure again" in said
    said = verdict([row(value=0.50), row("untrained", 0.49)])
    assert "is not distinguishable from" in said and "+1.0 points, intervals overlap" in said


def test_verdict_of_mixed_outcomes_states_each():
    said = verdict(
        [
            row(versus=(minus("raw", 0.413),)), row("raw", 0.3),
            row(value=0.3, protocol="knn-v2", versus=(minus("raw", -0.1),)), row("raw", 0.4, protocol="knn-v2"),
        ]
    )  # fmt: skip
    assert re.search(r"beats .* logistic regression by 41.3 points .*; it is worse than .* kNN by 10.0 points", said)


def test_verdict_without_baseline_or_encoder():
    assert "reaches 71.3 %" in verdict([row()])
    assert "no baseline" in verdict([row()])
    assert verdict([row("raw")]) == "No encoder was measured."


def test_verdict_counts_many_comparisons():
    many = [
        row(s, v, seed=n, versus=(minus("raw", own - 0.5, p=1e-6 if own != 0.5 else 0.9),) if s == "encoder" else ())
        for n, own in enumerate((0.9, 0.9, 0.5, 0.1))
        for s, v in (("encoder", own), ("raw", 0.5))
    ]
    said = verdict(many)
    assert "In 4 comparisons" in said
    assert "beats the better baseline 2 times" in said
    assert "not distinguishable from it once" in said
    assert "worse once" in said


def test_the_metric_of_the_field_is_what_is_compared():
    own = row(metrics={"top1": row().metrics["top1"], "map": Metric(value=0.5, low=0.4, high=0.6)}, headline="map")
    own = own.model_copy(update={"versus": (minus("raw", -0.2, metric="map"), minus("raw", 0.5))})
    other = row("raw", metrics={"map": Metric(value=0.7, low=0.6, high=0.8)}, headline="map")
    assert "is worse than" in verdict([own, other]) and "20.0 points" in verdict([own, other])


def test_floors_are_compared_only_with_the_same_protocol_data_settings_and_seed():
    changed = row("raw", 0.1, settings={"max_iter": 3})
    assert [len(group) for group in groups([row(), changed, row("raw", seed=1), row("raw", protocol="knn-v2")])] == [
        1
    ] * 4
    first = groups(rows())[0]
    assert [r.subject for r in first] == ["encoder", "untrained", "raw"]


def test_the_table_holds_the_numbers_of_the_rows():
    grouped, notes = lines(rows(), "simclr")
    made = [line.cells() for group in grouped for line in group]
    assert made[0] == (
        "logreg-v3", "encoder simclr ¹˒²", "71.3 [70.1, 72.5]", "61.3 [60.3, 62.3]", "", "C = 0.01",
        "50,000 / 10,000",
    )  # fmt: skip
    assert [line[4] for line in made[1:3]] == ["+31.2 [+30.2, +32.2]", "+32.3 [+31.3, +33.3]"]
    assert made[1][5] == "3 initialisations: top-1 accuracy 39.0 to 41.2, C = 0.01"
    assert [line[1] for line in made] == [
        "encoder simclr ¹˒²", "untrained encoder", "raw pixels", "encoder simclr ²", "untrained encoder", "raw pixels",
    ]  # fmt: skip
    assert [line[2].split()[0] for line in made] == ["71.3", "40.1", "39.0", "66.5", "33.0", "34.5"]
    assert notes == ["C lies at the edge", "not converged"]


def test_terminal_table_prints_names_as_they_are():
    from rich.console import Console

    console = Console(width=240, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
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
    (read,) = csv.DictReader(io.StringIO(as_csv([row(versus=(minus("raw", 0.1),))])))
    assert float(read["top1_minus_raw"]) == 0.1 and float(read["top1_minus_raw_p"]) == 1e-6


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
    assert "python -m evaluation simclr cifar10 --protocol knn-v2" in text
    assert "a1" * 32 in text
    assert "cifar10unknown" in text.replace(" ", "")


def test_figures_lie_beside_the_page_under_safe_names(page):
    names = sorted(path.name for path in page.parent.iterdir())
    assert names == ["report.html", "sco_res.png", "scores.png", "scores_2.png"]
    assert not list(page.parent.parent.glob("*.png"))


def test_given_descriptions_replace_our_own(tmp_path):
    path = write_report(tmp_path, [row()], title="t", encoder_name="e", descriptions={"logreg-v3": "My own words."})
    text = path.read_text(encoding="utf-8")
    assert "My own words." in text
    assert "Multinomial" not in text


def test_a_failed_write_keeps_the_old_page(tmp_path, monkeypatch):
    path = write_report(tmp_path, [row()], title="old", encoder_name="e")
    monkeypatch.setattr("pathlib.Path.write_bytes", lambda self, data: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(DataError, match="disk full"):
        write_report(tmp_path, [row()], title="new", encoder_name="e")
    assert "<title>old</title>" in path.read_text(encoding="utf-8")
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
