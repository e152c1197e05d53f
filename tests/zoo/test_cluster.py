"""Features over a cluster: the rows of one process, whatever dies on the way."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from tests.data_fixtures import make_folder
from tests.zoo.checkpoints import write_small
from tests.zoo.feature_fixtures import Images
from zoo.checkpoint.loading import load
from zoo.data.addresses import open_dataset
from zoo.errors import DataError, InputError
from zoo.features.cluster import Embedder, extract_partitions
from zoo.features.extract import embed, extract

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("encoder")
    write_small(folder / "small")
    return f"local-dir:{folder / 'small'}"


def test_an_embedder_takes_paths_bytes_and_arrays(address, tmp_path):
    folder = make_folder(tmp_path / "pictures", splits=(), per_class=3)
    data = open_dataset(str(folder))
    paths, expected = list(data.paths), embed(load(address), data)
    run = Embedder(address, batch_size=8)
    contents = [Path(path).read_bytes() for path in paths]
    pixels = [np.asarray(data.sample(i)) for i in range(len(data))]
    for batch in ({"path": paths}, {"path": paths, "bytes": contents}, {"name": paths, "image": pixels}):
        made = run({**batch, "label": data.labels})
        assert np.array_equal(made["embedding"], expected)
        assert set(made) == {"embedding", "label", *batch} - {"bytes", "image"}
    with pytest.raises(InputError, match="expected pictures in a column image or bytes or path, got label"):
        run({"label": data.labels})


def test_what_cannot_be_is_refused_before_a_worker_starts(address, tmp_path):
    pytest.importorskip("ray")
    with pytest.raises(InputError, match="partition=10 must be a multiple of batch_size=4"):
        extract_partitions(address, Images(8), tmp_path / "out", partition=10, batch_size=4)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "part-00000.parquet").write_bytes(b"?")
    with pytest.raises(DataError, match=r"holds partitions and no plan\.json"):
        extract_partitions(address, Images(8), tmp_path / "out", partition=8, batch_size=4)


@pytest.mark.slow
def test_two_workers_of_which_one_dies_give_the_rows_of_one_process(address, tmp_path):
    ray = pytest.importorskip("ray")
    import pyarrow.parquet as pq

    marker = tmp_path / "died"

    class Deadly(Images):
        """The 21st picture kills the process that reads it first."""

        def sample(self, index):
            if index == 20 and not marker.exists():
                marker.touch()
                os._exit(1)
            return super().sample(index)

    # One more than the workers: Ray Data reads in tasks of its own.
    ray.init(num_cpus=3, include_dashboard=False, runtime_env={"env_vars": {"PYTHONPATH": str(ROOT)}})
    try:
        out, seen = tmp_path / "out", []
        options = {"workers": 2, "partition": 16, "batch_size": 8, "precision": "fp32"}
        files = extract_partitions(address, Deadly(60), out, progress=lambda *now: seen.append(now), **options)
        assert marker.exists() and seen == [(number, 4) for number in range(5)]
        whole = extract(load(address), Images(60), batch_size=8, precision="fp32")
        rows = [row for file in files for row in pq.read_table(file).to_pylist()]
        assert [row["key"] for row in rows] == list(whole.keys)
        assert np.array_equal(np.array([row["feature"] for row in rows], dtype=np.float32), whole.features)
        assert [row["label"] for row in rows] == whole.labels.tolist()

        files[1].unlink()
        times = [file.stat().st_mtime_ns for file in files if file.exists()]
        assert extract_partitions(address, Deadly(60), out, **options) == files
        assert [file.stat().st_mtime_ns for file in files if file != files[1]] == times
        with pytest.raises(DataError, match=r"other features \(batch_size differ\)"):
            extract_partitions(address, Deadly(60), out, **{**options, "batch_size": 4})
        assert json.loads((out / "plan.json").read_text())["samples"] == 60

        folder = make_folder(tmp_path / "pictures", splits=(), per_class=3)
        table = ray.data.read_binary_files(str(folder), include_paths=True).map_batches(
            Embedder, fn_constructor_args=[address], concurrency=2, batch_size=2
        )
        found = {row["path"]: row["embedding"] for row in table.take_all()}
        data = open_dataset(str(folder))
        expected = dict(zip(data.paths, embed(load(address), data), strict=True))
        assert found.keys() == expected.keys()
        assert all(np.allclose(found[path], expected[path], atol=1e-2) for path in expected)
    finally:
        ray.shutdown()
