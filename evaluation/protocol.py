"""Protocols: a name says exactly how a number was made, and every number carries one.

A name ends in a version. Whenever the same features would give another number, the version rises.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, ValidationError

from zoo.config import Strict, first_problem
from zoo.errors import ConfigError, UnknownNameError, nearest


class LogRegV1(Strict):
    """Multinomial logistic regression on frozen, standardised features.

    Features are standardised with mean and deviation of the training part. C is chosen on a
    stratified `held_out` part of the training split, from small to large with warm starts; at most
    `select_samples` training samples take part in the choice. The chosen C is fitted once on the
    whole training split. Optimiser: L-BFGS of scikit-learn.
    """

    name: str = "logreg-v1"
    c_grid: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        default=(1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0), min_length=1
    )
    held_out: float = Field(default=0.1, gt=0, lt=1)
    select_samples: int = Field(default=10_000, ge=10)
    max_iter: int = Field(default=500, ge=1)
    tol: float = Field(default=1e-4, gt=0)


class KnnV1(Strict):
    """Weighted k-nearest neighbours on L2-normalised features.

    Cosine similarity s, votes weighted by exp(s / `temperature`), as Wu et al. 2018 (arXiv 1805.01978,
    section 3.4). k is chosen on a stratified `held_out` part of the training split, of which at most
    `select_samples` samples are classified; then all training samples vote.
    """

    name: str = "knn-v1"
    k_grid: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(1, 5, 10, 20, 50, 200), min_length=1)
    temperature: float = Field(default=0.1, gt=0)
    held_out: float = Field(default=0.1, gt=0, lt=1)
    select_samples: int = Field(default=5_000, ge=10)


#: what `--protocol` and `evaluate` take -> settings class.
PROTOCOLS: dict[str, type[LogRegV1] | type[KnnV1]] = {"logreg": LogRegV1, "knn": KnnV1}


def protocol(name: str, **settings: Any) -> LogRegV1 | KnnV1:
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


def describe(name: str) -> str:
    """The text of a versioned protocol, such as `"logreg-v1"`, for reports; empty if unknown."""
    for cls in PROTOCOLS.values():
        if cls.model_fields["name"].default == name:
            return " ".join((cls.__doc__ or "").split()).replace("`", "")
    return ""
