"""Class-disjoint metric learning: retrieval among samples of the second half of the classes."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import numpy as np
from pydantic import Field

from evaluation.frozen import Features, Outcome, check
from evaluation.protocols.base import Protocol
from evaluation.protocols.retrieval import ranked, ranking_outcome
from zoo.errors import DataError
from zoo.strict import Strict


class MetricLearningV1(Strict):
    """Class-disjoint metric learning: leave-one-out retrieval among all samples, of all splits, of the second half
    of the classes (CUB-200-2011: 101-200, Stanford Cars: 99-196). The encoder is not trained on the first half.

    Recall@K: share of queries with a sample of their class among the K nearest. R-precision: share of the query's
    class among its R nearest, R being the size of the class without the query. MAP@R: mean over those R ranks of
    precision where the class matches (Musgrave et al. 2020, arXiv 2003.08505). Intervals: bootstrap over queries.
    """

    ks: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(1, 2, 4, 8), min_length=1, description="ranks of Recall@K"
    )


class MetricLearning(Protocol[MetricLearningV1]):
    """Protocol `metric-learning-v1`; `MetricLearningV1` says what it fixes."""

    name = "metric-learning-v1"
    title = "class-disjoint metric learning"
    settings_type = MetricLearningV1
    headline = "map_at_r"

    def run(self, train: Features, test: Features, held: np.ndarray | None = None) -> Outcome:
        """Rank all samples of the second half of the classes against each other.

        Raises:
            DataError: see `evaluation.frozen.check`; or fewer than four classes.
        """
        warnings = check(train, test)
        classes = np.unique(train.labels)
        if len(classes) < 4:
            raise DataError(f"a class-disjoint split needs at least 4 classes, {len(classes)} were given")
        first = classes[(len(classes) + 1) // 2]
        parts = [part.take(np.flatnonzero(part.labels >= first)) for part in (train, test)]
        both = Features(
            np.concatenate([part.features for part in parts]), np.concatenate([part.labels for part in parts])
        )
        scores, _ = ranked(both, self.settings.ks)
        metrics = {f"recall_at_{k}": scores[f"hit_{k}"] for k in self.settings.ks}
        metrics |= {"map_at_r": scores["map_at_r"], "r_precision": scores["r_precision"]}
        return replace(ranking_outcome(metrics, both.labels, warnings, self.seed), of_test_samples=False)
