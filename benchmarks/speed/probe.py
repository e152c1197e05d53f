"""Our probes against a plain loop over C, on the same features, in one run.

    python benchmarks/speed/probe.py   # synthetic features, a minute on one core
    python benchmarks/speed/probe.py --samples 45000 --test 10000 --dims 512 --classes 10
    python benchmarks/speed/probe.py --features train.npz test.npz   # tables of `zoo extract`

The plain loop follows the protocol of DINOv3's `eval/log_regression.py`: 45 values of C in 1e-6..1e5, features as
they come in float64, scikit-learn's L-BFGS with max_iter 1000 and tol 1e-12, every fit from scratch, C chosen on 10 %
of the training samples, one last fit on all of them. A second loop does the same on standardised float32 features at
scikit-learn's default tolerance. `path` is our probe over the same 45 values and the same held-out samples, once for
the objective of each loop; `logreg-v3` and `logreg-v1` are the protocols as they are. All run with the same threads.
--only picks rows.

Synthetic features cannot say which protocol is more accurate. With `--uneven 0` (the default) accuracies are level;
the larger `--uneven`, the more the unscaled loop loses, in time and in accuracy. Accuracy claims need `--features`,
with tables of a real encoder.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from pathlib import Path

import numpy as np

from evaluation.frozen import Features, standardise, standardiser
from evaluation.metrics import with_intervals
from evaluation.protocols.logistic import LogisticProbe, LogRegV3
from evaluation.protocols.logistic_v1 import LogisticProbeV1
from zoo.data.splits import held_out
from zoo.features.table import FeatureTable

sys.path.insert(0, str(Path(__file__).parents[2]))
PLAIN_GRID = np.logspace(-6, 5, 45)


def encoder_like(samples: int, dims: int, classes: int, overlap: float, uneven: float, seed: int) -> Features:
    """Non-negative features; `overlap`: noise relative to the centres, `uneven`: that of their log scales."""
    fixed = np.random.default_rng(0)
    rank = min(dims, 64)
    centres, mixing = fixed.normal(size=(classes, rank)), fixed.normal(size=(rank, dims)) / np.sqrt(rank)
    scale = np.exp(uneven * fixed.normal(size=dims))
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
    parser.add_argument("--uneven", type=float, default=0.0)
    parser.add_argument("--features", nargs=2, metavar=("TRAIN", "TEST"), help="real feature tables")
    parser.add_argument("--plain-iterations", type=int, default=1000)
    parser.add_argument("--plain-tol", type=float, default=1e-12)
    parser.add_argument("--only", nargs="+", help="rows whose name holds one of these words")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()

    train, test = read(given.features) if given.features else synthetic(given)
    held = LogRegV3().held_out
    warm = encoder_like(200, 16, 3, 1.0, 0.0, 1)
    LogisticProbe().run(warm, warm)  # imports and threads are up
    mean, scale = standardiser(train.features)
    scaled = [Features(standardise(part.features, mean, scale), part.labels) for part in (train, test)]

    def plain(parts, tol, kind):
        parts = [Features(part.features.astype(kind), part.labels) for part in parts]
        predicted, c, unfinished = plain_loop(*parts, held, given.seed, given.plain_iterations, tol)
        return predicted, c, f"{unfinished} of {len(PLAIN_GRID) + 1} fits stopped before they converged"

    def ours(probe):
        outcome = probe.run(train, test)
        about = f"converged: {outcome.chosen['converged']}"
        return (
            outcome.predicted,
            outcome.chosen["C"],
            about + (f", {outcome.chosen['tried']} values tried" if "tried" in outcome.chosen else ""),
        )

    def path(standardised):
        settings = LogRegV3(c_grid=tuple(PLAIN_GRID), standardise=standardised, cross_validate_below=0)
        return ours(LogisticProbe(settings, given.seed))

    print(f"{len(train):,} x {train.features.shape[1]} features, {len(test):,} test samples")
    baseline = None
    rows = {
        "path, scaled": lambda: path(True),
        "path, raw": lambda: path(False),
        "logreg-v3": lambda: ours(LogisticProbe(seed=given.seed)),
        "logreg-v1": lambda: ours(LogisticProbeV1(seed=given.seed)),
        "plain, scaled, tol 1e-4": lambda: plain(scaled, 1e-4, np.float32),
        "plain, raw, as DINOv3": lambda: plain((train, test), given.plain_tol, np.float64),
    }
    for name, run in rows.items():
        if given.only and not any(word in name for word in given.only):
            continue
        started = time.perf_counter()
        predicted, c, about = run()
        seconds = time.perf_counter() - started
        baseline = baseline or seconds
        top1 = with_intervals(test.labels, predicted)["top1"]
        accuracy = f"{100 * top1.value:.2f} % [{100 * top1.low:.2f}, {100 * top1.high:.2f}]"
        print(
            f"{name:24s}{seconds:9.2f} s {seconds / baseline:7.1f} x   top-1 {accuracy}   C = {c:.3g}   {about}",
            flush=True,
        )


def synthetic(given: argparse.Namespace) -> list[Features]:
    """The training and the test part that the flags describe."""
    sizes = (given.seed + 1, given.samples), (given.seed + 2, given.test)
    return [encoder_like(n, given.dims, given.classes, given.overlap, given.uneven, seed) for seed, n in sizes]


def read(paths: list[str]) -> list[Features]:
    """Feature tables of labelled splits."""
    tables = [FeatureTable.load(path) for path in paths]
    return [Features(np.asarray(table.features), table.labels) for table in tables]


if __name__ == "__main__":
    main()
