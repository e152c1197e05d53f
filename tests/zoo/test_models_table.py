"""The cells of the README's table: which of several measurements stands there."""

from __future__ import annotations

from types import SimpleNamespace

from zoo.publish.models_table import _accuracy


def row(protocol: str, encoder: float, untrained: float | None, raw: float | None, split: str = "test") -> dict:
    values = {"encoder": encoder, "untrained": untrained, "raw": raw}
    metrics = {subject: None if value is None else SimpleNamespace(value=value) for subject, value in values.items()}
    return {"metric": "top1", "protocol": protocol, "test": SimpleNamespace(split=split), **metrics}


def test_the_newest_version_of_a_protocol_stands_beside_the_better_baseline():
    rows = [row("logreg-v2", 0.5, 0.1, 0.2), row("logreg-v10", 0.7, 0.3, 0.25), row("knn-v1", 0.9, None, None)]
    assert _accuracy(rows, "logreg-") == "70.0 (30.0)"
    assert _accuracy(rows, "knn-") == "90.0"
    assert _accuracy([], "knn-") == "not measured"


def test_leak_free_splits_come_first():
    rows = [row("knn-v2", 0.9, 0.1, 0.1), row("knn-v1", 0.6, 0.2, 0.4, "test-leakfree")]
    assert _accuracy(rows, "knn-") == "60.0 (40.0)"
