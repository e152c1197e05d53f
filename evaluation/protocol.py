"""Protocols: a name says exactly how a number was made, and every number carries one.

A name ends in a version. Whenever the same features would give another number, the version rises.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, ValidationError

from zoo.config import Strict, first_problem
from zoo.errors import ConfigError, UnknownNameError, nearest


class LogRegV1(Strict):
    """Multinomial logistic regression on frozen, standardised features; superseded by logreg-v2.

    Features are standardised with mean and deviation of the training part. C is chosen on a
    stratified `held_out` part of the training split, from small to large with warm starts, until accuracy has
    fallen twice; at most `select_samples` training samples take part in the choice. The chosen C is fitted once on
    the whole training split. Optimiser: L-BFGS of scikit-learn. Where the held-out part is small (below a few
    hundred samples) two chance falls end the search at a C that is far too small.
    """

    name: str = "logreg-v1"
    c_grid: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        default=(1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0), min_length=1
    )
    held_out: float = Field(default=0.1, gt=0, lt=1)
    select_samples: int = Field(default=10_000, ge=10)
    max_iter: int = Field(default=500, ge=1)
    tol: float = Field(default=1e-4, gt=0)


class LogRegV2(Strict):
    """Multinomial logistic regression on frozen, standardised features; C is cross-validated where samples are few.

    C (scikit-learn's: it multiplies the sum of losses) is chosen from `c_grid` by accuracy on training samples that
    the fit has not seen: the official validation split where there is one; else, below `cross_validate_below`
    training samples, stratified `folds` in turn, counted together; else a stratified `held_out` part. Then the
    chosen C is fitted on all of them. The smallest best C wins. Values follow each other from small to large; once
    `patience` in a row are hopeless (their accuracy more than two standard errors of the paired difference below the
    best, at a loss below half that of guessing) the rest are skipped.
    Optimiser: preconditioned L-BFGS (evaluation.logistic_path), to within `tol` of the least loss.
    """

    name: str = "logreg-v2"
    c_grid: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        default=tuple(10 ** (i / 2) for i in range(-12, 7)), min_length=1
    )
    standardise: bool = True
    folds: int = Field(default=5, ge=2)
    cross_validate_below: int = Field(default=10_000, ge=0)
    held_out: float = Field(default=0.1, gt=0, lt=1)
    patience: int | None = Field(default=3, ge=1, description="None tries every C")
    max_iter: int = Field(default=500, ge=1)
    tol: float = Field(default=1e-4, gt=0)


class TransferV1(LogRegV2):
    """SimCLR's linear transfer protocol (arXiv 2002.05709, appendix B.8.1): multinomial logistic regression with L2
    penalty on frozen features of resized and centre-cropped images, without augmentation and without normalising.

    The penalty takes 45 logarithmically spaced values in 1e-6..1e5 (C is their inverse) and is chosen on the
    official validation split, or a stratified fifth of the training split where there is none; the test score is
    that of a fit on training and validation together. Top-1 and mean per-class accuracy are both computed, and the
    one the field reports for the dataset is marked. Optimiser and early end as logreg-v2. Images have the size
    that the encoder was made for, not always 224 pixels.
    """

    name: str = "transfer-v1"
    c_grid: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        default=tuple(10 ** (-5 + 11 * i / 44) for i in range(45)), min_length=1
    )
    standardise: bool = False
    cross_validate_below: int = 0
    held_out: float = Field(default=0.2, gt=0, lt=1)


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


class FewLabelV1(Strict):
    """Logistic regression on frozen features when few training samples carry a label.

    An amount below 1 is a share of each class (rounded, at least one sample), from 1 on it counts labels per class.
    Labels are drawn at random, balanced over classes, `draws` times; the numbers are means over draws, their
    intervals cover draws and test samples. Features are standardised over the whole training split, of which labels
    are not needed. `c` is fixed, as few labels leave nothing to choose on.
    """

    name: str = "few-label-v1"
    amounts: tuple[Annotated[float, Field(gt=0)], ...] = Field(default=(0.01, 0.05, 0.1, 0.2), min_length=1)
    draws: int = Field(default=5, ge=2)
    c: float = Field(default=0.1, gt=0)
    max_iter: int = Field(default=500, ge=1)


class RetrievalV1(Strict):
    """Leave-one-out retrieval: every test sample asks all others, by cosine similarity of features. Nothing is trained.

    R@k: share of queries with a sample of their class among the k nearest. mAP: mean over queries of the average
    precision of the whole ranking. A sample alone in its class asks nothing. Intervals: bootstrap over queries.
    """

    name: str = "retrieval-v1"
    ks: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(1, 5), min_length=1)


class MetricLearningV1(Strict):
    """Class-disjoint metric learning: leave-one-out retrieval among all samples, of all splits, of the second half
    of the classes (CUB-200-2011: 101-200, Stanford Cars: 99-196). The encoder is not trained on the first half.

    Recall@K: share of queries with a sample of their class among the K nearest. R-precision: share of the query's
    class among its R nearest, R being the size of the class without the query. MAP@R: mean over those R ranks of
    precision where the class matches (Musgrave et al. 2020, arXiv 2003.08505). Intervals: bootstrap over queries.
    """

    name: str = "metric-learning-v1"
    ks: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(1, 2, 4, 8), min_length=1)


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


class FineTuneV1(Strict):
    """Fine-tuning: the whole network and a linear classifier on it, trained with labels.

    The optimiser of SimCLR's transfer experiments (arXiv 2002.05709, appendix B.8.1): SGD with Nesterov momentum,
    batch-norm momentum min(10 / steps per epoch, 0.1), weight decay divided by the learning rate; images are
    cropped (RandomResizedCrop) and flipped, sequences are taken as they are. Ours: the learning rate falls as a
    cosine to 0, the classifier starts at zero. Learning rate and weight decay are chosen on a stratified
    `held_out` part of the training split (the official validation split where there is one), then the network is
    trained once more on all of it. The last step is reported. The defaults fit a CPU; `SIMCLR_TRANSFER` holds
    the paper's 20,000 steps and its grid, `SIMCLR_FEW_LABELS` its setting for 1 % and 10 % of the labels.
    """

    name: str = "finetune-v1"
    steps: int = Field(default=100, ge=1)
    epochs: int | None = Field(default=None, ge=1, description="given: replaces `steps`")
    batch_size: int = Field(default=32, ge=2)
    lr_grid: tuple[Annotated[float, Field(gt=0)], ...] = Field(default=(0.01, 0.1), min_length=1)
    weight_decay_grid: tuple[Annotated[float, Field(ge=0)], ...] = Field(default=(0.0,), min_length=1)
    crop_scale: tuple[float, float] = (0.08, 1.0)
    flip: bool = True
    held_out: float = Field(default=0.1, gt=0, lt=1)
    select_samples: int = Field(default=2_000, ge=10)


#: Appendix B.8.1: seven logarithmically spaced values each, and no weight decay at all.
SIMCLR_TRANSFER: dict[str, Any] = {
    "steps": 20_000,
    "batch_size": 256,
    "lr_grid": tuple(10 ** (-4 + i / 2) for i in range(7)),
    "weight_decay_grid": (0.0, *(10 ** (-6 + i / 2) for i in range(7))),
}
#: Appendix B.5, for 1 % of the labels (30 epochs for 10 %): learning rate 0.05 per 256 samples, no decay, no choice.
SIMCLR_FEW_LABELS: dict[str, Any] = {"epochs": 60, "batch_size": 4096, "lr_grid": (0.8,), "weight_decay_grid": (0.0,)}

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
