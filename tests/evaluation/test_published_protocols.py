"""Protocols that stand beside published tables, each against a slow, obvious version."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from evaluation.frozen import Features
from evaluation.protocols import gallery
from evaluation.protocols.gallery import Gallery
from evaluation.protocols.knn_dino import KNNDino, KnnDinoV1
from evaluation.protocols.linear_sgd import LinearSGD, LinearSgdV1
from evaluation.protocols.logistic import LogisticProbe
from evaluation.protocols.prototypes import Prototypes, PrototypesV1
from tests.evaluation.test_probe import clusters, people
from zoo.errors import DataError

TRAIN, TEST = clusters(240, seed=1), clusters(160, seed=2)


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_knn_at_fixed_k_gives_a_row_for_each_and_chooses_nothing():
    found = list(KNNDino().outcomes(TRAIN, TEST))
    assert [each.settings["variant"] for each in found] == ["k = 20", "k = 200"]
    similarity = unit(TEST.features.astype(float)) @ unit(TRAIN.features.astype(float)).T
    for each, k in zip(found, (20, 200), strict=True):
        slow = []
        for row in similarity:
            votes = np.zeros(4)
            for j in np.argsort(-row)[:k]:
                votes[TRAIN.labels[j]] += math.exp((row[j] - 1) / 0.07)
            slow.append(votes.argmax())
        assert (each.predicted == slow).mean() > 0.99 and each.chosen == {}
    (few,) = KNNDino().outcomes(TRAIN.take(np.arange(40)), TEST)
    assert few.settings["variant"] == "k = 20" and "k above 20 left out" in few.warnings[-1]
    with pytest.raises(DataError, match="smaller k"):
        next(KNNDino(KnnDinoV1(ks=(500,))).outcomes(TRAIN, TEST))


def test_an_episode_is_the_nearest_class_mean():
    probe = Prototypes(PrototypesV1(ways=3, shots=(2,), queries=4, episodes=20))
    (found,) = probe.outcomes(TRAIN, TEST)
    x, slow = unit(TEST.features.astype(float)), []
    for number in range(20):
        source = np.random.PCG64([0, number])
        classes = np.argsort(source.random_raw(4), kind="stable")[:3]
        rows = []
        for c in classes:
            members = np.flatnonzero(TEST.labels == c)
            rows.append(members[np.argsort(source.random_raw(len(members)), kind="stable")])
        right = 0
        for way, drawn in enumerate(rows):
            for query in drawn[2:6]:
                distances = [np.linalg.norm(x[query] - x[other[:2]].mean(axis=0)) for other in rows]
                right += int(np.argmin(distances) == way)
        slow.append(right / 12)
    np.testing.assert_allclose(found.samples["episode_acc"], slow)
    metric = found.metrics["episode_acc"]
    assert metric.value == pytest.approx(np.mean(slow)) and metric.low < metric.value < metric.high
    assert found.settings == {"variant": "3-way 2-shot"}


def test_more_shots_help_and_every_encoder_sees_the_same_episodes():
    settings = PrototypesV1(ways=4, shots=(1, 10), queries=10, episodes=60)
    one, ten = Prototypes(settings).outcomes(TRAIN, TEST)
    assert ten.metrics["episode_acc"].value > one.metrics["episode_acc"].value + 0.02
    far = Features(10 * np.eye(4, dtype=np.float32)[TEST.labels], TEST.labels)
    for outcome in Prototypes(settings).outcomes(far, far):
        assert (outcome.samples["episode_acc"] == 1).all()
    with pytest.raises(DataError, match="needs 5 classes with 16 test samples, 4 have that many"):
        next(Prototypes().outcomes(TRAIN, TEST))
    uneven = TEST.take(np.flatnonzero((TEST.labels > 0) | (np.arange(160) < 20)))
    outcome = next(Prototypes(PrototypesV1(ways=2, queries=10, episodes=5)).outcomes(TRAIN, uneven))
    assert "1 classes are too small" in outcome.warnings[-1] and outcome.chosen == {"classes": 3}


def test_the_gallery_is_ranked_as_a_slow_loop_ranks_it(monkeypatch):
    monkeypatch.setattr(gallery, "BLOCK", 240 * 7)  # several blocks, the last one short
    found = Gallery().run(TRAIN, TEST)
    similarity = unit(TEST.features.astype(float)) @ unit(TRAIN.features.astype(float)).T
    slow: dict[str, list[float]] = {"recall_at_1": [], "recall_at_5": [], "map": [], "map_at_r": []}
    for row, label in zip(similarity, TEST.labels, strict=True):
        match = TRAIN.labels[np.argsort(-row, kind="stable")] == label
        r = match.sum()
        slow["recall_at_1"].append(float(match[0]))
        slow["recall_at_5"].append(float(match[:5].any()))
        slow["map"].append(average_precision_score(match, -np.arange(len(match))))
        slow["map_at_r"].append(sum(match[: i + 1].mean() for i in range(r) if match[i]) / r)
    assert set(found.metrics) == set(slow) and found.chosen == {"queries": 160, "gallery": 240}
    for name, values in slow.items():
        np.testing.assert_allclose(found.samples[name], values, atol=1e-4, err_msg=name)
        assert found.metrics[name].value == pytest.approx(np.mean(values), abs=1e-5)


def test_sgd_takes_the_steps_of_torch():
    settings = LinearSgdV1(epochs=3, batch_size=64, lr_grid=(0.4,))
    heads = LinearSGD(settings)._train(TRAIN, [0.4])
    model = torch.nn.Linear(12, 4)
    torch.nn.init.zeros_(model.weight)
    torch.nn.init.zeros_(model.bias)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: (1 + math.cos(math.pi * step / 9)) / 2)
    rng, order = np.random.default_rng(0), np.empty(0, dtype=int)
    for _ in range(9):
        if len(order) < 64:
            order = np.concatenate([order, rng.permutation(240)])
        drawn, order = np.sort(order[:64]), order[64:]
        loss = torch.nn.functional.cross_entropy(
            model(torch.from_numpy(TRAIN.features[drawn])), torch.from_numpy(TRAIN.labels[drawn])
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    torch.testing.assert_close(heads.weight[0, :-1], model.weight.detach().T, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(heads.weight[0, -1], model.bias.detach(), rtol=1e-3, atol=1e-3)


def test_sgd_comes_near_the_optimum_and_chooses_on_whole_groups():
    mean, scale = TRAIN.features.mean(axis=0), TRAIN.features.std(axis=0)
    train, test = (Features((p.features - mean) / scale, p.labels) for p in (TRAIN, clusters(1000, seed=3)))
    best = (LogisticProbe().run(train, test).predicted == test.labels).mean()
    found = LinearSGD(LinearSgdV1(epochs=30, batch_size=64)).run(train, test)
    assert (found.predicted == test.labels).mean() > best - 0.05 and found.chosen["held_out"] == 24
    grouped = LinearSGD(LinearSgdV1(epochs=2)).run(people(120, 6, 0), people(120, 6, 1))
    assert grouped.chosen["held_out"] == 20  # one person of six


def test_a_rate_that_diverges_is_said():
    wild = LinearSGD(LinearSgdV1(epochs=40, lr_grid=(1e38,))).run(TRAIN, TEST)
    assert "diverged" in wild.warnings[-1] and (wild.predicted == 0).all()
