"""Feature tables on disk: every format round trips, opens elsewhere, and is refused when damaged."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from tests.zoo.feature_fixtures import Images, same, tiny_encoder
from zoo.errors import DataError
from zoo.features.extract import extract
from zoo.features.table import FeatureTable

OUTPUTS = ["features.npy", "features.npz", "features.parquet", "folder"]


@pytest.fixture(scope="module")
def encoder():
    return tiny_encoder()


@pytest.mark.parametrize("name", OUTPUTS)
def test_out_equals_memory_and_a_finished_file_is_not_computed_again(encoder, tmp_path, name):
    data = Images()
    expected = extract(encoder, data, batch_size=32)
    table = extract(encoder, data, batch_size=32, out=tmp_path / name)
    assert same(table, expected) and same(FeatureTable.load(tmp_path / name), expected)
    files = sorted(p.name for p in tmp_path.rglob("*") if p.is_file() and p.suffix != ".lock")
    assert files == (["features.json", "features.npy"] if name in ("folder", "features.npy") else [name])

    again: list[int] = []
    assert same(extract(encoder, data, batch_size=32, out=tmp_path / name, progress=lambda *x: again.append(1)), table)
    assert not again
    other = extract(encoder, Images(40), batch_size=32, out=tmp_path / name)
    assert len(other) == 40 and len(FeatureTable.load(tmp_path / name)) == 40


@pytest.mark.parametrize("name", OUTPUTS)
@pytest.mark.parametrize("labelled", [True, False])
def test_save_and_load(tmp_path, name, labelled):
    table = FeatureTable(
        np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32),
        np.array([0, 1, 1, 0, 2]) if labelled else None,
        ["ä/1.png", "b", "c", "d", "e e"],
        class_names=("ja", "nein", "vielleicht") if labelled else (),
        dataset="d",
        split="test",
        fingerprint="f",
        encoder="e",
        encoder_sha256="0" * 64,
        precision="bf16",
    )
    path = table.save(tmp_path / "new" / name)
    assert path.is_file()
    loaded = FeatureTable.load(tmp_path / "new" / name)
    assert same(loaded, table) and loaded.features.dtype == np.float32
    assert not [p for p in tmp_path.rglob("*") if p.suffix == ".tmp"]


def test_files_open_without_the_zoo(encoder, tmp_path):
    pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    table = extract(encoder, Images(5))
    rows = parquet.read_table(table.save(tmp_path / "t.parquet")).to_pylist()
    assert rows[4]["key"] == "image 4.png" and rows[4]["label"] == 1 and rows[4]["class"] == "bee"
    np.testing.assert_array_equal(np.array([row["feature"] for row in rows], np.float32), table.features)
    with np.load(table.save(tmp_path / "t.npz"), allow_pickle=False) as file:
        assert set(file.files) == {"features", "labels", "keys", "class_names", "metadata"}
        assert json.loads(str(file["metadata"]))["dataset"] == "random"


def test_damaged_files_are_refused(encoder, tmp_path):
    table = extract(encoder, Images(5))
    for name in ("t.npz", "t.npy", "t.parquet"):
        path = table.save(tmp_path / name)
        content = path.read_bytes()
        for damaged in (b"", content[:50], content[: len(content) // 2]):
            path.write_bytes(damaged)
            with pytest.raises(DataError, match="not a readable feature table"):
                FeatureTable.load(path)
    with pytest.raises(DataError, match="does not exist"):
        FeatureTable.load(tmp_path / "none.npz")
    np.save(tmp_path / "objects.npy", np.array([{}, 1], dtype=object), allow_pickle=True)
    (tmp_path / "objects.json").write_bytes((tmp_path / "t.json").read_bytes())
    with pytest.raises(DataError, match="not a readable"):
        FeatureTable.load(tmp_path / "objects.npy")
    np.save(tmp_path / "plain.npy", np.zeros((2, 2), np.float32))
    with pytest.raises(DataError, match=r"plain\.json"):
        FeatureTable.load(tmp_path / "plain.npy")


def test_parquet_without_pyarrow_names_the_extra(encoder, tmp_path, monkeypatch):
    table = extract(encoder, Images(3))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"encoder-zoo\[parquet\]"):
        table.save(tmp_path / "t.parquet")
    assert not list(tmp_path.iterdir())
