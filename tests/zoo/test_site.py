"""The catalogue page: complete, escaped, self-contained, searchable in a browser, and no wider than a phone."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from evaluation.metrics import compare
from tests.zoo.checkpoints import record, results_for, write_small
from tests.zoo.test_verification import command
from zoo.checkpoint import catalog
from zoo.checkpoint.config import DatasetRecord, Method
from zoo.checkpoint.results import Claim
from zoo.publish.site import write_site

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine (apt-get install chromium)")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A page over three checkpoints, one of them unmeasured and with hostile words."""
    root = tmp_path_factory.mktemp("catalogue")
    for name, title in (("simclr_small_toys", "SimCLR"), ("clsa_small_toys", "CLSA")):
        method = Method(name=title.lower(), title=title, paper="A paper")
        config = write_small(root / name, name=name, method=method)
        results = results_for(config)
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
    assert text.count("81.2 %") >= 4 and "40.6 %" in text and "only 50 test samples" in text
    assert "zoo.load(&#34;simclr_small_toys&#34;)" in text and "Not measured yet" in text
    assert "Claim: Stronger views help" in text and "57.0 % (mean of 2 seeds)" in text and "+6.0 points" in text
    assert sorted(path.name for path in (page.parent / "cards").iterdir()) == [
        "clsa_small_toys.md", "clsa_small_toys_results.svg", "odd_small_set.md", "simclr_small_toys.md",
        "simclr_small_toys_results.svg",
    ]  # fmt: skip


def test_nothing_from_elsewhere_and_nothing_unescaped(page):
    text = page.read_text()
    assert not re.search(r'(src|href)="(?!cards/|data:image/)', text) and "@import" not in text and "url(" not in text
    assert "<script>alert" not in text and "&lt;script&gt;alert" in text and "{{ 1 }}" in text


def test_pictures_of_a_checkpoint_are_embedded(tmp_path, monkeypatch):
    from PIL import Image

    write_small(tmp_path / "zoo" / "simclr_small_toys")
    Image.new("RGB", (8, 8)).save(tmp_path / "zoo" / "simclr_small_toys" / "nearest_neighbours.png")
    monkeypatch.setenv("ZOO_CHECKPOINTS", str(tmp_path / "zoo"))
    assert command(monkeypatch, "site", "--out", str(tmp_path / "site")) == 0
    text = (tmp_path / "site" / "index.html").read_text()
    assert 'alt="nearest neighbours" src="data:image/png;base64,' in text


def test_the_bundled_catalogue(tmp_path, monkeypatch):
    monkeypatch.delenv("ZOO_CHECKPOINTS", raising=False)
    text = write_site(tmp_path).read_text()
    assert re.findall(r'<article id="(\w+)"', text) == catalog.list_models()


def test_an_empty_catalogue(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_CHECKPOINTS", str(tmp_path))
    assert "0 checkpoints" in write_site(tmp_path / "site").read_text()


def dom(address: str, tmp_path) -> str:
    """The document as Chromium leaves it after running its scripts."""
    done = subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
        + ["--virtual-time-budget=3000", "--window-size=1000,900", "--dump-dom", address],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return done.stdout


@browser
def test_search_and_filters_in_a_browser(page, tmp_path):
    """One browser start looks at several searches: each frame is the page with another address."""
    searches = ["", "#q=CLSA", "#modality=image&method=SimCLR", "#q=nothing+like+this", "#q=toys+clsa&dataset=toys"]
    frames = "".join(f'<iframe width="390" height="700" src="site/index.html{search}"></iframe>' for search in searches)
    probe = """<script>document.querySelectorAll("details").forEach(d => { d.open = true; });
        addEventListener("load", () => parent.postMessage({at: location.hash, inner: innerWidth,
        wide: document.documentElement.scrollWidth, count: document.getElementById("count").textContent,
        shown: [...document.querySelectorAll("article")].filter(a => !a.hidden).map(a => a.id).join()}, "*"))
        </script>"""
    shutil.copytree(page.parent, tmp_path / "site")
    (tmp_path / "site" / "index.html").write_text(page.read_text().replace("</body>", f"{probe}</body>"))
    (tmp_path / "harness.html").write_text(
        "<body><pre></pre><script>addEventListener('message', e => document.querySelector('pre').textContent +="
        f" JSON.stringify(e.data) + '\\n')</script>{frames}</body>"
    )
    out = dom(f"file://{tmp_path / 'harness.html'}", tmp_path)
    import json

    said = {line["at"]: line for line in map(json.loads, out.split("<pre>")[1].split("</pre>")[0].splitlines())}
    shown = {at: line["shown"] for at, line in said.items()}
    assert shown[""].count(",") == 2 and shown["#q=CLSA"] == "clsa_small_toys"
    assert shown["#modality=image&amp;method=SimCLR"] == "odd_small_set,simclr_small_toys"
    assert shown["#q=nothing+like+this"] == "" and shown["#q=toys+clsa&amp;dataset=toys"] == "clsa_small_toys"
    assert said["#q=CLSA"]["count"] == "1 of 3 checkpoints"
    assert all(line["wide"] <= line["inner"] <= 390 for line in said.values()), "the page is wider than a phone"
