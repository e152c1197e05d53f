"""The catalogue page: complete, escaped, self-contained, searchable in a browser, and no wider than a phone."""

from __future__ import annotations

import re

import pytest

from evaluation.metrics import compare
from tests.browser import browser, looked_at
from tests.zoo.checkpoints import record, results_for, write_small
from tests.zoo.test_verification import command
from zoo.checkpoint import catalog
from zoo.checkpoint.config import DatasetRecord, Method
from zoo.checkpoint.results import Claim
from zoo.publish.site import _thumbnail, write_site


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A page over three checkpoints, one of them unmeasured and with hostile words."""
    root = tmp_path_factory.mktemp("catalogue")
    for name, title in (("simclr_small_toys", "SimCLR"), ("clsa_small_toys", "CLSA")):
        method = Method(name=title.lower(), title=title, paper="A paper")
        config = write_small(root / name, name=name, method=method)
        results = results_for(config, 0.8123 if title == "CLSA" else 0.9)
        rows = tuple(row.model_copy(update={"protocol": "logreg-v3"}) for row in results.rows)
        results = results.model_copy(update={"rows": rows})
        if title == "CLSA":
            arms = {"plain": (0.5, 0.52), "ddm": (0.56, 0.58)}
            facts = {"title": "Stronger views help", "measure": "top-1", "setting": "8 epochs", "command": "python x"}
            claim = Claim(seeds=(0, 1), arms=arms, differences=compare(arms), code_commit="c0ffee", **facts)
            results = results.model_copy(update={"claims": (claim,)})
        write_small(root / name, name=name, method=method, results=results)
    data = DatasetRecord(name="<script>alert(1)</script>", split="train", samples=3, fingerprint="x", licence="a & b")
    write_small(root / "odd_small_set", name="odd_small_set", training=record(dataset=data, hardware="{{ 1 }}" * 40))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZOO_CHECKPOINTS", str(root))
        return write_site(root / "site")


def test_every_checkpoint_with_its_numbers(page):
    text = page.read_text()
    assert re.findall(r'<article id="(\w+)"', text) == ["clsa_small_toys", "odd_small_set", "simclr_small_toys"]
    assert text.count("81.2 %") >= 2 and "40.6 %" in text and "only 50 test samples" in text
    assert "zoo.load(&#34;simclr_small_toys&#34;)" in text and "Not measured yet" in text
    assert "Claim: Stronger views help" in text and "57.0 % (mean of 2 seeds)" in text and "+6.0 points" in text
    assert sorted(path.name for path in (page.parent / "cards").iterdir()) == [
        "clsa_small_toys.md", "clsa_small_toys_results.svg", "odd_small_set.md", "simclr_small_toys.md",
        "simclr_small_toys_results.svg",
    ]  # fmt: skip


def test_nothing_from_elsewhere_and_nothing_unescaped(page):
    text = page.read_text()
    assert not re.search(r'(src|href)="(?!cards/|data:image/|#)', text) and "@import" not in text and "url(" not in text
    assert "<script>alert" not in text and "&lt;script&gt;alert" in text and "{{ 1 }}" in text


def test_pictures_of_a_checkpoint_are_embedded(tmp_path, monkeypatch):
    from PIL import Image

    write_small(tmp_path / "zoo" / "simclr_small_toys")
    Image.new("RGB", (8, 8)).save(tmp_path / "zoo" / "simclr_small_toys" / "nearest_neighbours.png")
    monkeypatch.setenv("ZOO_CHECKPOINTS", str(tmp_path / "zoo"))
    assert command(monkeypatch, "site", "--out", str(tmp_path / "site")) == 0
    text = (tmp_path / "site" / "index.html").read_text()
    assert 'alt="nearest neighbours" src="data:image/png;base64,' in text
    table = text[text.index('<table class="compare"') : text.index("</table>")]
    assert table.count('<img alt="" src="data:image/png;base64,') == 1, "no thumbnail"


def test_a_picture_that_is_none_has_no_thumbnail():
    assert _thumbnail([]) == _thumbnail([{"source": "data:image/png;base64,AAAA"}]) == ""
    assert _thumbnail([{"source": "data:image/svg+xml;base64,AAAA"}]) == "data:image/svg+xml;base64,AAAA"


def test_the_bundled_catalogue(tmp_path, monkeypatch):
    monkeypatch.delenv("ZOO_CHECKPOINTS", raising=False)
    text = write_site(tmp_path).read_text()
    assert re.findall(r'<article id="(\w+)"', text) == catalog.list_models()


def test_an_empty_catalogue(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_CHECKPOINTS", str(tmp_path))
    assert "0 checkpoints" in write_site(tmp_path / "site").read_text()


def test_the_table_that_compares_holds_each_checkpoint_once_with_what_it_is_sorted_by(page):
    text = page.read_text()
    table = text[text.index('<table class="compare"') : text.index("</table>")]
    assert re.findall(r'<tr data-name="(\w+)"', table) == ["clsa_small_toys", "odd_small_set", "simclr_small_toys"]
    rows = dict(re.findall(r'<tr data-name="(\w+)">(.*?)</tr>', table, re.S))
    assert 'data-sort="0.8123"' in rows["clsa_small_toys"] and "81.2" in rows["clsa_small_toys"]
    assert "untrained 40.6 %" in rows["clsa_small_toys"] and "not measured" in rows["odd_small_set"]
    assert rows["odd_small_set"].count('<td class="number" data-sort="">') == 2


@browser
def test_search_and_filters_in_a_browser(page, tmp_path):
    searches = ["", "#q=CLSA", "#modality=image&method=SimCLR", "#q=nothing+like+this", "#q=toys+clsa&dataset=toys"]
    found = """count: document.getElementById("count").textContent,
        shown: [...document.querySelectorAll("article")].filter(a => !a.hidden).map(a => a.id).join(),
        compared: rows.filter(row => !row.hidden).map(row => row.dataset.name).join()"""
    opened = 'document.querySelectorAll("details").forEach(d => { d.open = true; })'
    widths = [(page, search, 400) for search in searches] + [(page, "", 1200)]
    said = looked_at(widths, tmp_path, opened, found)
    shown = dict(zip(searches, (line["shown"] for line in said), strict=False))
    assert shown[""].count(",") == 2 and shown["#q=CLSA"] == "clsa_small_toys"
    assert shown["#modality=image&method=SimCLR"] == "odd_small_set,simclr_small_toys"
    assert shown["#q=nothing+like+this"] == "" and shown["#q=toys+clsa&dataset=toys"] == "clsa_small_toys"
    assert all(line["compared"] == line["shown"] for line in said)
    assert said[1]["count"] == "1 of 3 checkpoints"
    assert all(line["wide"] <= line["inner"] <= 1200 for line in said), "the page is wider than its window"


@browser
def test_the_table_is_sorted_by_the_heading_that_is_pressed(page, tmp_path):
    """Once for the best first, twice for the other order; text from the first letter on."""
    found = """order: [...document.querySelectorAll("#compare tbody tr")].map(row => row.dataset.name[0]).join(""),
        sort: [...document.querySelectorAll("#compare th")].map(th => th.getAttribute("aria-sort")).find(Boolean)"""

    press = """const asked = new URLSearchParams(location.hash.slice(1));
        for (let i = 0; i < asked.get("times"); i++)
            document.querySelectorAll("#compare thead button")[asked.get("heading")].click()"""
    presses = [(0, 0), (2, 1), (2, 2), (0, 1)]
    pages = [(page, f"#heading={heading}&times={times}", 1200) for heading, times in presses]
    first, best, worst, names = looked_at(pages, tmp_path, press, found)
    # What was not measured is the last in either order.
    assert first == first | {"sort": "ascending", "order": "cos"}
    assert best == best | {"sort": "descending", "order": "sco"}
    assert worst == worst | {"sort": "ascending", "order": "cso"}
    assert names == names | {"sort": "descending", "order": "soc"}
