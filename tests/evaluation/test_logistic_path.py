"""The linear probe against scikit-learn: same loss, same answers, for tall, wide, constant and streamed tables."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from evaluation.frozen import Features
from evaluation.protocols import describe, logistic_path
from evaluation.protocols.logistic import LogisticProbe, LogRegV3
from evaluation.protocols.logistic_path import LogisticPath
from evaluation.protocols.logistic_v1 import LogisticProbeV1, LogRegV1
from evaluation.protocols.transfer import TransferProbe, TransferV1
from tests.evaluation.test_probe import clusters
from zoo.errors import DataError

TRAIN, TEST = clusters(400, seed=1), clusters(2000, seed=2)
WIDE = clusters(60, dims=150, seed=3)


def reference(x: np.ndarray, labels: np.ndarray, c: float) -> tuple[LogisticRegression, float]:
    """scikit-learn's optimum in float64, and its objective divided by C * N."""
    model = LogisticRegression(C=c, max_iter=20_000, tol=1e-8).fit(x, labels)
    p = model.predict_proba(x)[np.arange(len(x)), labels]
    return model, float(-np.log(p).mean() + (model.coef_**2).sum() / (2 * c * len(x)))


def scaled(part: Features, by: Features, standardise: bool) -> np.ndarray:
    x, base = part.features.astype(np.float64), by.features.astype(np.float64)
    return (x - base.mean(axis=0)) / (base.std(axis=0) if standardise else 1.0)


@pytest.mark.parametrize("part", [TRAIN, WIDE], ids=["tall", "wide"])
@pytest.mark.parametrize("standardise", [True, False], ids=["standardised", "raw"])
def test_every_c_reaches_scikit_learns_loss(part, standardise):
    path = LogisticPath(part.features, part.labels, standardise=standardise, tol=1e-6)
    test = clusters(500, dims=part.features.shape[1], seed=4)
    for solution in path.path([1e-4, 1e-2, 1.0, 30.0]):
        model, loss = reference(scaled(part, part, standardise), part.labels, solution.c)
        assert solution.converged and solution.loss == pytest.approx(loss, rel=1e-4, abs=1e-6)
        agree = model.predict(scaled(test, part, standardise)) == solution.predict(test.features)
        assert agree.mean() > 0.99


def test_the_whole_path_on_standardised_features_chooses_as_a_plain_loop():
    settings = LogRegV3(cross_validate_below=0, c_grid=tuple(10.0 ** np.arange(-5, 4)), patience=None)
    fast = LogisticProbe(settings).run(TRAIN, TEST)
    slow = LogisticProbeV1(LogRegV1(c_grid=settings.c_grid, max_iter=5000, tol=1e-6)).run(TRAIN, TEST)
    accuracy = [float((outcome.predicted == TEST.labels).mean()) for outcome in (fast, slow)]
    assert fast.chosen["C"] == slow.chosen["C"] or abs(accuracy[0] - accuracy[1]) <= 0.001
    assert abs(accuracy[0] - accuracy[1]) <= 0.005 and fast.chosen["converged"]


def test_streamed_and_in_memory_tables_give_the_same_solution(monkeypatch):
    monkeypatch.setattr(logistic_path, "BLOCK", 4 * 12 * 37)  # 37 rows a block
    rows = np.arange(0, 400, 3)
    for standardise in (True, False):
        fits = [
            LogisticPath(TRAIN.features, TRAIN.labels, rows=rows, standardise=standardise, in_memory=n, tol=1e-6).fit(
                0.1
            )
            for n in (1 << 30, 0)
        ]
        assert fits[0].loss == pytest.approx(fits[1].loss, rel=1e-5)
        np.testing.assert_allclose(fits[0].coef, fits[1].coef, rtol=0.05, atol=0.01 * np.abs(fits[0].coef).max())


def test_features_of_very_different_scale_and_constant_ones_do_no_harm():
    x = np.concatenate([TRAIN.features, np.full((400, 1), 7.0), 1e4 + TRAIN.features[:, :1]], axis=1).astype(np.float32)
    solution = LogisticPath(x, TRAIN.labels, tol=1e-6).fit(0.1)
    assert solution.converged and not solution.coef[:, 12].any() and np.isfinite(solution.coef).all()
    assert (solution.predict(x) == TRAIN.labels).mean() > 0.75


def test_a_path_may_start_from_the_solution_of_another():
    cold, warm = (LogisticPath(TRAIN.features, TRAIN.labels, tol=1e-5) for _ in range(2))
    first = cold.fit(1.0)
    warm.start_from(first)
    again = warm.fit(1.0)
    assert again.loss == pytest.approx(first.loss, rel=1e-4) and again.iterations <= 2 < first.iterations


def test_hopeless_values_are_skipped_without_changing_the_choice():
    noisy, test = (clusters(n, dims=80, spread=5.0, seed=seed) for n, seed in ((900, 5), (100, 6)))
    grid = tuple(10.0 ** np.arange(-6, 5))
    every = LogisticProbe(LogRegV3(c_grid=grid, cross_validate_below=0, held_out=0.85, patience=None)).run(noisy, test)
    some = LogisticProbe(LogRegV3(c_grid=grid, cross_validate_below=0, held_out=0.85, patience=1)).run(noisy, test)
    assert some.chosen["C"] == every.chosen["C"] and every.chosen["tried"] == len(grid)
    assert some.chosen["tried"] < len(grid)


def test_a_dip_at_tiny_c_ends_nothing():
    """Raw features of tiny variance: many values of C pass before anything is fitted."""
    part, test = (Features(1e-3 * each.features, each.labels) for each in (TRAIN, TEST))
    outcome = TransferProbe(TransferV1(patience=1)).run(part, test)
    assert outcome.chosen["tried"] > 25 and (outcome.predicted == test.labels).mean() > 0.7


def test_an_official_validation_part_is_what_the_choice_is_made_on():
    # Labels of the validation part are shuffled, so that no C does well on it; its accuracy must show that.
    held = np.arange(300, 400)
    spoiled = Features(TRAIN.features, TRAIN.labels.copy())
    spoiled.labels[held] = np.random.default_rng(0).permutation(spoiled.labels[held])
    fair = TransferProbe(TransferV1()).run(TRAIN, TEST, held).chosen["held_out_top1"]
    assert TransferProbe(TransferV1()).run(spoiled, TEST, held).chosen["held_out_top1"] < fair - 0.2


def test_edges_few_samples_and_the_text_are_stated():
    outcome = LogisticProbe(LogRegV3(c_grid=(1e-6, 1e-5))).run(TRAIN, TEST)
    assert any("edge of the grid" in warning for warning in outcome.warnings)
    single = TRAIN.take(np.arange(4))
    assert LogisticProbe().run(single, TEST).chosen["C"] == pytest.approx(1.0)
    assert "B.8.1" in describe("transfer-v1") and len(TransferV1().c_grid) == 45
    assert (min(TransferV1().c_grid), max(TransferV1().c_grid)) == (pytest.approx(1e-5), pytest.approx(1e6))
    with pytest.raises(DataError, match="N labels"):
        LogisticPath(TRAIN.features, TRAIN.labels[:3])


PEAK = """
import sys, threading, time
import numpy as np
from evaluation.protocols import logistic_path
from evaluation.frozen import Features
from evaluation.protocols.logistic import LogisticProbe
from evaluation.protocols.logistic import LogRegV3

logistic_path.BLOCK = 1 << 20
rows, path = int(sys.argv[1]), sys.argv[2]
table = np.lib.format.open_memmap(path, "w+", np.float32, (rows, 128))
labels = np.arange(rows) % 3
for start in range(0, rows, 4096):
    part = labels[start : start + 4096]
    table[start : start + 4096] = np.random.default_rng(start).normal(size=(len(part), 128)) + part[:, None]
table.flush()
features = np.load(path, mmap_mode="r")
test = Features(np.array(features[:50]), labels[:50])

def anonymous():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon"))

def watch():
    global peak
    while not done:
        peak = max(peak, anonymous())
        time.sleep(0.002)

probe = LogisticProbe(LogRegV3(c_grid=(0.1, 1.0), max_iter=2, cross_validate_below=0), in_memory=0)
probe.run(Features(features[:9000], labels[:9000]), test)
done, peak, before = False, 0, anonymous()
watcher = threading.Thread(target=watch)
watcher.start()
probe.run(Features(features, labels), test)
done = True
watcher.join()
print(peak - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_does_not_grow_with_the_table(tmp_path):
    """Anonymous memory: what is beyond the memory map. 4 times the rows are 46 MiB more features."""
    peaks = []
    for rows in (30_000, 120_000):
        done = subprocess.run(
            [sys.executable, "-c", PEAK, str(rows), str(tmp_path / "x.npy")], capture_output=True, text=True, check=True
        )
        peaks.append(int(done.stdout) / 1024)
    assert peaks[1] - peaks[0] < 16, f"{peaks[0]:.1f} and {peaks[1]:.1f} MiB"
