"""Clusters of pictures without labels, each with the pictures that lie nearest to its centre."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from evaluation.frozen import unit

#: No more clusters than this unless asked for: nobody reads more contact sheets.
MOST = 16


@dataclass(frozen=True)
class Clusters:
    """A partition of the pictures.

    Attributes:
        of: `(N,)` int64, the cluster of each picture; the largest cluster is 0.
        nearest: for each cluster its rows, the nearest to the centre first.
    """

    of: np.ndarray
    nearest: list[np.ndarray]

    def __len__(self) -> int:
        return len(self.nearest)


def clusters(features: np.ndarray, count: int | None = None, seed: int = 0) -> Clusters:
    """k-means (Lloyd, k-means++ starts, the best of 4) on features of length 1.

    Args:
        features: `(N, D)`.
        count: number of clusters; None is sqrt(N / 2), between 2 and 16. Fewer come back where fewer pictures differ.
        seed: of the starts.
    """
    from sklearn.cluster import KMeans

    x = unit(features)
    wanted = min(MOST, max(2, round((len(x) / 2) ** 0.5))) if count is None else count
    wanted = min(wanted, len(np.unique(x.round(5), axis=0)))
    fitted = KMeans(wanted, n_init=4, random_state=seed).fit(x)
    sizes = np.bincount(fitted.labels_, minlength=wanted)
    number = np.empty(wanted, dtype=np.int64)
    number[np.argsort(-sizes, kind="stable")] = np.arange(wanted)
    of = number[fitted.labels_]
    distance = np.linalg.norm(x - fitted.cluster_centers_[fitted.labels_], axis=1)
    order = np.argsort(distance, kind="stable")
    return Clusters(of, [order[of[order] == cluster] for cluster in range(int((sizes > 0).sum()))])
