"""Text of others on its way out: no value of config.json or results.json acts on a terminal, a card or a page."""

from __future__ import annotations

import json
import unicodedata
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import yaml
from markdown_it import MarkdownIt
from rich.text import Text as TextOf

from tests.zoo.checkpoints import record, results_for, write_small
from tests.zoo.test_cli import root, zoo_command  # noqa: F401  (fixtures)
from zoo.checkpoint.config import parse_config
from zoo.checkpoint.results import Claim, Difference, parse_results
from zoo.console import shown, stages
from zoo.errors import DataWarning, HubError, ZooError
from zoo.publish import card as card_module
from zoo.publish.card import essentials, render_card
from zoo.publish.site import write_site
from zoo.text import clipped, code_block, code_span, markdown, printable

#: What acts on a terminal or on the order of letters.
ACTING = [
    "\x1b[2J\x1b[31m",
    "\x1b]0;owned\x07",
    "\x9b2J",
    "\r",
    "\x08",
    "\n",
    "\u202egpj.exe",
    "\u2066",
    "\u2028",
]
#: What Markdown would make more of than text.
MARKS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[a](javascript:alert(1))",
    "![a](https://tracker.example/x.png)",
    "[a]: https://tracker.example",
    "<javascript:alert(1)>",
    "# heading",
    "> quote",
    "- list",
    "1. list",
    "---",
    "===",
    "```\n# heading\n<script>x</script>\n```",
    "~~~\n# heading\n~~~",
    "`<b>`",
    "a | <script>x</script> | c",
    "*a* _b_ ~~c~~",
    "\\[a](https://tracker.example)",
    "[/x]",
    "&lt;",
    "{{ 1 }}",
    "a]\n\n[b](c)",
]
#: Fields that are limited to some words or to a hash; all others may hold anything.
LIMITED = {"sha256", "weights_sha256", "subject", "modality", "family", "model", "stem", "dtype", "file"}
LIMITED |= {"interpolation", "inputs"}
#: Objects whose keys are free too.
FREE = {"recipe", "versions", "settings", "chosen", "metrics", "arms"}


def filled(value: Any, text: str, key: str = "", inside: str = "") -> Any:
    """`value` with every free text in it replaced by `text`, and every free key begun with it."""
    if isinstance(value, dict):
        return {(f"{text}{k}" if key in FREE else k): filled(v, text, k, key) for k, v in value.items()}
    if isinstance(value, list):
        return [filled(item, text, key, inside) for item in value]
    limited = key in LIMITED or (key == "name" and not inside)
    return text if isinstance(value, str) and not limited else value


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Texts of a config.json with everything in it, and of a results.json."""
    folder = tmp_path_factory.mktemp("root") / "simclr_small_toys"
    start = {"name": "x", "address": "x", "sha256": "0" * 64, "method": "x", "epochs": 1, "samples_seen": 2}
    started = {**start, "dataset": record().dataset.model_dump()}
    config = write_small(folder, training=record(started_from=started, recipe={"a": "x", "b": {"c": ["x"]}}))
    difference = Difference(arm="a", other="b", mean=0.1)
    claim = Claim(
        title="t", measure="m", setting="s", seeds=(0,), arms={"a": (0.1,), "b": (0.2,)}, differences=(difference,),
        command="c", code_commit="d",
    )  # fmt: skip
    results = results_for(config)
    rows = tuple(r.model_copy(update={"settings": {"labels": "x", "k": "y"}}) for r in results.rows)
    results = results.model_copy(update={"claims": (claim,), "rows": rows})
    (folder / "results.json").write_text(results.to_json())
    return folder


def hostile(folder, text: str):
    """The config and results of `folder` with `text` in every free field."""
    config = filled(json.loads((folder / "config.json").read_text()), text)
    config["mirrors"] = [text]
    results = filled(json.loads((folder / "results.json").read_text()), text)
    return parse_config(json.dumps(config), "x"), parse_results(json.dumps(results).encode(), "x")


@pytest.fixture(scope="module")
def plain(written):
    """The summary, and the markup of the card, of harmless words."""
    config, results = hostile(written, "x")
    return essentials(config, results), markup(render_card(config, results))


def acts(text: str) -> list[str]:
    return [c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") and c not in "\n\t"]


@pytest.mark.parametrize("text", ACTING, ids=ascii)
def test_nothing_acts_on_the_way_out(written, plain, text):
    config, results = hostile(written, f"a{text}b")
    summary, card = essentials(config, results), render_card(config, results)
    assert not acts(summary) and not acts(card)
    assert len(summary.splitlines()) == len(plain[0].splitlines())
    front = yaml.safe_load(card.split("---")[1])
    assert not acts(json.dumps(front, ensure_ascii=False)) and front["license"] == "other"
    assert markup(card) == plain[1]


def markup(card: str) -> list[tuple[str, str, str]]:
    """What a CommonMark parser with tables makes of a card, but for the text itself: type, tag and target."""
    body = card.split("---\n", 2)[2]
    found = []
    for token in MarkdownIt("commonmark").enable("table").parse(body):
        for part in [token, *(token.children or [])]:
            if part.type not in ("text", "softbreak", "text_special", "fence", "inline"):
                target = part.attrGet("href") or part.attrGet("src") or ""
                found.append((part.type, part.tag, str(target)))
    return found


@pytest.mark.parametrize("text", MARKS, ids=ascii)
def test_a_card_has_the_same_markup_whatever_the_words_are(written, plain, text):
    card = render_card(*hostile(written, text))
    assert markup(card) == plain[1]
    kinds = [kind for kind, _, _ in plain[1]]
    assert not {"html_inline", "strikethrough"} & set(kinds)
    # The template's own: folding parts, and the picture of the results.
    template = (Path(card_module.__file__).parent / "templates" / "card.md").read_text()
    assert kinds.count("image") == 1 and kinds.count("html_block") <= 2 * template.count("<details>") + 2
    shown = MarkdownIt("commonmark").enable("table").render(card.split("---\n", 2)[2])
    assert " ".join(text.split()) in " ".join(unescape(shown).split()), "the words themselves are shown as they are"


@pytest.mark.parametrize("text", ["x", "[x](y)", "<b>", "a|b", "a`b", "``", "# x", "x_y", "_x_", "", "1.5 %", "-0.5"])
def test_markdown_once_and_as_it_is(text):
    assert markdown(markdown(text)) == markdown(text)
    for made in (markdown(text), code_span(text)):
        tokens = MarkdownIt("commonmark").parse(f"x {made} x")[1].children
        shown = "".join(token.content for token in tokens if token.type != "softbreak")
        assert shown.replace(" ", "") == f"x{text}x".replace(" ", "")
    block = MarkdownIt("commonmark").parse(code_block(text, "yaml"))
    assert [token.type for token in block] == ["fence"] and block[0].content == f"{text}\n"


def test_half_a_surrogate_pair_can_be_printed():
    assert printable("a\ud800") == r"a\ud800" and str(ZooError("\ud800").args[0]).encode()


def test_letters_of_all_scripts_stay():
    for text in ("Zürich", "数据集", "می‌خواهم", "नमस्ते", "naïve 🌻", "95 % ± 1"):
        assert printable(text) == text and markdown(text) == text


def test_a_page_shows_what_acts_as_text(written, tmp_path, monkeypatch):
    folder = tmp_path / "root" / "simclr_small_toys"
    folder.mkdir(parents=True)
    for file in written.iterdir():
        content = file.read_bytes()
        if file.name in ("config.json", "results.json"):
            content = json.dumps(filled(json.loads(content), "\x1b\u202e</pre><script>x")).encode()
        (folder / file.name).write_bytes(content)
    monkeypatch.setenv("ZOO_CHECKPOINTS", str(folder.parent))
    page = write_site(tmp_path / "site").read_text(encoding="utf-8")
    assert not acts(page) and r"\x1b\u202e" in page and "<script>x" not in page


def test_list_and_show_survive_every_title(written, tmp_path, monkeypatch, zoo_command):  # noqa: F811
    folder = tmp_path / "simclr_small_toys"
    folder.mkdir()
    monkeypatch.setenv("ZOO_CHECKPOINTS", str(tmp_path))
    for text in [*ACTING, *MARKS, "x" * 10_000]:
        config = filled(json.loads((written / "config.json").read_text()), text)
        (folder / "config.json").write_text(json.dumps(config))
        for command in ("list", "show"):
            status, out, _ = zoo_command(command, *(["simclr_small_toys"] if command == "show" else []))
            assert status == 0 and not acts(out)
            assert command == "show" or len(out.splitlines()) < 10


def test_progress_takes_a_name_as_it_is(capsys):
    assert TextOf.from_markup(shown("extracting [/x] \x1b[2J")).plain == "extracting [/x] \\x1b[2J"
    with stages() as advance:
        advance("extracting [/x] \x1b[2J", 1, 2)
    assert not acts(capsys.readouterr().err)


@pytest.mark.parametrize("kind", [ZooError, HubError, DataWarning])
def test_every_message_is_one_line_of_bounded_length(kind):
    assert str(kind("a\x1b[2J\nb")) == r"a\x1b[2J\nb"
    assert str(kind("all of these:\n  a\x1b\n  b\r")) == "all of these:\n  a\\x1b\n  b\\r", "an indented list stays"
    assert 3000 < len(str(kind("x" * 10_000_000))) < 4100
    assert str(kind()) == ""


def test_clipped():
    assert clipped("x" * 80) == "x" * 80 and clipped("x" * 81) == "x" * 77 + "..."
    assert len(clipped("\x1b" * 10_000_000)) == 80
