"""The benchmarks of SSNAS: searches looked up in a table, cells retrained at matched parameters."""

from __future__ import annotations

import argparse
import json

import numpy as np
import pytest

from benchmarks.claims import ssnas as ssnas_claim
from benchmarks.nas import ssnas_switches as ssnas_search
from benchmarks.records import RECORDS, renew
from evaluation.metrics import interval, unpaired
from training.recipe import read_recipe
from zoo.architectures import build
from zoo.architectures.genotype import NB201_OPS, NB201Genotype, parse_genotype
from zoo.errors import ConfigError, DataError
from zoo.preprocessing.image import ImageInput
from zoo.strict import Architecture

TINY = ["data=synthetic:shapes?n=60", "data.limit=null", "data.store_size=16"]
TINY += ["epochs=1", "batch_size=8", "input.size=[8, 8]"]


class AnyCell(dict):
    """A table in which every cell has the same accuracies."""

    def __missing__(self, key):
        return (90.0, 70.0, 40.0)


@pytest.fixture
def table(monkeypatch):
    monkeypatch.setattr(ssnas_search, "accuracy_table", AnyCell)
    monkeypatch.setattr(ssnas_claim, "accuracy_table", AnyCell)


# -- searches --------------------------------------------------------------------------------------


def test_each_arm_changes_its_own_switch():
    base = ssnas_search.recipe_of("contrastive", 0, []).dump()
    for arm, changes in ssnas_search.ARMS.items():
        other = ssnas_search.recipe_of(arm, 0, []).dump()
        changed = {f"{group}.{key}" for group in ("method", "encoder") for key in other[group]
                   if other[group][key] != base[group][key]}  # fmt: skip
        changed |= {key for key in other if key not in ("method", "encoder") and other[key] != base[key]}
        assert changed == {change.partition("=")[0] for change in changes}, arm


def test_one_command_searches_looks_up_and_resumes(table, tmp_path, capsys, monkeypatch):
    command = [*TINY, "encoder.width=4", "--out", str(tmp_path), "--seeds", "0"]
    command += ["--arms", "contrastive", "random labels", "perturbation", "skip cap 2"]
    assert ssnas_search.main(command) == 0
    printed = capsys.readouterr().out
    told = json.loads((tmp_path / "searches.json").read_text())
    assert [r["arm"] for r in told["records"]] == command[-4:] and "--arms" in told["command"]
    assert all(r["cifar10"] == 90 and r["processor_s"] >= 0 for r in told["records"])
    assert (tmp_path / "searches.md").read_text() in printed
    by_arm = {r["arm"]: r for r in told["records"]}
    assert parse_genotype(by_arm["skip cap 2"]["cell"]).edges.count("skip_connect") <= 2
    monkeypatch.setattr(ssnas_search, "train", None)
    monkeypatch.setattr(ssnas_search, "Trainer", None)
    assert ssnas_search.main(command) == 0
    assert json.loads((tmp_path / "searches.json").read_text())["records"] == told["records"]
    assert ssnas_search.main(["epoch=1", "--out", str(tmp_path / "b")]) == 2 and not (tmp_path / "b").exists()


# -- retraining ------------------------------------------------------------------------------------


def test_random_cells_let_something_through():
    cells = ssnas_claim.random_cells(40)
    assert len({cell.text() for cell in cells}) == 40 and cells[:5] == ssnas_claim.random_cells(5)
    assert {op for cell in cells for op in cell.edges} == set(NB201_OPS)
    for edges in np.random.default_rng(0).integers(0, 2, (64, 6)):
        cell = NB201Genotype(edges=tuple("skip_connect" if e else "none" for e in edges))
        reach = np.eye(4)[0]
        for _ in range(3):
            for on, (to, start) in zip(edges, ((1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2)), strict=True):
                reach[to] = max(reach[to], on * reach[start])
        assert ssnas_claim.connected(cell) == bool(reach[3])


def test_widths_match_the_parameters():
    conv = parse_genotype("nb201_all_conv3x3")
    cells = [*ssnas_claim.random_cells(2), conv, ssnas_claim.ALL_SEP]
    target = ssnas_claim.common_target(cells)
    for cell in cells:
        known = ssnas_claim.sizes(cell)
        width, depth = ssnas_claim.nearest(known, target)
        arguments = {"genotype": cell, "width": width, "depth": depth}
        real = build(Architecture(family="cell_network", arguments=arguments), ImageInput(size=(8, 8)))
        assert sum(p.numel() for p in real.parameters()) == known[width, depth] == pytest.approx(target, rel=0.08)


def test_a_cell_is_retrained_and_judged_once(table, tmp_path, monkeypatch):
    options = argparse.Namespace(
        out=tmp_path, overrides=[o for o in TINY if "limit" not in o], retrain=["data.limit=40"], probe=30
    )
    monkeypatch.setattr(ssnas_claim, "open_dataset", lambda address, split, root=None: split_of(address, split))
    conv = parse_genotype("nb201_all_conv3x3")
    found = ssnas_claim.retrained(conv, (4, 1), 0, options)
    assert 0 <= found["logreg-v3"] <= 100 and found.keys() == {"logreg-v3", "knn-v2", "processor_s", "untrained"}
    recipe = read_recipe(str(next((tmp_path / "cells").iterdir()) / "recipe.yaml"))
    assert recipe.encoder["width"] == 4 and recipe.epochs == 1
    monkeypatch.setattr(ssnas_claim, "train", None)
    monkeypatch.setattr(ssnas_claim, "evaluate", None)
    assert ssnas_claim.retrained(conv, (4, 1), 0, options) == found


def split_of(address, split):
    from zoo.data.addresses import open_dataset

    return open_dataset(address, split)


def made_up() -> list[dict]:
    """Records in which parameters at equal width order the cells perfectly."""
    cells = ssnas_claim.random_cells(6)
    rows = [
        {"arm": "random cells", "cell": cell.text(), "search_seed": None, "seed": 0, "parameters": 1000 + 10 * i,
         "logreg-v3": 40.0 + i, "knn-v2": 30.0 + i, "untrained": 35.0 - i,
         "parameters_at_width_16": 10 * i, "nasbench201_cifar10": 90.0 - i}
        for i, cell in enumerate(cells)
    ]  # fmt: skip
    for seed in (0, 1):
        row = {**rows[0], "arm": "published cell", "seed": seed, "logreg-v3": 50.0 + seed, "cell": "x"}
        rows.append(row | {"parameters_at_width_16": 1000, "nasbench201_cifar10": 20.0, "untrained": 20.0})
    return rows


def test_report_says_what_the_records_hold():
    rows = made_up()
    text = ssnas_claim.report(rows, 1000)
    published = next(line for line in text.splitlines() if line.startswith("| published"))
    difference = unpaired([50.0, 51.0], [40.0 + i for i in range(6)])
    assert f"{difference.mean:+.2f} [{difference.low:+.2f}, {difference.high:+.2f}]" in published
    assert interval([50.0, 51.0]).text() in published and "| 1 | 2 |" in published
    assert "within 5.0 % of 1,000" in text
    assert "(the proxy): +1.00" in text and "at equal width: -1.00" in text
    assert "untrained: -1.00" in text and interval([20.0, 20.0]).text() in published


def test_report_alone_trains_nothing(tmp_path, capsys):
    assert ssnas_claim.main(["--out", str(tmp_path), "--report"]) == 2
    assert "results.json" in capsys.readouterr().err
    (tmp_path / "results.json").write_text(json.dumps({"records": made_up(), "target_parameters": 1000}))
    assert ssnas_claim.main(["--out", str(tmp_path), "--report"]) == 0
    assert (tmp_path / "report.md").read_text() == capsys.readouterr().out
    assert ssnas_claim.main(["epoch=3", "--out", str(tmp_path / "b")]) == 2 and not (tmp_path / "b").exists()
    with pytest.raises(ConfigError, match="did you mean"):
        read_recipe(ssnas_claim.RECIPE, ["epoch=3"])


def test_a_section_of_the_records_is_renewed(tmp_path):
    path = tmp_path / "RECORDS.md"
    path.write_text("# a\n<!-- x -->\nold\n<!-- /x -->\n# b\n")
    renew("x", "new\n", path)
    assert path.read_text() == "# a\n<!-- x -->\n\nnew\n\n<!-- /x -->\n# b\n"
    with pytest.raises(DataError, match="<!-- y --> and <!-- /y -->"):
        renew("y", "new", path)
    for name in ("ssnas-claim", "ssnas-switches", "nasbench201-search"):
        assert f"<!-- {name} -->" in RECORDS.read_text() and f"<!-- /{name} -->" in RECORDS.read_text()
