"""Two encoders beside each other on the same samples: how alike their features are, and which classifies better."""

from __future__ import annotations

import numpy as np
import torch

from evaluation.evaluate import Evaluation
from evaluation.frozen import Outcome, groups_of, unit
from evaluation.metrics import mean_with_interval
from evaluation.paired import difference, scores_of
from zoo.checkpoint.results import Metric, Versus
from zoo.data.base import Dataset
from zoo.encoder import Encoder
from zoo.errors import DataError
from zoo.features.extract import embed
from zoo.strict import Strict

#: Similarities held at once: bounds memory at 64 MiB.
BLOCK = 1 << 24


class Alike(Strict):
    """How alike two encoders see one dataset.

    Attributes:
        samples: how many were compared.
        cka: linear CKA, 1 for features that differ by rotation and scale, 0 for unrelated ones (debiased, so that
            unrelated features may fall a little below).
        neighbours: k of the overlap.
        overlap: share of the k nearest neighbours that both encoders agree on, with a 95 % interval over samples.
        chance: the overlap of unrelated features.
    """

    samples: int
    cka: float
    neighbours: int
    overlap: Metric
    chance: float


def alike(first: Encoder, second: Encoder, dataset: Dataset, *, k: int = 10, precision: str = "auto") -> Alike:
    """Extract features of both encoders and compare them.

    Args:
        first, second: of the modality of the dataset; their inputs and widths may differ.
        k: nearest neighbours of each sample that are compared.
        precision: of the forward passes, see `zoo.extract`.

    Raises:
        DataError: as `linear_cka` and `neighbour_overlap`.
    """
    a, b = (embed(encoder, dataset, precision=precision) for encoder in (first, second))
    shared = neighbour_overlap(a, b, k)
    return Alike(
        samples=len(dataset),
        cka=linear_cka(a, b),
        neighbours=k,
        overlap=mean_with_interval(shared),
        chance=k / (len(dataset) - 1),
    )


def linear_cka(first: np.ndarray, second: np.ndarray, *, debiased: bool = True) -> float:
    """Linear centred kernel alignment of two feature tables of the same samples (Kornblith et al. 2019,
    arXiv 1905.00414, section 3).

    The plain estimate calls any two tables alike where there are fewer samples than features; the debiased one puts the
    unbiased HSIC of Song et al. 2012 (Journal of Machine Learning Research 13, equation 5) in its place.

    Args:
        first, second: `(N, D)` and `(N, E)`, rows of the same samples in the same order.
        debiased: False for the estimate as published.

    Raises:
        DataError: tables of different length, fewer than 4 samples, NaN, or features that are all the same.
    """
    x, y = _checked(first, second, 4)
    between, own, other = _hsic(x, y, debiased), _hsic(x, x, debiased), _hsic(y, y, debiased)
    if own <= 0 or other <= 0:
        raise DataError("the features of one encoder do not vary over these samples: it has collapsed")
    return float(between / np.sqrt(own * other))


def neighbour_overlap(first: np.ndarray, second: np.ndarray, k: int = 10) -> np.ndarray:
    """`(N,)` share of each sample's k nearest neighbours, by cosine similarity, that both tables agree on.

    Args:
        first, second: `(N, D)` and `(N, E)`, rows of the same samples in the same order.

    Raises:
        DataError: tables of different length, k below 1 or not below the number of samples, or NaN.
    """
    x, y = _checked(first, second, 2)
    if not 1 <= k < len(x):
        raise DataError(f"k must lie in 1..{len(x) - 1} for {len(x)} samples, got {k}")
    tables = [torch.from_numpy(unit(table)) for table in (x, y)]
    step, found = max(1, BLOCK // len(x)), []
    for start in range(0, len(x), step):
        near = [_nearest(table, start, min(len(x), start + step), k) for table in tables]
        both = (near[0][:, :, None] == near[1][:, None, :]).any(dim=2)
        found.append(both.double().mean(dim=1))
    return torch.cat(found).numpy()


def paired_difference(first: Evaluation, second: Evaluation, seed: int = 0) -> dict[str, list[Versus]]:
    """Versioned protocol name -> the accuracy of `first` minus that of `second` on the same test samples.

    Top-1 with McNemar's exact test, both accuracies with 95 % intervals; whole groups are drawn where the data names
    them. Only protocols that both were measured with, and whose predictions were kept.

    Raises:
        DataError: the two were not measured on the same test samples.
    """
    if first.test_data.fingerprint != second.test_data.fingerprint:
        raise DataError(
            f"{first.test_data.name}/{first.test_data.split} and {second.test_data.name}/{second.test_data.split} are "
            "not the same samples; evaluate both encoders on one test split"
        )
    groups, labels, found = groups_of(first.test_data), first.test.labels, {}
    for protocol in first.predicted.keys() & second.predicted.keys():
        own, other = (scores_of([Outcome(each.predicted[protocol], {}, ())], labels) for each in (first, second))
        found[protocol] = [
            difference(own[metric], other[metric], second.encoder.name or "the second encoder", metric, groups, seed)
            for metric in own
        ]
    return dict(sorted(found.items()))


def _checked(first: np.ndarray, second: np.ndarray, least: int) -> tuple[np.ndarray, np.ndarray]:
    x, y = (np.asarray(table, dtype=np.float64) for table in (first, second))
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y):
        raise DataError(f"features {x.shape} and {y.shape} are not of the same samples; expected (N, D) and (N, E)")
    if len(x) < least:
        raise DataError(f"{len(x)} samples say nothing of how alike two encoders are; give at least {least}")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise DataError("features hold NaN or infinite values")
    return x, y


def _hsic(x: np.ndarray, y: np.ndarray, debiased: bool) -> float:
    """How much the linear kernels of two tables go together; never an N x N matrix."""
    x, y, n = x - x.mean(axis=0), y - y.mean(axis=0), len(x)
    whole = float(np.square(x.T @ y).sum())
    if not debiased:
        return whole
    # Kernels without their diagonal; rows of centred kernels sum to zero, so that each row keeps minus its diagonal.
    own, other = np.square(x).sum(axis=1), np.square(y).sum(axis=1)
    trace = whole - float(own @ other)
    sums = float(own.sum() * other.sum()) / ((n - 1) * (n - 2))
    rows = 2 * float(own @ other) / (n - 2)
    return (trace + sums - rows) / (n * (n - 3))


def _nearest(table: torch.Tensor, start: int, stop: int, k: int) -> torch.Tensor:
    """`(stop - start, k)` indices of the nearest rows, a row itself left out."""
    similarity = table[start:stop] @ table.T
    similarity[torch.arange(stop - start), torch.arange(start, stop)] = -torch.inf
    return similarity.topk(k, dim=1).indices
