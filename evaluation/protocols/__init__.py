"""Protocols: a name says exactly how a number was made, and every number carries one.

One file per protocol. A name ends in a version. Whenever the same features would give another number, the version
rises.
"""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from evaluation.protocols.clustering import Clustering, ClusteringV1
from evaluation.protocols.few_label import FewLabelV1
from evaluation.protocols.finetune import FineTuneV1
from evaluation.protocols.knn import KNNProbe, KnnV1
from evaluation.protocols.logistic import LogisticProbe, LogRegV2, TransferV1
from evaluation.protocols.logistic_v1 import LogisticProbeV1, LogRegV1
from evaluation.protocols.retrieval import MetricLearning, MetricLearningV1, Retrieval, RetrievalV1
from zoo.errors import ConfigError, UnknownNameError, nearest
from zoo.strict import first_problem

#: Versioned protocol name -> the evaluator of frozen features that runs it.
EVALUATORS: dict[str, Any] = {
    "logreg-v2": LogisticProbe,
    "logreg-v1": LogisticProbeV1,
    "transfer-v1": LogisticProbe,
    "knn-v1": KNNProbe,
    "retrieval-v1": Retrieval,
    "metric-learning-v1": MetricLearning,
    "clustering-v1": Clustering,
}
#: What the field reports where nothing is classified.
HEADLINES = {"retrieval-v1": "map", "metric-learning-v1": "map_at_r", "clustering-v1": "ami"}
Protocol = LogRegV1 | LogRegV2 | KnnV1 | FewLabelV1 | RetrievalV1 | MetricLearningV1 | ClusteringV1 | FineTuneV1
#: what `--protocol` and `evaluate` take -> settings class.
PROTOCOLS: dict[str, type[Protocol]] = {
    "logreg": LogRegV2,
    "logreg_v1": LogRegV1,  # to repeat numbers that were measured with it
    "transfer": TransferV1,
    "knn": KnnV1,
    "few_label": FewLabelV1,
    "retrieval": RetrievalV1,
    "metric_learning": MetricLearningV1,
    "clustering": ClusteringV1,
    "finetune": FineTuneV1,
}


def protocol(name: str, **settings: Any) -> Protocol:
    """The settings of a protocol by its short name, such as `"logreg"`.

    Raises:
        UnknownNameError: no such protocol; names the nearest. ConfigError: a setting it cannot have.
    """
    if name not in PROTOCOLS:
        raise UnknownNameError(f"unknown protocol {name!r}; {nearest(name, list(PROTOCOLS))}")
    try:
        return PROTOCOLS[name](**settings)
    except ValidationError as error:
        raise ConfigError(f"protocol {name!r}: {first_problem(error)}") from None


def short_name(name: str) -> str | None:
    """`"logreg-v1"` -> `"logreg_v1"`, what `--protocol` takes; None for a protocol that is no more."""
    return next((short for short, cls in PROTOCOLS.items() if cls.model_fields["name"].default == name), None)


def describe(name: str) -> str:
    """The text of a versioned protocol, such as `"logreg-v1"`, for reports; empty if unknown."""
    for cls in PROTOCOLS.values():
        if cls.model_fields["name"].default == name:
            return " ".join((cls.__doc__ or "").split()).replace("`", "")
    return ""
