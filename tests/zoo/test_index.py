"""An index: exact answers, only new pictures are encoded, killed runs go on, strangers' vectors are refused."""

from __future__ import annotations

import csv
import json
import os
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from tests.data_fixtures import make_folder, write_image
from tests.zoo.feature_fixtures import Images, tiny_encoder
from zoo.data.addresses import open_dataset
from zoo.errors import DataError, InputError
from zoo.features import index as module
from zoo.features.extract import extract
from zoo.features.index import Index, index
from zoo.features.nearest import nearest
from zoo.features.search import search


def slow_nearest(queries: np.ndarray, bank: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    unit = [x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (queries, bank)]
    similarity = unit[0].astype(np.float64) @ unit[1].astype(np.float64).T
    rows = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(similarity, rows, axis=1), rows


@pytest.mark.parametrize("block", [7, 64, 1 << 20])
def test_nearest_is_exact_whatever_the_blocks(monkeypatch, block, tmp_path):
    monkeypatch.setattr("zoo.features.nearest.BLOCK", block)
    rng = np.random.default_rng(0)
    queries, bank = rng.normal(size=(9, 5)).astype(np.float32), rng.normal(size=(50, 5)).astype(np.float32)
    np.save(tmp_path / "bank.npy", bank)
    mapped = np.load(tmp_path / "bank.npy", mmap_mode="r", allow_pickle=False)
    values, rows = nearest(queries, mapped, 6, lengths=np.linalg.norm(bank, axis=1))
    wanted, places = slow_nearest(queries, bank, 6)
    assert np.array_equal(rows, places) and np.allclose(values, wanted, atol=1e-6)
    skip = np.zeros(50, dtype=bool)
    skip[places[:, 0]] = True
    _, others = nearest(queries, bank, 50, skip=skip)
    assert others.shape == (9, 50 - skip.sum()) and not skip[others].any()
    _, own = nearest(bank, bank, 3, itself=True)
    assert not (own == np.arange(50)[:, None]).any()
    assert np.array_equal(own, slow_nearest(bank, bank, 4)[1][:, 1:])


def test_nearest_refuses_what_it_cannot_compare():
    bank = np.eye(3, dtype=np.float32)
    for queries, k in ((np.eye(4, dtype=np.float32), 1), (bank, 0), (bank * np.nan, 1)):
        with pytest.raises(InputError):
            nearest(queries, bank, k)
    with pytest.raises(InputError, match="bank of 1 rows"):
        nearest(bank[:1], bank[:1], 1, itself=True)
    assert nearest(np.zeros((1, 3), dtype=np.float32), bank, 2)[0].tolist() == [[0, 0]]


@pytest.fixture
def pictures(tmp_path):
    return make_folder(tmp_path / "pictures", splits=("train",), per_class=4)


@pytest.fixture
def calls(monkeypatch):
    """How many samples each extraction was asked for."""
    found: list[int] = []

    def counted(encoder, dataset, **named):
        found.append(len(dataset))
        return extract(encoder, dataset, **named)

    monkeypatch.setattr(module, "extract", counted)
    return found


def test_search_finds_each_picture_itself_first_and_agrees_with_features(pictures, tmp_path):
    encoder, data = tiny_encoder(), open_dataset(pictures, "train")
    made = index(encoder, data, tmp_path / "index")
    assert (made.added, made.kept, made.dropped, len(made.index)) == (8, 0, 0, 8)
    hits = search(tmp_path / "index", data, 3, encoder=encoder)
    table = extract(encoder, data)
    assert np.array_equal(search(made.index, table, 3).similarity, hits.similarity)
    values, rows = slow_nearest(table.features, table.features, 3)
    assert np.allclose(hits.similarity, values, atol=1e-5)
    assert [names[0] for names in hits.names] == [os.path.abspath(path) for path in data.paths] == hits.queries
    assert hits.paths[2] == [os.path.abspath(data.paths[row]) for row in rows[2]]


def test_only_new_and_changed_pictures_are_encoded(pictures, tmp_path, calls):
    encoder, out = tiny_encoder(), tmp_path / "index"
    index(encoder, open_dataset(pictures, "train"), out)
    assert index(encoder, open_dataset(pictures, "train"), out).kept == 8
    write_image(pictures / "train" / "cat" / "new.png", 100)
    write_image(pictures / "train" / "dog" / "0.png", 101, height=13)
    touched = pictures / "train" / "dog" / "1.png"
    os.utime(touched, ns=(1, 1))
    (pictures / "train" / "dog" / "2.png").unlink()
    update = index(encoder, open_dataset(pictures, "train"), out)
    assert calls == [8, 2]
    assert (update.added, update.kept, update.dropped) == (2, 6, 2)
    found = search(out, open_dataset(pictures, "train"), 20, encoder=encoder)
    assert found.similarity.shape == (8, 8)
    assert sorted(found.names[0]) == sorted(found.queries)
    assert np.allclose(found.similarity[:, 0], 1, atol=1e-5)
    assert [names[0] for names in found.names] == found.queries


def test_other_pictures_join_the_index_and_arrays_are_known_by_their_content(tmp_path, calls):
    encoder, out = tiny_encoder(), tmp_path / "index"
    index(encoder, Images(12), out)
    update = index(encoder, Images(20), out)
    assert calls == [12, 8] and len(update.index) == 20
    hits = search(out, Images(20), 1, encoder=encoder)
    assert [names[0] for names in hits.names] == hits.queries and hits.queries[13] == "random/train/image 13.png"
    assert hits.paths[0] == [None]


def test_a_killed_run_leaves_the_index_and_goes_on(pictures, tmp_path, monkeypatch, calls):
    encoder, out = tiny_encoder(), tmp_path / "index"
    index(encoder, Images(12), out)
    before = (out / "index.json").read_bytes()

    def killed(done, total):
        if done > 3:
            raise KeyboardInterrupt

    data = open_dataset(pictures, "train")
    with pytest.raises(KeyboardInterrupt):
        index(encoder, data, out, batch_size=2, progress=killed)
    assert (out / "index.json").read_bytes() == before and len(
        search(out, Images(1), 20, encoder=encoder).names[0]
    ) == 12
    seen = []
    index(encoder, data, out, batch_size=2, progress=lambda done, total: seen.append(done))
    assert seen[0] > 2 and seen[-1] == 8
    hits = search(out, data, 1, encoder=encoder)
    assert [names[0] for names in hits.names] == hits.queries


def test_another_encoder_and_its_vectors_are_refused(pictures, tmp_path):
    encoder, data, out = tiny_encoder(), open_dataset(pictures, "train"), tmp_path / "index"
    index(encoder, data, out)
    other = tiny_encoder()
    with torch.no_grad():
        next(other.parameters()).add_(0.5)
    with pytest.raises(InputError, match="is another encoder; use that one"):
        index(other, data, out)
    with pytest.raises(InputError, match="is another encoder"):
        search(out, data, encoder=tiny_encoder(24))
    with pytest.raises(InputError, match="vectors of two encoders cannot be compared"):
        search(out, extract(other, data))
    with pytest.raises(InputError, match="was made in"):
        index(encoder, data, out, precision="fp16")
    with pytest.raises(InputError, match="does not know where its encoder lies"):
        search(out, data)
    assert len(Index.open(out)) == 8


def test_no_index_a_damaged_one_and_wrong_questions(pictures, tmp_path):
    encoder, data, out = tiny_encoder(), open_dataset(pictures, "train"), tmp_path / "index"
    with pytest.raises(DataError, match="holds no index; make one with `zoo index"):
        search(out, data, encoder=encoder)
    index(encoder, data, out)
    with pytest.raises(InputError, match="at least 1, got 0"):
        search(out, data, 0, encoder=encoder)
    with pytest.raises(InputError, match=r"takes vectors \(M, 16\), got shape \(2, 5\)"):
        Index.open(out).nearest(np.zeros((2, 5), dtype=np.float32), 1)
    whole = (out / "index.json").read_text()
    for text in (whole[:40], whole.replace("index-1", "index-9"), whole.replace('"precision"', '"prevision"')):
        (out / "index.json").write_text(text)
        with pytest.raises(DataError, match="damaged"):
            Index.open(out)
    (out / "index.json").write_text(whole)
    (out / "part-0000.entries.json").write_text('{"names": [')
    with pytest.raises(DataError, match=r"part-0000\.entries\.json is damaged"):
        search(out, data, encoder=encoder)
    (out / "index.json").write_text(whole.replace("part-0000.npy", "../../part-0009.npy"))
    with pytest.raises(DataError, match=r"part-0009\.npy is missing"):
        Index.open(out)


def test_an_index_whose_pictures_are_all_gone_is_empty(pictures, tmp_path):
    encoder, out = tiny_encoder(), tmp_path / "index"
    index(encoder, open_dataset(pictures, "train"), out)
    for path in (pictures / "train" / "cat").iterdir():
        path.unlink()
    for path in (pictures / "train" / "dog").iterdir():
        path.unlink()
    left = index(encoder, Images(2), out)
    assert (left.dropped, len(left.index)) == (8, 2)


@pytest.mark.parametrize("suffix", [".json", ".csv", ".parquet"])
def test_hits_are_written_in_three_formats(pictures, tmp_path, suffix):
    encoder, data, out = tiny_encoder(), open_dataset(pictures, "train"), tmp_path / "index"
    index(encoder, data, out)
    hits = search(out, [data.paths[0], data.paths[5]], 2, encoder=encoder)
    file = hits.save(tmp_path / f"hits{suffix}")
    if suffix == ".json":
        rows = json.loads(file.read_text())
    elif suffix == ".csv":
        rows = list(csv.DictReader(file.open(newline="")))
    else:
        rows = pytest.importorskip("pyarrow.parquet").read_table(file).to_pylist()
    assert [int(row["rank"]) for row in rows] == [1, 2, 1, 2]
    assert rows[2]["query"] == rows[2]["path"] == os.path.abspath(data.paths[5])
    assert float(rows[0]["similarity"]) == pytest.approx(1, abs=1e-5)
    with pytest.raises(DataError, match=r"\.json, \.csv, \.parquet, not '\.txt'"):
        hits.save(tmp_path / "hits.txt")


def test_one_path_and_one_picture_are_queries(pictures, tmp_path):
    encoder, data, out = tiny_encoder(), open_dataset(pictures, "train"), tmp_path / "index"
    index(encoder, data, out)
    assert search(out, data.paths[3], 1, encoder=encoder).paths == [[os.path.abspath(data.paths[3])]]
    assert search(out, [Image.open(data.paths[3])], 1, encoder=encoder).paths == [[os.path.abspath(data.paths[3])]]


def test_approximate_search_needs_its_extra(pictures, tmp_path, monkeypatch):
    encoder, data, out = tiny_encoder(), open_dataset(pictures, "train"), tmp_path / "index"
    index(encoder, data, out)
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ImportError, match=r"encoder-zoo\[faiss\]"):
        search(out, data, encoder=encoder, approximate=True)


def test_approximate_search_agrees_and_follows_the_index(pictures, tmp_path):
    pytest.importorskip("faiss")
    encoder, data, out = tiny_encoder(), open_dataset(pictures, "train"), tmp_path / "index"
    index(encoder, Images(90), out)
    index(encoder, data, out)
    exact = search(out, data, 4, encoder=encoder)
    found = search(out, data, 4, encoder=encoder, approximate=True)
    assert [names[0] for names in found.names] == [names[0] for names in exact.names] == found.queries
    assert np.allclose(found.similarity[:, 0], 1, atol=1e-5)
    for path in data.paths[:3]:
        os.unlink(path)
    index(encoder, Images(91), out)
    rest = open_dataset(pictures, "train")
    again = search(out, rest, 1, encoder=encoder, approximate=True)
    assert [names[0] for names in again.names] == again.queries
    gone = set(map(os.path.abspath, data.paths[:3]))
    assert not gone & {
        name for names in search(out, rest, 50, encoder=encoder, approximate=True).names for name in names
    }
