"""RECORDS.md says what the checkpoints' results say."""

from __future__ import annotations

import pytest

from benchmarks import records
from zoo.checkpoint import catalog
from zoo.errors import DataError


def test_the_table_is_current(monkeypatch):
    monkeypatch.delenv("ZOO_CHECKPOINTS", raising=False)
    text = records.RECORDS.read_text(encoding="utf-8")
    assert records.renewed(records.PUBLISHED, records.table()) == text, "run `python -m benchmarks.records`"
    for name in catalog.list_models():
        assert f"| `{name}` |" in text


def test_without_marks_nothing_is_guessed(tmp_path):
    path = tmp_path / "RECORDS.md"
    path.write_text("# Records\n")
    with pytest.raises(DataError, match="must hold the lines"):
        records.renew("published", "new", path)
    assert path.read_text() == "# Records\n"
