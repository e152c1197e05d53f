"""kNN at fixed numbers of neighbours, as DINO prints it: nothing is chosen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import numpy as np
from pydantic import Field

from evaluation.frozen import Features, Outcome, check
from evaluation.protocols.base import Protocol
from evaluation.protocols.knn import classify
from zoo.errors import DataError
from zoo.strict import Strict


class KnnDinoV1(Strict):
    """Weighted k-nearest neighbours at fixed k, beside published tables: one row for each k, nothing is chosen.

    Features scaled to length 1, cosine similarity s, votes weighted by exp(s / `temperature`) with the temperature 0.07
    of DINO's evaluation (Caron et al. 2021, arXiv 2104.14294, file eval_knn.py of its code). All training samples vote.
    A k above the number of training samples is left out.
    """

    ks: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(20, 200), min_length=1, description="one row for each")
    temperature: float = Field(default=0.07, gt=0, description="of the weights of the votes")


class KNNDino(Protocol[KnnDinoV1]):
    """Protocol `knn-dino-v1`; `KnnDinoV1` says what it fixes."""

    name = "knn-dino-v1"
    title = "kNN at fixed k"
    settings_type = KnnDinoV1

    def recorded(self) -> dict[str, object]:
        """All but the grid: each row carries its own k."""
        return self.settings.model_dump(mode="json", exclude={"ks"})

    def outcomes(self, train: Features, test: Features, held: np.ndarray | None = None) -> Iterator[Outcome]:
        """One outcome per k; nothing is chosen, so `held` takes no part.

        Raises:
            DataError: see `evaluation.frozen.check`; or every k is above the number of training samples.
        """
        warnings = check(train, test)
        ks = [k for k in self.settings.ks if k <= len(train)]
        if not ks:
            raise DataError(f"k = {min(self.settings.ks)} exceeds the {len(train)} training samples; give a smaller k")
        if len(ks) < len(self.settings.ks):
            warnings = (*warnings, f"k above {max(ks)} left out: there are {len(train)} training samples")
        for k, predicted in classify(train, test.features, ks, self.settings.temperature).items():
            yield Outcome(predicted, {}, warnings, settings={"variant": f"k = {k}"})
