"""Clustering of frozen features: do classes form groups without any label?"""

from __future__ import annotations

import numpy as np
from pydantic import Field

from evaluation.frozen import Features, Outcome, check
from evaluation.report.drawing import unit
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

    name: str = "clustering-v1"
    restarts: int = Field(default=10, ge=1)
    samples: int = Field(default=10_000, ge=10)


class Clustering:
    """Protocol `clustering-v1`; see `evaluation.protocols.clustering.ClusteringV1`.

    Args:
        settings: restarts, samples. seed: of the restarts and of the draw of samples.
    """

    def __init__(self, settings: ClusteringV1 | None = None, seed: int = 0) -> None:
        self.settings, self.seed = settings or ClusteringV1(), seed

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
