"""Several encoders beside each other: who is best, whether that is certain, and what the command says."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from evaluation.__main__ import main
from evaluation.beside import pairs, placed, placed_over, sentence
from evaluation.command import ProbeOptions, probe, probe_beside
from evaluation.evaluate import Evaluation
from evaluation.floors import raw
from evaluation.probing import named_places
from tests.data_fixtures import make_folder
from tests.zoo.checkpoints import write_small
from zoo.checkpoint.results import Metric
from zoo.errors import DataError

DATA = "synthetic:shapes?n=240&size=16"


@pytest.fixture(scope="module")
def addresses(tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("encoders")
    for seed, name in enumerate(("first", "second")):
        write_small(folder / name, seed=seed)
    return [f"local-dir:{folder / name}" for name in ("first", "second")]


@pytest.fixture(scope="module")
def measured(addresses) -> Evaluation:
    return probe(addresses[0], DATA, ProbeOptions(protocol="knn", no_floors=True), quiet=True)


def predicting(found: Evaluation, wrong: int) -> Evaluation:
    """The same evaluation with the first `wrong` test samples wrong and all others right."""
    labels = found.test.labels
    predicted = np.where(np.arange(len(labels)) < wrong, (labels + 1) % (labels.max() + 1), labels)
    top1 = Metric(value=1 - wrong / len(labels), low=0.0, high=1.0)
    rows = tuple(row.model_copy(update={"metrics": {**row.metrics, "top1": top1}}) for row in found.rows)
    return replace(found, rows=rows, predicted=dict.fromkeys(found.predicted, predicted))


def test_the_best_stands_first_and_the_others_are_judged_by_the_paired_difference(measured):
    samples = len(measured.test.labels)
    found = {"bad": predicting(measured, 40), "good": predicting(measured, 2), "near": predicting(measured, 3)}
    (table,) = placed(found)
    assert [(each.encoder, each.outcome) for each in table] == [("good", "best"), ("near", "same"), ("bad", "worse")]
    assert table[0].versus is None and table[1].versus.value == pytest.approx(-1 / samples)
    assert table[1].versus.test == "mcnemar" and table[1].p == 1.0
    assert table[2].versus.high < 0 and table[2].p == pytest.approx(2 * table[2].versus.p)
    assert sentence([table]) == "knn-v2: good has the highest number, not distinguishable from near."
    (table,) = placed({name: found[name] for name in ("bad", "good")})
    assert sentence([table]) == "knn-v2: good beats the other."


def test_comparisons_of_several_datasets_are_corrected_together(measured):
    one = {"good": predicting(measured, 2), "bad": predicting(measured, 12)}
    (alone,) = placed(one)
    several = placed_over({str(number): one for number in range(3)})
    assert [table[1].p for (table,) in several.values()] == pytest.approx([3 * alone[1].p] * 3)


def test_alike(addresses, measured):
    other = probe(addresses[1], DATA, ProbeOptions(protocol="knn", no_floors=True), quiet=True)
    same, different = pairs({"a": measured, "b": measured, "c": other})[:2]
    assert same.cka == pytest.approx(1) and same.overlap.value == 1
    assert different.cka < 0.999 and different.overlap.value < 1
    flat = replace(measured, test=replace(measured.test, features=np.ones_like(measured.test.features)))
    assert pairs({"a": measured, "flat": flat})[0].cka is None


def test_the_command_compares_what_it_is_given(addresses, tmp_path, capsys):
    out = tmp_path / "out"
    options = ["--protocol", "knn", "--limit", "120", "--initialisations", "1", "--out", str(out), "--quiet"]
    assert main([*addresses, DATA, *options]) == 0
    said = capsys.readouterr().out
    assert "minus the best" in said and "knn-v2:" in said and f"wrote {out / 'compare.html'}" in said
    (found,) = json.loads((out / "compare.json").read_text()).values()
    (table,) = found["protocols"]
    assert {one["encoder"] for one in table} == set(addresses) and table[0]["verdict"] == "best"
    assert table[0]["untrained"]["value"] > 0 and len(found["alike"]) == 1
    reports = sorted(path.parent.name for path in out.glob("*/report.html"))
    assert len(reports) == 2 and reports[0].endswith("first") and reports[1].endswith("second")
    page = (out / "compare.html").read_text()
    assert all(f"python -m evaluation {address} '{DATA}'" in page.replace("&#39;", "'").replace("&amp;", "&")
               for address in addresses)  # fmt: skip


def test_what_is_measured_is_written_before_the_next_encoder_begins(addresses, tmp_path, monkeypatch, capsys):
    from evaluation import command

    calls, real = [], command.evaluate

    def second_fails(network, *arguments, **options):
        calls.append(network)
        if len(calls) == 2:
            raise DataError("the second encoder fails")
        return real(network, *arguments, **options)

    monkeypatch.setattr(command, "evaluate", second_fails)
    options = ["--protocol", "knn", "--limit", "120", "--no-floors", "--out", str(tmp_path / "out"), "--quiet"]
    assert main([*addresses, DATA, *options]) != 0
    assert "the second encoder fails" in capsys.readouterr().err
    (kept,) = (tmp_path / "out").glob("*/results.json")
    assert kept.parent.name.endswith("first") and json.loads(kept.read_text())


def test_several_encoders_over_a_suite_give_one_table(addresses, tmp_path, capsys):
    make_folder(tmp_path / "mine", per_class=12)
    out = tmp_path / "out"
    options = ["--suite", "downstream", "--data-root", str(tmp_path / "none"), "--protocol", "knn", "--no-baselines"]
    assert main([*addresses, str(tmp_path / "mine"), *options, "--out", str(out), "--quiet"]) == 0
    said = capsys.readouterr().out
    assert "skipped CIFAR-10" in said and said.count("skipped CIFAR-10:") == 1 and "minus the best" in said
    assert (out / "compare.html").exists() and len(list(out.glob("*/report.html"))) == 2


@pytest.mark.parametrize(
    ("places", "suite", "message"),
    [(["a"], False, "no dataset was named"), (["a", "a", "data"], False, "a is named twice")],
)
def test_wrong_words_are_explained(places, suite, message):
    with pytest.raises(DataError, match=message):
        named_places(places, suite)


def test_with_a_suite_the_last_word_is_data_only_if_it_is_a_folder(tmp_path):
    assert named_places(["a", "b"], True) == (["a", "b"], None)
    assert named_places(["a", str(tmp_path)], True) == (["a"], str(tmp_path))


def test_the_raw_input_is_probed_once_for_all_encoders_that_take_the_same(addresses, monkeypatch):
    asked = []
    monkeypatch.setattr("evaluation.floors.raw", lambda encoder, data: asked.append(data.split) or raw(encoder, data))
    options = ProbeOptions(protocol="knn", initialisations=1, limit=60)
    found = probe_beside(addresses, DATA, options, quiet=True)
    assert asked == ["train", "test"]
    alone = probe(addresses[1], DATA, options, quiet=True)
    numbers = [{row.subject: row.metrics for row in each.rows} for each in (found[addresses[1]], alone)]
    assert numbers[0] == numbers[1] and numbers[0].keys() == {"encoder", "untrained", "raw"}
