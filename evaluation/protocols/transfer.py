"""SimCLR's linear transfer protocol: the logistic regression of `logistic.py` with the grid and split of the paper."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from evaluation.protocols.logistic import LogisticProbe, LogRegV3


class TransferV1(LogRegV3):
    """SimCLR's linear transfer protocol (arXiv 2002.05709, appendix B.8.1): multinomial logistic regression with L2
    penalty on frozen features of resized and centre-cropped images, without augmentation and without normalising.

    The penalty takes 45 logarithmically spaced values in 1e-6..1e5 (C is their inverse) and is chosen on the
    official validation split, or a stratified fifth of the training split where there is none; the test score is
    that of a fit on training and validation together. Top-1 and mean per-class accuracy are both computed, and the
    one the field reports for the dataset is marked. Optimiser and early end as logreg-v3. Images have the size
    that the encoder was made for, not always 224 pixels.
    """

    c_grid: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        default=tuple(10 ** (-5 + 11 * i / 44) for i in range(45)),
        min_length=1,
        description="values of C to choose from, the inverse of the penalty",
    )
    standardise: bool = Field(default=False, description="divide each feature by its deviation first")
    cross_validate_below: int = Field(default=0, ge=0, description="training samples; from here on, hold out once")
    held_out: float = Field(default=0.2, gt=0, lt=1, description="share of the training split that judges C")


class TransferProbe(LogisticProbe):
    """Protocol `transfer-v1`; `TransferV1` says what it fixes."""

    name = "transfer-v1"
    title = "SimCLR's linear transfer protocol"
    settings_type = TransferV1
    respects_groups = False
