"""Claims between methods: paired differences, their table, and the card that shows them."""

from __future__ import annotations

import json
import re

import pytest
from scipy import stats

from evaluation.metrics import compare, interval, unpaired
from tests.zoo.checkpoints import results_for, write_small
from zoo.checkpoint.config import read_config
from zoo.checkpoint.results import Claim, read_claim, read_results
from zoo.errors import ConfigError
from zoo.publish.card import render_card
from zoo.publish.publishing import publish

ARMS = {"plain": (0.50, 0.52, 0.51), "better": (0.55, 0.56, 0.57)}


def claim(**changes) -> Claim:
    fields = {
        "title": "better beats plain",
        "measure": "top-1 accuracy on the test split of toys, logreg-v1",
        "setting": "resnet10t, 3 epochs",
        "seeds": (0, 1, 2),
        "arms": ARMS,
        "differences": compare(ARMS),
        "command": "python -m benchmarks.toys",
        "code_commit": "c0ffee",
    }
    return Claim(**{**fields, **changes})


def test_intervals_are_those_of_the_paired_t_test():
    (difference,) = compare(ARMS)
    expected = stats.ttest_rel(ARMS["better"], ARMS["plain"]).confidence_interval(0.95)
    assert (difference.low, difference.high) == pytest.approx((expected.low, expected.high))
    assert difference.mean == pytest.approx(0.05) and (difference.arm, difference.other) == ("better", "plain")
    (single,) = compare({"a": [0.25], "b": [0.5]})
    assert single.mean == 0.25 and single.low is None and single.high is None
    assert [(d.arm, d.other) for d in compare({"a": [0], "b": [0], "c": [0]})] == [("b", "a"), ("c", "a"), ("c", "b")]


def test_table_shows_every_seed_and_difference():
    text = claim().table()
    assert "| plain | 50.00 | 52.00 | 51.00 | 51.00 |" in text
    assert re.search(r"\| better − plain \| \+5\.00 \| \[\+\d\.\d\d, \+\d\.\d\d\] \|", text)
    assert "one seed" in claim(seeds=(0,), differences=compare({"a": [0.1], "b": [0.2]})).table()


def test_the_card_shows_a_claim_and_keeps_it(tmp_path):
    run = tmp_path / "run"
    config = write_small(run, results=None)
    (tmp_path / "claim.json").write_text(claim().to_json())
    out = {"out": tmp_path / "out", "cards_dir": tmp_path / "cards"}
    folder = publish(run, "simclr_small_toys", claims=[read_claim(tmp_path / "claim.json")], **out)
    text = (tmp_path / "cards" / "simclr_small_toys.md").read_text()
    assert "<summary>Claim 1</summary>" in text and claim().table() in text and "not on these weights" in text
    assert "- better beats plain (top-1 accuracy on the test split of toys, logreg-v1): best evidence for it: " in text
    assert text == render_card(read_config(folder), read_results(folder / "results.json"))
    # Measured anew from the published folder: the claim stays.
    publish(folder, "simclr_small_toys", results=results_for(config), overwrite=True, **out)
    found = read_results(folder / "results.json")
    assert found.claims == (claim(),) and found.rows


@pytest.mark.parametrize(
    ("content", "said"),
    [("{", "not valid JSON"), ("{}", r"not a valid claim: title"), (None, "does not exist")],
)
def test_what_is_no_claim_is_refused(tmp_path, content, said):
    path = tmp_path / "claim.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=said):
        read_claim(path)
    assert json.loads(claim().to_json())["code_commit"] == "c0ffee"


def test_intervals_of_independent_values():
    a, b = ARMS["better"], (0.50, 0.51, 0.53, 0.52)
    found, expected = interval(b), stats.ttest_1samp(b, 0).confidence_interval(0.95)
    assert (found.low, found.high, found.n) == (pytest.approx(expected.low), pytest.approx(expected.high), 4)
    assert interval([93.0, 94.0]).text(1) == "93.5 [87.1, 99.9]" and interval([93.123]).text() == "93.12"
    found = unpaired(a, b)
    expected = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    assert (found.low, found.high) == (pytest.approx(expected.low), pytest.approx(expected.high)) and found.n == 3
    assert unpaired([1.0], b).low is None and unpaired([1, 1], [2, 2]).low is None


def test_a_new_claim_stands_beside_the_others_and_replaces_its_older_form(tmp_path):
    run, target = tmp_path / "run", tmp_path / "zoo" / "simclr_small_toys"
    first = claim()
    newer = first.model_copy(update={"code_commit": "newer"})
    other = first.model_copy(update={"title": "another"})
    write_small(run / "encoder")
    for given, expected in (((first,), (first,)), ((other,), (first, other)), ((newer,), (other, newer)), ((), None)):
        publish(run, "simclr_small_toys", out=tmp_path / "zoo", claims=given, overwrite=True)
        found = target / "results.json"
        assert (read_results(found).claims if found.exists() else None) == expected


def test_newer_weights_keep_the_claims_about_their_method(tmp_path):
    run, target = tmp_path / "run", tmp_path / "zoo" / "simclr_small_toys"
    claims = (claim(),)
    write_small(run / "encoder")
    publish(run, "simclr_small_toys", out=tmp_path / "zoo", claims=claims)
    write_small(run / "encoder", seed=1)
    publish(run, "simclr_small_toys", out=tmp_path / "zoo", overwrite=True)
    assert read_results(target / "results.json").claims == claims
    config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps({**config, "method": {**config["method"], "name": "moco"}}))
    publish(run, "simclr_small_toys", out=tmp_path / "zoo", overwrite=True)
    assert not (target / "results.json").exists()
    (target / "results.json").write_text("{")
    publish(run, "simclr_small_toys", out=tmp_path / "zoo", overwrite=True)
    assert not (target / "results.json").exists()
