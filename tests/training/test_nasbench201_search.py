"""The label-free search in NAS-Bench-201: what it takes of a pool, without the table, and what it reports."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks.nas import nasbench201_search as bench
from zoo.architectures.genotype import NB201_OPS, NB201Genotype


@pytest.fixture(scope="module")
def cells() -> list[str]:
    generator = np.random.default_rng(0)
    drawn = {tuple(row) for row in generator.integers(0, 5, (6000, 6)).tolist()}
    return [NB201Genotype(edges=tuple(NB201_OPS[i] for i in row)).text() for row in sorted(drawn)]


@pytest.fixture
def scores(tmp_path, cells, monkeypatch):
    """Scores that cost nothing: a fixed number per cell and name."""
    made = bench.Scores(tmp_path / "scores.jsonl", torch.zeros(1))
    number = {cell: i for i, cell in enumerate(cells)}
    # The last tenth flows most; of it, the earlier a cell comes the more its rank grows.
    table = {"log_synflow": lambda i: i, "rank_growth": lambda i: -2.0 * i, "naswot": lambda i: 0.0}
    table |= {"parameters": lambda i: i % 7, "synflow": lambda i: -i}
    monkeypatch.setattr(made, "_compute", lambda cell, name: table[name](number[cell]))
    return made


def test_the_kept_tenth_is_ranked_by_both(cells, scores):
    pool = cells[:100]
    arms = bench.chosen(pool, scores)
    assert arms["log synaptic flow"] == pool[99] and arms["rank growth of the kept tenth"] == pool[90]
    first = next(iter(arms))
    assert first == "log synaptic flow + rank growth" and arms[first] in pool[90:]
    # Rank growth was asked for the kept ones alone.
    assert sum("rank_growth" in kept for kept in scores.known.values()) == 10


def test_scores_are_computed_once(cells, scores, tmp_path):
    assert scores.get(cells[3], "parameters") == 3
    again = bench.Scores(tmp_path / "scores.jsonl", torch.zeros(1))
    assert again.get(cells[3], "parameters") == 3 and len((tmp_path / "scores.jsonl").read_text().splitlines()) == 1


def test_explored_cells_are_in_no_pool(cells, tmp_path, monkeypatch, capsys):
    truth = np.random.default_rng(1).uniform(80, 94, (len(cells), 3)).round(2)
    seen = bench.explored(cells, truth)
    assert len(seen) >= 240 and seen == bench.explored(cells, truth)
    asked = set()

    def compute(self, cell, name):
        asked.add(cell)
        return float(len(asked) % 13)

    monkeypatch.setattr(bench.Scores, "_compute", compute)
    monkeypatch.setattr(bench, "read_table", lambda: (cells, truth))
    monkeypatch.setattr(bench, "batches", lambda images: {"plain": torch.zeros(40, 3, 32, 32)})
    monkeypatch.setattr(bench, "ALL_CONV", cells[0])
    command = ["--out", str(tmp_path), "--seeds", "2", "--pool", "50", "--fresh", "12"]
    assert bench.main(command) == 0
    assert asked and not asked & seen
    text = (tmp_path / "report.md").read_text()
    assert text in capsys.readouterr().out + "\n"
    assert "| log synaptic flow + rank growth | 2 |" in text and "#### 12 random cells" in text
    monkeypatch.setattr(bench.Scores, "_compute", None)  # everything is known
    assert bench.main(command) == 0 and (tmp_path / "report.md").read_text() == text


def test_real_scores_of_one_cell(tmp_path):
    made = bench.Scores(tmp_path / "scores.jsonl", torch.rand(4, 3, 16, 16))
    found = {name: made.get(bench.ALL_CONV, name) for name in bench.TITLES}
    assert found["parameters"] == 54 and all(np.isfinite(list(found.values())))
