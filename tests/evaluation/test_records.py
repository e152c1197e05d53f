"""RECORDS.md says what the checkpoints' results say."""

from __future__ import annotations

import pytest

from benchmarks import records
from zoo.checkpoint import catalog
from zoo.errors import DataError


def test_the_table_is_current(monkeypatch):
    monkeypatch.delenv("ZOO_CHECKPOINTS", raising=False)
    text = records.FILE.read_text(encoding="utf-8")
    assert records.render(text) == text, "run `python -m benchmarks.records`"
    for name in catalog.list_models():
        assert f"| `{name}` |" in text


def test_without_marks_nothing_is_guessed():
    with pytest.raises(DataError, match="must hold the lines"):
        records.render("# Records\n")
