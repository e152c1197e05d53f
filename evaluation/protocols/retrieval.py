"""Leave-one-out retrieval on frozen features of the test split, and the rankings that other protocols share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
import torch
from pydantic import Field

from evaluation.frozen import Features, Outcome, check, unit
from evaluation.metrics import mean_with_interval
from evaluation.protocols.base import Protocol
from zoo.errors import DataError
from zoo.strict import Strict


class RetrievalV1(Strict):
    """Leave-one-out retrieval: every test sample asks all others, by cosine similarity of features. Nothing is trained.

    R@k: share of queries with a sample of their class among the k nearest. mAP: mean over queries of the average
    precision of the whole ranking. A sample alone in its class asks nothing. Intervals: bootstrap over queries.
    """

    ks: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(1, 5), min_length=1, description="ranks of R@k")


#: Similarities ranked at once: bounds memory at a few hundred MiB.
BLOCK = 1 << 23


class Retrieval(Protocol[RetrievalV1]):
    """Protocol `retrieval-v1`; `RetrievalV1` says what it fixes."""

    name = "retrieval-v1"
    title = "leave-one-out retrieval"
    settings_type = RetrievalV1
    headline = "map"

    def run(self, train: Features, test: Features, held: np.ndarray | None = None) -> Outcome:
        """Rank `test` against itself; `train` takes no part.

        Raises:
            DataError: see `evaluation.frozen.check`; or no class of the test split has two samples.
        """
        warnings = check(train, test)
        scores, _ = ranked(test, self.settings.ks)
        metrics = {f"recall_at_{k}": scores[f"hit_{k}"] for k in self.settings.ks} | {"map": scores["ap"]}
        return ranking_outcome(metrics, test.labels, warnings, self.seed)


def ranked(part: Features, ks: Sequence[int]) -> tuple[dict[str, np.ndarray], int]:
    """Per query: a hit in the first k, average precision, R-precision and MAP@R; and how many samples are alone.

    Each sample with a companion in its class asks all others, by cosine similarity.

    Raises:
        DataError: no class has two samples.
    """
    counts = np.bincount(part.labels)
    queries = np.flatnonzero(counts[part.labels] > 1)
    if not len(queries):
        raise DataError("no class has two samples, so nothing can be retrieved; give more samples per class")
    bank, labels = torch.from_numpy(unit(part.features)), torch.from_numpy(part.labels)
    step = max(1, BLOCK // len(bank))
    found: dict[str, list[torch.Tensor]] = {}
    for start in range(0, len(queries), step):
        rows = torch.from_numpy(queries[start : start + step])
        similarity = bank[rows] @ bank.T
        similarity[torch.arange(len(rows)), rows] = -torch.inf  # the query itself comes last and is cut off
        order = similarity.argsort(dim=1, descending=True, stable=True)[:, :-1]
        match = (labels[order] == labels[rows, None]).float()
        for name, values in ranking_scores(match, ks).items():
            found.setdefault(name, []).append(values)
    return {name: torch.cat(parts).double().numpy() for name, parts in found.items()}, len(part) - len(queries)


def ranking_scores(match: torch.Tensor, ks: Sequence[int]) -> dict[str, torch.Tensor]:
    """`hit_K`, `ap`, `r_precision` and `map_at_r` of each query, `(Q,)`.

    Args:
        match: `(Q, M)`, 1 where the sample at that rank has the class of the query, else 0; at least one 1 in each row.
    """
    ranks = torch.arange(1, match.shape[1] + 1, dtype=torch.float32)
    right = match.sum(dim=1)
    precision = match.cumsum(dim=1) / ranks * match
    within = ranks <= right[:, None]
    return {f"hit_{k}": match[:, :k].amax(dim=1) for k in ks} | {
        "ap": precision.sum(dim=1) / right,
        "r_precision": (match * within).sum(dim=1) / right,
        "map_at_r": (precision * within).sum(dim=1) / right,
    }


def ranking_outcome(values: dict[str, np.ndarray], labels: np.ndarray, warnings: Sequence[str], seed: int) -> Outcome:
    """Means over queries with bootstrap intervals.

    Args:
        values: of the samples that ask, as `ranked` gives them. labels: `(N,)` of all samples.
    """
    asks = np.bincount(labels)[labels] > 1
    if not asks.all():
        warnings = (*warnings, f"{(~asks).sum()} of {len(asks)} samples are alone in their class and ask nothing")
    metrics = {name: mean_with_interval(each, seed) for name, each in values.items()}
    samples = {name: np.full(len(labels), np.nan) for name in values}
    for name, each in values.items():
        samples[name][asks] = each
    return Outcome(None, {"queries": int(asks.sum())}, tuple(warnings), metrics, samples=samples)
