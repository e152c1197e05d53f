"""Few-shot classification by class means over many small tasks, as the few-shot literature reports it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import numpy as np
from pydantic import Field

from evaluation.frozen import Features, Outcome, check, unit
from evaluation.metrics import mean_with_interval
from evaluation.protocols.base import Protocol
from zoo.errors import DataError
from zoo.strict import Strict


class PrototypesV1(Strict):
    """Few-shot classification by the nearest class mean over many episodes; nothing is trained.

    An episode draws `ways` classes of the test split, `shots` labelled samples and `queries` other samples of each. A
    query takes the class whose mean labelled feature is nearest (features scaled to length 1, Euclidean distance), the
    rule of Prototypical Networks (Snell et al. 2017, arXiv 1703.05175) without their training. The number is the mean
    accuracy over `episodes`, its interval covers episodes. All encoders see the same episodes.
    """

    ways: int = Field(default=5, ge=2, description="classes of an episode")
    shots: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(1, 5), min_length=1, description="labelled samples of each class, one row for each number"
    )
    queries: int = Field(default=15, ge=1, description="samples of each class that are classified")
    episodes: int = Field(default=600, ge=2, description="tasks drawn")


class Prototypes(Protocol[PrototypesV1]):
    """Protocol `prototypes-v1`; `PrototypesV1` says what it fixes."""

    name = "prototypes-v1"
    title = "few-shot by class means"
    settings_type = PrototypesV1
    headline = "episode_acc"

    def recorded(self) -> dict[str, object]:
        """All but the shots: each row carries its own."""
        return self.settings.model_dump(mode="json", exclude={"shots"})

    def outcomes(self, train: Features, test: Features, held: np.ndarray | None = None) -> Iterator[Outcome]:
        """One outcome per number of shots, all from the test split.

        Raises:
            DataError: see `evaluation.frozen.check`; or too few classes have enough samples for an episode.
        """
        warnings, s = check(train, test), self.settings
        x = unit(test.features)
        for shots in s.shots:
            members = [np.flatnonzero(test.labels == label) for label in np.unique(test.labels)]
            large = [rows for rows in members if len(rows) >= shots + s.queries]
            if len(large) < s.ways:
                raise DataError(
                    f"an episode needs {s.ways} classes with {shots + s.queries} test samples, {len(large)} have that "
                    "many; give fewer ways, shots or queries"
                )
            notes = warnings
            if len(large) < len(members):
                notes = (*warnings, f"{len(members) - len(large)} classes are too small for an episode and left out")
            accuracy = np.array([self._episode(x, large, shots, number) for number in range(s.episodes)])
            yield Outcome(
                None,
                {"classes": len(large)},
                notes,
                {"episode_acc": mean_with_interval(accuracy, self.seed)},
                settings={"variant": f"{s.ways}-way {shots}-shot"},
                samples={"episode_acc": accuracy},
                of_test_samples=False,
            )

    def _episode(self, x: np.ndarray, members: list[np.ndarray], shots: int, number: int) -> float:
        """Accuracy of one episode."""
        # Raw PCG64 output is guaranteed stable across numpy versions; Generator.permutation is not.
        source = np.random.PCG64([self.seed, number])
        classes = np.argsort(source.random_raw(len(members)), kind="stable")[: self.settings.ways]
        drawn = [members[c][np.argsort(source.random_raw(len(members[c])), kind="stable")] for c in classes]
        means = np.stack([x[rows[:shots]].mean(axis=0) for rows in drawn])
        asked = np.concatenate([x[rows[shots : shots + self.settings.queries]] for rows in drawn])
        # Squared distance to each mean, without the part that is the same for all.
        nearest = (np.square(means).sum(axis=1) - 2 * asked @ means.T).argmin(axis=1)
        return float((nearest == np.repeat(np.arange(len(drawn)), self.settings.queries)).mean())
