"""Our probe against a plain loop over C, on the same synthetic features, in one run.

    python benchmarks/probe.py                                              # about a minute on one core
    python benchmarks/probe.py --samples 45000 --test 10000 --dims 512 --classes 10

The plain loop follows the protocol of DINOv3's `eval/log_regression.py`: 45 values of C in 1e-6..1e5, features as
they come, every fit from scratch, C chosen on 10 % of the training samples, one last fit on all of them. Both sides
use scikit-learn's L-BFGS, the same held-out samples and the same threads. The two differ in the grid, the scaling,
the warm starts, the early end of the search and the stopping rule: the ratio is of whole protocols, not of solvers.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from evaluation.inputs import Features
from evaluation.metrics import with_intervals
from evaluation.probe import LogisticProbe
from evaluation.protocol import LogRegV1
from zoo.data.splits import held_out

PLAIN_GRID = np.logspace(-6, 5, 45)


def encoder_like(samples: int, dims: int, classes: int, overlap: float, seed: int) -> Features:
    """Non-negative features of uneven scale, as after ReLU and pooling; `overlap`: noise relative to the centres."""
    fixed = np.random.default_rng(0)
    rank = min(dims, 64)
    centres, mixing = fixed.normal(size=(classes, rank)), fixed.normal(size=(rank, dims)) / np.sqrt(rank)
    scale = np.exp(fixed.normal(size=dims))
    drawn = np.random.default_rng(seed)
    labels = drawn.integers(0, classes, samples)
    x = (centres[labels] + overlap * drawn.normal(size=(samples, rank))) @ mixing
    return Features((np.maximum(x + 0.2 * drawn.normal(size=x.shape), 0) * scale).astype(np.float32), labels)


def plain_loop(train: Features, test: Features, held: float, seed: int, max_iter: int, tol: float):
    """Predictions for `test`, the chosen C, and how many of the fits did not converge."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    fit, part = held_out(train.labels, held, seed)
    scores = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        for c in PLAIN_GRID:
            model = LogisticRegression(C=c, max_iter=max_iter, tol=tol).fit(train.features[fit], train.labels[fit])
            scores.append((model.predict(train.features[part]) == train.labels[part]).mean())
        best = float(PLAIN_GRID[int(np.argmax(scores))])
        model = LogisticRegression(C=best, max_iter=max_iter, tol=tol).fit(train.features, train.labels)
    return model.predict(test.features), best, len(caught)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=2000)
    parser.add_argument("--test", type=int, default=2000)
    parser.add_argument("--dims", type=int, default=128)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--overlap", type=float, default=2.5)
    parser.add_argument("--plain-iterations", type=int, default=1000)
    parser.add_argument("--plain-tol", type=float, default=1e-12)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()

    train, test = (
        encoder_like(n, given.dims, given.classes, given.overlap, given.seed + offset)
        for offset, n in ((1, given.samples), (2, given.test))
    )
    settings = LogRegV1()
    LogisticProbe(settings).run(train.take(np.arange(min(200, given.samples))), test)  # imports and threads are up

    started = time.perf_counter()
    ours = LogisticProbe(settings, given.seed).run(train, test)
    ours_s = time.perf_counter() - started
    started = time.perf_counter()
    predicted, c, unfinished = plain_loop(
        train, test, settings.held_out, given.seed, given.plain_iterations, given.plain_tol
    )
    plain_s = time.perf_counter() - started

    print(f"{given.samples:,} x {given.dims} features, {given.classes} classes, {given.test:,} test samples")
    ours_about = f"converged: {ours.chosen['converged']}"
    plain_about = f"{unfinished} of {len(PLAIN_GRID) + 1} fits stopped before they converged"
    for name, seconds, labels, chosen, about in (
        ("ours", ours_s, ours.predicted, ours.chosen["C"], ours_about),
        ("plain loop", plain_s, predicted, c, plain_about),
    ):
        top1 = with_intervals(test.labels, labels)["top1"]
        accuracy = f"{100 * top1.value:.2f} % [{100 * top1.low:.2f}, {100 * top1.high:.2f}]"
        print(f"{name:11s} {seconds:8.2f} s   top-1 {accuracy}   C = {chosen:.3g}   {about}")
    print(f"ratio (plain / ours): {plain_s / ours_s:.1f}")


if __name__ == "__main__":
    main()
