"""The kNN probe before the choice of k respected groups, kept so that numbers measured with it can be repeated."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from pydantic import Field

from evaluation.frozen import Features, selection
from evaluation.protocols.knn import KNNProbe
from zoo.strict import Strict


class KnnV1(Strict):
    """Weighted k-nearest neighbours on L2-normalised features; superseded by knn-v2.

    Cosine similarity s, votes weighted by exp(s / `temperature`), as Wu et al. 2018 (arXiv 1805.01978,
    section 3.4). k is chosen on a stratified `held_out` part of the training split, of which at most
    `select_samples` samples are classified, without regard to groups such as persons; then all training samples vote.
    """

    k_grid: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(1, 5, 10, 20, 50, 200), min_length=1, description="numbers of neighbours to choose from"
    )
    temperature: float = Field(default=0.1, gt=0, description="of the weights of the votes")
    held_out: float = Field(default=0.1, gt=0, lt=1, description="share of the training split that k is chosen on")
    select_samples: int = Field(default=5_000, ge=10, description="at most this many samples choose k")


class KNNProbeV1(KNNProbe):
    """Protocol `knn-v1`; `KnnV1` says what it fixes."""

    name = "knn-v1"
    settings_type = KnnV1

    def _parts(self, train: Features, held: np.ndarray | None) -> list[tuple[np.ndarray, np.ndarray]]:
        parts = selection(train.labels, held, self.settings.held_out, self.seed)
        return [] if parts is None else [parts]
