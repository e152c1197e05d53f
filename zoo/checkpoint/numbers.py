"""How the project writes its numbers: one name per metric, one rounding, for tables, cards, reports and records."""

from __future__ import annotations

import re

from zoo.checkpoint.results import Metric

#: Metric -> what a reader calls it.
METRICS = {
    "top1": "top-1 accuracy",
    "mean_per_class": "mean per-class accuracy",
    "map": "mAP",
    "episode_acc": "accuracy over episodes",
    "map_at_r": "MAP@R",
    "r_precision": "R-precision",
    "nmi": "NMI",
    "ami": "AMI",
    "cluster_acc": "clustering accuracy",
}


def metric_title(metric: str) -> str:
    """`"recall_at_1"` -> `"R@1"`; an unknown metric keeps its name, with spaces."""
    known = METRICS.get(metric, re.sub(r"^recall_at_(\d+)$", r"R@\1", metric))
    return known.replace("_", " ")


def rounded(fraction: float) -> float:
    """A fraction for metadata, to a hundredth of a per cent."""
    return round(fraction, 4)


def percent(fraction: float) -> str:
    """`0.61123` -> `"61.1"`."""
    return f"{100 * fraction:.1f}"


def interval_text(metric: Metric | None, unit: str = "") -> str:
    """`"61.1 [59.6, 62.7]"` in per cent, `unit` after the value; a dash for None."""
    if metric is None:
        return "–"
    return f"{percent(metric.value)}{unit} [{percent(metric.low)}, {percent(metric.high)}]"


def points(difference: float) -> str:
    """`0.012` -> `"+1.2"`, percentage points with a sign."""
    return f"{100 * difference:+.1f}".replace("-", "−")
