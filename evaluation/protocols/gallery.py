"""Retrieval with a query and a gallery split: the test split asks, the training split answers."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from pydantic import Field

from evaluation.frozen import Features, Outcome, check, unit
from evaluation.metrics import mean_with_interval
from evaluation.protocols.base import Protocol
from evaluation.protocols.retrieval import BLOCK, ranking_scores
from zoo.strict import Strict


class GalleryV1(Strict):
    """Retrieval with two splits: every test sample asks all training samples, by cosine similarity of features.

    R@k: share of queries with a sample of their class among the k nearest of the gallery. mAP: mean over queries of the
    average precision of the whole ranking. MAP@R: mean over the first R ranks of precision where the class matches, R
    being the size of the class in the gallery (Musgrave et al. 2020, arXiv 2003.08505). Nothing is trained. Intervals:
    bootstrap over queries.
    """

    ks: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(1, 5), min_length=1, description="ranks of R@k")


class Gallery(Protocol[GalleryV1]):
    """Protocol `gallery-v1`; `GalleryV1` says what it fixes."""

    name = "gallery-v1"
    title = "retrieval from the training split"
    settings_type = GalleryV1
    headline = "map"

    def run(self, train: Features, test: Features, held: np.ndarray | None = None) -> Outcome:
        """Rank `train` for each sample of `test`; nothing is chosen, so `held` takes no part.

        Raises:
            DataError: see `evaluation.frozen.check`, which also makes sure that each class of `test` is in `train`.
        """
        warnings = check(train, test)
        bank, labels = torch.from_numpy(unit(train.features)), torch.from_numpy(train.labels)
        asked, own = torch.from_numpy(unit(test.features)), torch.from_numpy(test.labels)
        step = max(1, BLOCK // len(bank))
        found: dict[str, list[torch.Tensor]] = {}
        for start in range(0, len(asked), step):
            order = (asked[start : start + step] @ bank.T).argsort(dim=1, descending=True, stable=True)
            match = (labels[order] == own[start : start + step, None]).float()
            for name, values in ranking_scores(match, self.settings.ks).items():
                found.setdefault(name, []).append(values)
        scores = {name: torch.cat(parts).double().numpy() for name, parts in found.items()}
        kept = {f"recall_at_{k}": scores[f"hit_{k}"] for k in self.settings.ks}
        kept |= {"map": scores["ap"], "map_at_r": scores["map_at_r"]}
        metrics = {name: mean_with_interval(values, self.seed) for name, values in kept.items()}
        return Outcome(None, {"queries": len(test), "gallery": len(train)}, warnings, metrics, samples=kept)
