"""Clustering of frozen features: do classes form groups without any label?"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from evaluation.frozen import Features, Outcome, check, unit
from evaluation.protocols.base import Protocol
from zoo.checkpoint.results import Metric
from zoo.data.splits import held_out
from zoo.strict import Strict


class ClusteringV1(Strict):
    """k-means on the L2-normalised features of the test split, as many clusters as classes; labels only judge.

    NMI and AMI (AMI corrects for chance, which NMI with many small classes does not), ACC: accuracy under the best
    one-to-one assignment of clusters to classes (Hungarian method). The value is that of the restart with the least
    inertia; the brackets span all `restarts`, each from its own k-means++ start. At most `samples` samples,
    stratified.
    """

    restarts: int = Field(default=10, ge=1, description="k-means runs, each from its own start")
    samples: int = Field(default=10_000, ge=10, description="at most this many test samples are clustered")


class Clustering(Protocol[ClusteringV1]):
    """Protocol `clustering-v1`; `ClusteringV1` says what it fixes."""

    name = "clustering-v1"
    title = "k-means clustering"
    settings_type = ClusteringV1
    headline = "ami"

    def run(self, train: Features, test: Features, held: np.ndarray | None = None) -> Outcome:
        """Cluster `test`; `train` takes no part.

        Raises:
            DataError: see `evaluation.frozen.check`.
        """
        from sklearn.cluster import KMeans

        warnings = list(check(train, test))
        features, labels = test.features, test.labels
        if len(labels) > self.settings.samples:
            _, kept = held_out(labels, self.settings.samples / len(labels), self.seed)
            features, labels = features[kept], labels[kept]
        x, classes = unit(features), len(np.unique(labels))
        distinct = len(np.unique(x, axis=0)) if len(x) < 10 * classes else classes
        if distinct < classes:
            warnings.append(f"only {distinct} distinct features for {classes} clusters")
        runs = [
            KMeans(min(classes, distinct), n_init=1, random_state=self.seed + i).fit(x)
            for i in range(self.settings.restarts)
        ]
        scores = [clustering_scores(labels, run.labels_) for run in runs]
        best = scores[int(np.argmin([run.inertia_ for run in runs]))]
        metrics = {
            name: Metric(value=best[name], low=min(s[name] for s in scores), high=max(s[name] for s in scores))
            for name in best
        }
        return Outcome(None, {"clusters": classes, "samples": len(x)}, tuple(warnings), metrics)


def clustering_scores(true: np.ndarray, clusters: np.ndarray) -> dict[str, float]:
    """NMI, AMI and accuracy under the best one-to-one assignment of clusters to classes.

    Args:
        true, clusters: `(N,)` indices.
    """
    from scipy.optimize import linear_sum_assignment
    from sklearn.metrics import adjusted_mutual_info_score, normalized_mutual_info_score

    _, rows = np.unique(true, return_inverse=True)
    _, columns = np.unique(clusters, return_inverse=True)
    counts = np.zeros((rows.max() + 1, columns.max() + 1), dtype=np.int64)
    np.add.at(counts, (rows, columns), 1)
    matched = counts[linear_sum_assignment(counts, maximize=True)].sum()
    return {
        "nmi": float(normalized_mutual_info_score(true, clusters)),
        "ami": float(adjusted_mutual_info_score(true, clusters)),
        "cluster_acc": float(matched / len(true)),
    }
