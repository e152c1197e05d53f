"""The tour: its cells run in order, its stored outputs are small, and it uses what exists."""

from __future__ import annotations

import ast
import json
import os
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TOUR = ROOT / "docs" / "tour.ipynb"
CELLS = json.loads(TOUR.read_text(encoding="utf-8"))["cells"]
INSTALLED = all(find_spec(name) for name in ("nbclient", "nbformat", "ipykernel"))


def test_it_is_small_and_its_code_parses():
    assert TOUR.stat().st_size < 100_000
    sources = ["".join(cell["source"]) for cell in CELLS if cell["cell_type"] == "code"]
    assert len(sources) >= 6
    for source in sources:
        ast.parse(source)


@pytest.mark.slow
@pytest.mark.skipif(not INSTALLED, reason="needs the extra notebook")
def test_it_runs(tmp_path, monkeypatch):
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.read(TOUR, as_version=4)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    last = notebook.cells[-1]["outputs"][-1]["data"]["text/plain"]
    assert "simclr_airbench95_cifar10" in last
