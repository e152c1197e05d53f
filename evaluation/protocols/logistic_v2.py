"""The linear probe before folds respected groups, kept so that numbers measured with it can be repeated."""

from __future__ import annotations

from evaluation.protocols.logistic import LogisticProbe, LogRegV3


class LogRegV2(LogRegV3):
    """Multinomial logistic regression as logreg-v3, but C is chosen without regard to groups such as persons.

    Below `cross_validate_below` training samples, stratified `folds` hold out single samples, so that the fit may have
    seen the same person: C is then chosen too large. Superseded by logreg-v3, which gives the same numbers where the
    data names no groups.
    """


class LogisticProbeV2(LogisticProbe):
    """Protocol `logreg-v2`; `LogRegV2` says what it fixes."""

    name = "logreg-v2"
    settings_type = LogRegV2
    respects_groups = False
