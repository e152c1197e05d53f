"""The contract of a protocol: what `evaluate` may ask of it, with defaults for most."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

import numpy as np

from evaluation.frozen import Features, Outcome
from zoo.strict import Strict

if TYPE_CHECKING:
    import torch

Settings = TypeVar("Settings", bound=Strict)
#: Called as `progress(what, done, total)`.
Progress = Callable[[str, int, int], None]


class Protocol(Generic[Settings]):
    """One way to turn features and labels into a number. A subclass lives in a file of its own.

    Attributes:
        name: versioned, such as `"knn-v1"`. Whenever the same features would give another number, the version rises.
        title: how a sentence calls it.
        settings_type: its settings, each field described; the class docstring is the text for reports.
        headline: the metric the field reports; None where that depends on the dataset (top-1 or mean per class).
        needs_network: it trains or changes the network, so that it cannot run on raw input.

    Args:
        settings: None for the defaults.
        seed: the seed of all random choices.
        precision, device: of forward passes, where the protocol runs the network; None for a GPU if there is one.
        progress: told how far a long protocol is.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    settings_type: ClassVar[type[Strict]]
    headline: ClassVar[str | None] = None
    needs_network: ClassVar[bool] = False

    def __init__(
        self,
        settings: Settings | None = None,
        seed: int = 0,
        *,
        precision: str = "auto",
        device: str | torch.device | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.settings: Settings = self.settings_type() if settings is None else settings  # type: ignore[assignment]
        self.seed, self.precision, self.device, self.progress = seed, precision, device, progress

    def run(self, train: Features, test: Features, held: np.ndarray | None = None) -> Outcome:
        """Fit and choose on `train`, then judge on `test`, whose labels take no part in any choice.

        Args:
            held: indices into `train` to choose settings on, such as the official validation split; None: the
                protocol draws its own.

        Raises:
            DataError: see `evaluation.frozen.check`.
        """
        raise NotImplementedError

    def outcomes(self, train: Features, test: Features, held: np.ndarray | None = None) -> Iterator[Outcome]:
        """All results of the protocol: one, unless it measures at several settings in turn."""
        yield self.run(train, test, held)

    def recorded(self) -> dict[str, object]:
        """The settings that every row carries."""
        return self.settings.model_dump(mode="json")

    @classmethod
    def text(cls) -> str:
        """What the protocol fixes, for reports."""
        return " ".join((cls.settings_type.__doc__ or "").split()).replace("`", "")
