"""Retrieval and clustering against slow, obvious loops and known cases."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from evaluation.frozen import Features
from evaluation.metrics import mean_with_interval
from evaluation.protocols import retrieval
from evaluation.protocols.clustering import Clustering, ClusteringV1, clustering_scores
from evaluation.protocols.metric_learning import MetricLearning, MetricLearningV1
from evaluation.protocols.retrieval import Retrieval, ranked
from tests.evaluation.test_probe import clusters
from zoo.errors import DataError

PART = clusters(60, classes=5, spread=2.0, seed=1)
TRAIN = clusters(40, classes=5, spread=2.0, seed=2)


def slow(part: Features, ks=(1, 3)) -> dict[str, list[float]]:
    x = part.features / np.linalg.norm(part.features, axis=1, keepdims=True)
    found: dict[str, list[float]] = {}
    for query in range(len(x)):
        others = np.delete(np.arange(len(x)), query)
        similarity = x[others] @ x[query]
        order = np.argsort(-similarity, kind="stable")
        match = part.labels[others][order] == part.labels[query]
        r = match.sum()
        precision = [match[: i + 1].mean() for i in range(r)]
        values = {f"hit_{k}": float(match[:k].any()) for k in ks}
        values["ap"] = average_precision_score(match, -np.arange(len(match)))
        values["r_precision"] = match[:r].mean()
        values["map_at_r"] = sum(p for p, m in zip(precision, match, strict=False) if m) / r
        for name, value in values.items():
            found.setdefault(name, []).append(value)
    return found


def test_rankings_equal_a_slow_loop(monkeypatch):
    monkeypatch.setattr(retrieval, "BLOCK", 60 * 7)  # several blocks, the last one short
    fast, alone = ranked(PART, (1, 3))
    assert alone == 0
    for name, values in slow(PART).items():
        np.testing.assert_allclose(fast[name], values, atol=1e-5, err_msg=name)


def test_the_query_is_never_its_own_neighbour_and_lonely_samples_do_not_ask():
    labels = np.array([0, 0, 1, 1, 2])
    twins = Features(np.repeat(np.eye(5, dtype=np.float32), 1, axis=0), labels)
    scores, alone = ranked(twins, (1,))
    assert alone == 1 and len(scores["ap"]) == 4
    perfect = Features(np.eye(3, dtype=np.float32)[labels], labels)
    outcome = Retrieval().run(perfect, perfect)
    assert outcome.metrics["recall_at_1"].value == outcome.metrics["map"].value == 1.0
    assert outcome.predicted is None and "1 of 5 samples are alone" in outcome.warnings[-1]
    with pytest.raises(DataError, match="nothing can be retrieved"):
        ranked(Features(np.eye(3, dtype=np.float32), np.arange(3)), (1,))


def test_metric_learning_takes_all_samples_of_the_second_half_of_the_classes():
    outcome = MetricLearning(MetricLearningV1(ks=(1, 2))).run(TRAIN, PART)
    keep = [np.flatnonzero(part.labels >= 3) for part in (TRAIN, PART)]
    both = Features(
        np.concatenate([TRAIN.features[keep[0]], PART.features[keep[1]]]),
        np.concatenate([TRAIN.labels[keep[0]], PART.labels[keep[1]]]),
    )
    reference = slow(both, (1, 2))
    assert outcome.chosen["queries"] == len(both)
    for name, key in (("recall_at_2", "hit_2"), ("map_at_r", "map_at_r"), ("r_precision", "r_precision")):
        assert outcome.metrics[name].value == pytest.approx(np.mean(reference[key]), abs=1e-5)
    with pytest.raises(DataError, match="at least 4 classes"):
        MetricLearning().run(clusters(30, classes=3), clusters(30, classes=3, seed=1))


def test_clusters_are_matched_to_classes_one_to_one():
    true = np.repeat([0, 1, 2], 4)
    assert clustering_scores(true, (true + 1) % 3) == pytest.approx({"nmi": 1.0, "ami": 1.0, "cluster_acc": 1.0})
    # One cluster for all can be matched to one class only.
    assert clustering_scores(true, np.zeros(12, dtype=int))["cluster_acc"] == pytest.approx(1 / 3)


def test_clustering_finds_separate_groups_repeats_and_spans_its_restarts():
    labels = np.arange(60) % 4
    far = Features(
        (10 * np.eye(4)[labels] + np.random.default_rng(0).normal(0, 0.1, (60, 4))).astype(np.float32), labels
    )
    first, second = (Clustering(ClusteringV1(restarts=3)).run(far, far) for _ in range(2))
    assert first.metrics == second.metrics and first.metrics["ami"].high == pytest.approx(1.0)
    for metric in Clustering(ClusteringV1(restarts=4)).run(TRAIN, PART).metrics.values():
        assert metric.low <= metric.value <= metric.high
    assert Clustering(ClusteringV1(samples=20)).run(TRAIN, PART).chosen["samples"] == 20


def test_collapsed_features_are_clustered_with_a_warning():
    same = Features(np.ones((12, 3), dtype=np.float32), np.arange(12) % 3)
    outcome = Clustering(ClusteringV1(restarts=1)).run(same, same)
    assert any("only 1 distinct features" in warning for warning in outcome.warnings)
    assert outcome.metrics["ami"].value == pytest.approx(0, abs=1e-9)


def test_bootstrap_interval_of_a_mean():
    values = np.random.default_rng(0).random(400)
    metric = mean_with_interval(values)
    half = 1.96 * values.std() / 20
    assert metric.value == pytest.approx(values.mean())
    assert metric.high - metric.low == pytest.approx(2 * half, rel=0.15) and metric.low < metric.value < metric.high
