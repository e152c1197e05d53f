"""A card a person reads: what the first lines hold, what folds away, and what speaks against a claim."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
import yaml

from tests.zoo.checkpoints import results_for, write_small
from zoo.checkpoint import catalog
from zoo.checkpoint.results import Claim, Difference, Metric, Results, Versus
from zoo.publish.card import card_pictures, render_card
from zoo.publish.cards import write_cards
from zoo.publish.summary import chart_svg, claim_summaries, lines, missing, not_shown, protocol_name

#: Lines of the body that a reader sees before anything folds away.
FIRST = 40


def parts(card: str) -> tuple[dict, list[str]]:
    """The front matter, and the lines of the body."""
    _, front, body = card.split("---\n", 2)
    return yaml.safe_load(front), body.strip().splitlines()


@pytest.mark.parametrize("name", catalog.list_models())
def test_the_first_lines_of_every_card_hold_what_a_person_needs(name):
    config, results = catalog.config(name), catalog.results(name)
    front, body = parts(render_card(config, results))
    folds = [i for i, line in enumerate(body) if line == "<details>"]
    assert folds and folds[0] <= FIRST and len(folds) == body.count("</details>")
    top = "\n".join(body[: folds[0]])
    for wanted in (
        "**For**",
        "**Not for**",
        "**Input**",
        "code MIT",
        "**Trained**",
        "zoo.load(",
        "_results.svg)",
        "did not show",
    ):
        assert wanted in top, wanted
    assert top.count("\n|---") == 1 and top.count("![") == 1 and top.count("```python") == 1
    assert "few-label" in top or "Not measured:" in top
    metrics = [m for entry in front["model-index"][0]["results"] for m in entry["metrics"]]
    assert metrics and all(round(m["value"], 4) == m["value"] for m in metrics)
    text = "\n".join(body).split("<summary>Training record")[0]
    for once in (config.weights.sha256, "c_grid = "):
        assert text.count(once) <= 1, f"{once} is said {text.count(once)} times"
    for command in {row.command for row in results.rows}:
        assert text.count(f"`{command}`") == 1


def test_the_command_writes_every_card_and_picture(tmp_path, monkeypatch):
    config = write_small(tmp_path / "zoo" / "simclr_small_toys", results=None)
    (tmp_path / "zoo" / "simclr_small_toys" / "results.json").write_text(results_for(config).to_json())
    monkeypatch.setenv("ZOO_CHECKPOINTS", str(tmp_path / "zoo"))
    written = write_cards(tmp_path / "cards")
    assert [path.name for path in written] == ["simclr_small_toys.md", "simclr_small_toys_results.svg"]
    assert written[0].read_text() == render_card(config, results_for(config))
    assert written[1].read_text() == card_pictures(config, results_for(config))["simclr_small_toys_results.svg"]


def test_paired_differences_stand_in_the_table_and_their_doubt_beside_it(tmp_path):
    config = write_small(tmp_path / "c")
    stored = results_for(config)
    versus = Versus(other="untrained", metric="top1", value=0.02, low=-0.01, high=0.05, p=0.2, test="bootstrap")
    close = Metric(value=0.4256, low=0.4, high=0.45)
    own = stored.rows[0].model_copy(update={"versus": (versus,), "metrics": {"top1": close}})
    results = stored.model_copy(update={"rows": (own, *stored.rows[1:])})
    (line,) = lines(results)
    assert line.difference == "+2.0 [−1.0, +5.0]" and line.untrained == "40.6 % [39.6, 41.6]"
    (said,) = not_shown(results)
    assert said == (
        "On toys/test the encoder is not distinguishable from untrained encoder by logistic_v1 (+2.0 [−1.0, +5.0])."
    )
    card = render_card(config, results)
    assert said in card and "Differences are paired" in card and "unpaired" not in card
    assert missing(stored) == ["linear probe", "kNN", "few labels", "fine-tuning"]


def test_a_row_of_fine_tuning_says_how_long_it_trained(tmp_path):
    row = results_for(write_small(tmp_path / "c")).rows[0]
    for settings, name in (
        ({"steps": 100, "epochs": None, "batch_size": 32}, "finetune-v2, 100 steps of 32"),
        ({"steps": 100, "epochs": 60, "batch_size": 32}, "finetune-v2, 60 epochs"),
    ):
        assert protocol_name(row.model_copy(update={"protocol": "finetune-v2", "settings": settings})) == name
    assert protocol_name(row) == "logistic_v1"


def claim(arms: dict, differences: list[tuple], seeds: int = 3, **changes) -> Claim:
    fields = {
        "title": "new beats old", "measure": "top-1", "setting": "ten epochs", "seeds": tuple(range(seeds)),
        "arms": dict.fromkeys(arms, (0.5,) * seeds), "command": "python -m x", "code_commit": "c0ffee",
        "differences": tuple(
            Difference(arm=a, other=b, mean=mean, low=low, high=high) for a, b, mean, low, high in differences
        ),
    }  # fmt: skip
    return Claim(**fields | changes)


def test_a_claim_comes_with_the_strongest_thing_against_it():
    pair = claim(["old", "new"], [("new", "old", 0.013, 0.006, 0.021)], seeds=6)
    three = claim(
        ["old", "naive", "new"],
        [
            ("naive", "old", 0.01, 0.0, 0.02),
            ("new", "old", 0.012, -0.01, 0.03),
            ("new", "naive", -0.007, -0.026, 0.011),
        ],
    )
    (said,) = claim_summaries([pair, three])
    assert said == (
        "new beats old (top-1): best evidence for it: new minus old +1.3 points [+0.6, +2.1] over 6 seeds (ten "
        "epochs); strongest against it: new minus naive −0.7 points [−2.6, +1.1] over 3 seeds (ten epochs)."
    )
    (said,) = claim_summaries([claim(["untrained", "new"], [("new", "untrained", 0.1, 0.05, 0.15)])])
    assert said.endswith("compared with random weights only.")
    # Stored the other way round, the difference is turned.
    (said,) = claim_summaries([claim(["old", "new"], [("old", "new", 0.02, 0.01, 0.03)])])
    assert "no comparison shows it with certainty" in said and "new minus old −2.0 points [−3.0, −1.0]" in said
    (said,) = claim_summaries([claim(["old", "new"], [("new", "old", 0.02, None, None)], seeds=1)])
    assert "no comparison shows it" in said and "over 1 seed (" in said
    assert claim_summaries([]) == []


def test_the_card_of_a_searched_cell_says_whether_the_search_was_judged():
    config, results = catalog.config("ssnas_cell_cifar10"), catalog.results("ssnas_cell_cifar10")
    unknown = "Whether the search helped is not known"
    assert unknown in render_card(config, results.model_copy(update={"claims": ()}))
    judged = claim(["random cells", "searched"], [("searched", "random cells", 0.01, 0.0, 0.02)])
    assert unknown not in render_card(config, results.model_copy(update={"claims": (judged,)}))
    other = catalog.config("simclr_airbench95_cifar10")
    assert unknown not in render_card(other, catalog.results("simclr_airbench95_cifar10"))


def test_the_card_of_clsa_says_that_naive_strong_views_do_as_well():
    results = catalog.results("clsa_airbench94_cifar10")
    (said,) = claim_summaries(results.claims)
    assert "CLSA minus MoCo v2 +1.3 points [+0.6, +2.1] over 6 seeds" in said
    assert "strongest against it: CLSA minus strong views in the contrastive loss" in said


def test_the_picture_is_a_picture_of_the_numbers_whatever_the_names_are(tmp_path):
    config = write_small(tmp_path / "c")
    stored = results_for(config)
    odd = [row.model_copy(update={"protocol": "<script>&\x1b"}) for row in stored.rows]
    svg = chart_svg(Results(rows=tuple(odd)), '"><b>')
    tree = ElementTree.fromstring(svg)
    texts = [each.text for each in tree.iter("{http://www.w3.org/2000/svg}text")]
    assert "81.2 %" in texts and "40.6 %" in texts and any("<script>&\\x1b" in text for text in texts)
    widths = [float(each.get("width")) for each in tree.iter("{http://www.w3.org/2000/svg}rect")][1:]
    assert widths == pytest.approx([4 * 81.23, 4 * 40.56, 4 * 30.01], abs=0.1)
    assert not re.search("<script|\x1b", svg) and chart_svg(Results(), "x") is None
