"""Paired differences: against scipy, by coverage, and where only pairing can see a difference."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from evaluation.evaluate import evaluate
from evaluation.frozen import Features, Outcome
from evaluation.measured import ONE_GROUP, collect, table_rows
from evaluation.paired import Scores, difference, mcnemar, pooled, scores_of, spread
from evaluation.protocols.knn import KNNProbe, KnnV2
from evaluation.protocols.prototypes import Prototypes, PrototypesV1
from tests.evaluation.test_probe import people
from tests.zoo.checkpoints import write_small
from zoo.checkpoint.judging import holm
from zoo.checkpoint.loading import load
from zoo.checkpoint.results import Result
from zoo.data.addresses import open_dataset

LABELS = np.arange(400) % 4


def scores(right: np.ndarray, **changes) -> Scores:
    return Scores(right.astype(float).reshape(1, 1, -1), **({"decisions": True} | changes))


def test_a_loss_that_two_overlapping_intervals_hide_is_seen():
    """One classifier gets all that the other gets, and 4 % more: each interval alone is 7 points wide."""
    generator = np.random.default_rng(0)
    less = generator.random(600) < 0.7
    more = less | (generator.random(600) < 0.12)
    alone = [pooled(scores(each)) for each in (less, more)]
    assert alone[0].high > alone[1].low
    found = difference(scores(less), scores(more), "other", "top1")
    assert found.high < 0 and found.p < 0.001 and found.test == "mcnemar"
    assert found.value == pytest.approx(less.mean() - more.mean())


def test_the_interval_is_that_of_the_paired_t_test_and_mcnemar_that_of_the_binomial():
    generator = np.random.default_rng(1)
    own, other = generator.random((2, 500)) < [[0.6], [0.55]]
    found = difference(scores(own), scores(other), "raw", "top1")
    expected = stats.ttest_rel(own.astype(float), other.astype(float)).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.004)
    won, lost = int((own & ~other).sum()), int((~own & other).sum())
    assert found.p == mcnemar(own, other) == pytest.approx(stats.binomtest(won, won + lost).pvalue)
    assert mcnemar(own, own) == 1.0


def test_the_same_predictions_differ_by_nothing():
    right = np.random.default_rng(0).random(50) < 0.5
    found = difference(scores(right), scores(right), "raw", "top1")
    assert (found.value, found.low, found.high, found.p) == (0, 0, 0, 1)


def test_mean_per_class_is_compared_class_by_class():
    labels = np.array([0] * 90 + [1] * 10)
    own, other = labels == 0, labels == 1  # one knows the large class, the other the small one
    found = difference(scores(own, classes=labels), scores(other, classes=labels), "raw", "mean_per_class")
    assert found.value == pytest.approx(0) and found.low == pytest.approx(0, abs=1e-9)
    half = difference(scores(labels >= 0, classes=labels), scores(other, classes=labels), "raw", "mean_per_class")
    assert half.value == pytest.approx(0.5)


def test_groups_are_drawn_whole_so_that_copies_are_no_evidence():
    generator = np.random.default_rng(2)
    people = np.repeat(np.arange(10), 40)
    gain = np.repeat(generator.normal(0.05, 0.1, 10), 40)
    own, other = np.full(400, 0.5) + gain, np.full(400, 0.5)
    whole = difference(scores(own, decisions=False), scores(other, decisions=False), "raw", "x", people)
    alone = difference(scores(own, decisions=False), scores(other, decisions=False), "raw", "x")
    expected = stats.ttest_1samp(gain[::40], 0).confidence_interval(0.95)
    assert (whole.low, whole.high) == pytest.approx((expected.low, expected.high), abs=0.02)
    assert whole.high - whole.low > 4 * (alone.high - alone.low) and whole.groups == 10 and alone.groups is None
    # With groups the samples are not independent, so that McNemar's test would be too sure.
    assert difference(scores(own > 0.55), scores(other > 1), "raw", "top1", people).test == "bootstrap"


def test_few_initialisations_widen_the_interval_as_students_t_does():
    """Three values of four networks that differ widely: the interval is that of the t test over them."""
    values = np.array([0.198, 0.171, 0.200])
    grid = Scores(np.stack([np.where(np.arange(1000) < 1000 * v, 1.0, 0.0)[None] for v in values]))
    found, expected = pooled(grid), stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert spread(grid) == pytest.approx(values) and found.value == pytest.approx(values.mean())
    assert 0.5 < (found.high - found.low) / (expected.high - expected.low) < 1.5
    one = Scores(grid.values[:1])
    assert found.high - found.low > pooled(one).high - pooled(one).low


@pytest.mark.parametrize("people", [None, 8])
def test_intervals_cover_the_true_difference(people, monkeypatch):
    """100 data sets with a true difference of 0.1: about 95 % of the intervals hold it."""
    monkeypatch.setattr("evaluation.paired.RESAMPLES", 200)
    covered = 0
    for trial in range(100):
        generator = np.random.default_rng(trial)
        groups = None if people is None else np.repeat(np.arange(people), 20)
        common = generator.random(160)
        shift = 0.1 if people is None else 0.1 + np.repeat(generator.normal(0, 0.05, people), 20)
        own, other = common < 0.5 + shift, common < 0.5
        found = difference(scores(own), scores(other), "raw", "top1", groups, seed=trial)
        covered += found.low <= 0.1 <= found.high
    assert 88 <= covered <= 99


def test_holm_corrects_step_by_step():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5]) == [0.5] and holm([0.9, 0.8]) == [1.0, 1.0] and holm([]) == []


def test_draws_of_labels_pair_up_and_other_metrics_come_along():
    first = Outcome(np.stack([LABELS, LABELS]), {}, ())
    second = Outcome(np.stack([LABELS, 3 - LABELS]), {}, ())
    own, other = (scores_of([outcome], LABELS)["top1"] for outcome in (first, second))
    assert own.values.shape == (1, 2, 400)
    found = difference(own, other, "untrained", "top1")
    assert found.value == pytest.approx(0.5) and found.low < 0 < found.high  # two draws that disagree say little
    ranked = Outcome(None, {}, (), samples={"map": np.array([0.5, np.nan, 1.0])})
    assert pooled(scores_of([ranked], np.zeros(3, int))["map"]).value == pytest.approx(0.75)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("paired") / "simclr_small_toys"
    write_small(folder)
    train, test = (open_dataset("synthetic:shapes?n=160&size=16", split) for split in ("train", "test"))
    settings = {"knn": {"k_grid": (5,)}, "few_label": {"amounts": (2,), "draws": 2}}
    return evaluate(
        load(f"local-dir:{folder}"), train, test, protocols=["knn", "few_label", "retrieval", "clustering"],
        settings=settings, precision="fp32",
    )  # fmt: skip


def test_evaluate_stores_the_spread_of_the_baseline_and_paired_differences(found):
    rows = {(row.protocol, row.subject): row for row in found.rows}
    own, floor = rows["knn-v2", "encoder"], rows["knn-v2", "untrained"]
    assert len(floor.spread["top1"]) == 3 and floor.metrics["top1"].value == pytest.approx(
        np.mean(floor.spread["top1"])
    )
    assert not own.spread and not rows["knn-v2", "raw"].spread and not floor.versus
    stored = {(each.other, each.metric): each for each in own.versus}
    assert set(stored) == {(o, m) for o in ("untrained", "raw") for m in ("top1", "mean_per_class")}
    for (other, metric), each in stored.items():
        gap = own.metrics[metric].value - rows["knn-v2", other].metrics[metric].value
        assert each.value == pytest.approx(gap) and each.low <= each.value <= each.high
    assert stored["raw", "top1"].test == "mcnemar" and stored["untrained", "top1"].test == "bootstrap"
    assert {each.metric for each in rows["retrieval-v1", "encoder"].versus} == {"recall_at_1", "recall_at_5", "map"}
    few = rows["few-label-v1", "encoder"].versus
    assert few and all(each.test == "bootstrap" for each in few)
    clusters = rows["clustering-v1", "untrained"]
    assert not rows["clustering-v1", "encoder"].versus and len(clusters.spread["ami"]) == 3


def test_results_without_differences_stay_readable(found):
    row = found.rows[0]
    old = {key: value for key, value in row.model_dump(mode="json").items() if key not in ("versus", "spread")}
    assert Result.model_validate(old).metrics == row.metrics
    assert Result.model_validate_json(row.model_dump_json()) == row


def test_groups_reach_the_rows_and_one_group_is_said():
    train, test = people(120, 6, 0), people(90, 3, 1, first=6)
    found: dict = {"encoder": {}, "raw": {}}
    for subject, spread_of in (("encoder", 1.0), ("raw", 0.0)):
        parts = [Features(part.features * spread_of + 1, part.labels, groups=part.groups) for part in (train, test)]
        for probe in (
            KNNProbe(KnnV2(k_grid=(5,))),
            Prototypes(PrototypesV1(ways=2, shots=(1,), queries=5, episodes=9)),
        ):
            collect(probe, parts, None, found[subject])
    record = {"name": "toys", "split": "test", "fingerprint": "f", "samples": 90}
    shared = {"train": record, "test": record, "classes": 3}
    rows = table_rows(found, test, None, None, shared)
    drawn = {row.protocol: {each.groups for each in row.versus} for row in rows if row.subject == "encoder"}
    assert drawn == {"knn-v2": {3}, "prototypes-v1": {None}}  # episodes are not of one person
    one = Features(test.features, test.labels, groups=np.zeros(90, dtype=int))
    for row in table_rows(found, one, None, None, shared):
        assert ONE_GROUP in row.warnings and all(each.groups is None for each in row.versus)
        assert all(each.high > each.low for each in row.versus)


def test_an_interval_ends_at_all_or_nothing():
    """Two persons leave one degree of freedom, whose t of 12.7 made [-113, +119] points of a share."""
    values = np.array([1.0] * 7 + [0.0] * 3 + [1.0] * 5 + [0.0] * 5)[None, None]
    groups = np.repeat([0, 1], 10)
    found = difference(Scores(values), Scores(1 - values), "other", "top1", groups)
    assert -1 <= found.low < found.value < found.high <= 1 and (found.low, found.high) == (-1, 1)
    metric = pooled(Scores(values), groups)
    assert 0 <= metric.low < metric.value < metric.high <= 1
