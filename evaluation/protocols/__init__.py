"""Protocols: a name says exactly how a number was made, and every number carries one. One file per protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from evaluation.protocols.base import Protocol
from evaluation.protocols.clustering import Clustering
from evaluation.protocols.few_label import FewLabelProbe
from evaluation.protocols.finetune import FineTuner
from evaluation.protocols.gallery import Gallery
from evaluation.protocols.knn import KNNProbe
from evaluation.protocols.knn_dino import KNNDino
from evaluation.protocols.knn_v1 import KNNProbeV1
from evaluation.protocols.linear_sgd import LinearSGD
from evaluation.protocols.logistic import LogisticProbe
from evaluation.protocols.logistic_v1 import LogisticProbeV1
from evaluation.protocols.logistic_v2 import LogisticProbeV2
from evaluation.protocols.metric_learning import MetricLearning
from evaluation.protocols.prototypes import Prototypes
from evaluation.protocols.retrieval import Retrieval
from evaluation.protocols.transfer import TransferProbe
from zoo.errors import ConfigError, UnknownNameError, nearest
from zoo.strict import first_problem

#: What `--protocol` and `evaluate` take -> the protocol. The one place where a protocol is entered.
PROTOCOLS: dict[str, type[Protocol]] = {
    "logreg": LogisticProbe,
    "logreg_v2": LogisticProbeV2,  # earlier versions repeat numbers that were measured with them
    "logreg_v1": LogisticProbeV1,
    "linear_sgd": LinearSGD,
    "transfer": TransferProbe,
    "knn": KNNProbe,
    "knn_v1": KNNProbeV1,
    "knn_dino": KNNDino,
    "few_label": FewLabelProbe,
    "prototypes": Prototypes,
    "retrieval": Retrieval,
    "gallery": Gallery,
    "metric_learning": MetricLearning,
    "clustering": Clustering,
    "finetune": FineTuner,
}


def protocol(name: str, settings: Mapping[str, Any] | None = None, **options: Any) -> Protocol:
    """A protocol by its short name, such as `"logreg"`.

    Args:
        settings: changes to its settings. options: `seed`, `precision`, `device`, `progress`, as of `Protocol`.

    Raises:
        UnknownNameError: no such protocol; names the nearest. ConfigError: a setting it cannot have.
    """
    if name not in PROTOCOLS:
        raise UnknownNameError(f"unknown protocol {name!r}; {nearest(name, list(PROTOCOLS))}")
    made = PROTOCOLS[name]
    try:
        return made(made.settings_type(**(settings or {})), **options)
    except ValidationError as error:
        raise ConfigError(f"protocol {name!r}: {first_problem(error)}") from None


def short_name(name: str) -> str | None:
    """`"logreg-v1"` -> `"logreg_v1"`, what `--protocol` takes; None for a protocol that is no more."""
    return next((short for short, each in PROTOCOLS.items() if each.name == name), None)


def describe(name: str) -> str:
    """The text of a versioned protocol, such as `"logreg-v1"`, for reports; empty if unknown."""
    short = short_name(name)
    return "" if short is None else PROTOCOLS[short].text()


def protocol_title(name: str) -> str:
    """`"logreg-v1"` -> `"logistic regression"`; an unknown protocol keeps its name."""
    short = short_name(name)
    return name if short is None else PROTOCOLS[short].title
