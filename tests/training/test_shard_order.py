"""Groups of shards: each sample once in an epoch, over ranks too and from sets larger than a disk, resumed exactly."""

from __future__ import annotations

import itertools
from collections import Counter
from functools import partial

import numpy as np
import pytest

from tests.shard_fixtures import keys_read
from tests.shard_fixtures import shards_of as write_shards
from tests.static_server import serve_folder
from tests.training.distributed_cases import spawn
from tests.training.test_loop import in_parts, same_state, tiny, trainer_for
from tests.training.test_stream import smooth
from training import distributed
from training.batches import epoch_order
from training.shard_order import ShardOrder, shards_of
from zoo.data.addresses import open_dataset
from zoo.errors import ConfigError, DataError, TrainingError

pytestmark = pytest.mark.filterwarnings("ignore::zoo.errors.DataWarning")
EPOCHS, SHARDS, SAMPLES = 2, 6, 48


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """48 JPEGs of several sizes in two classes, in six shards."""
    root = tmp_path_factory.mktemp("photos")
    for number in range(SAMPLES):
        path = root / "folder" / "ab"[number % 2] / f"{number:02d}.jpg"
        path.parent.mkdir(exist_ok=True, parents=True)
        smooth(number, 90 + number, 70 + number // 2).save(path, quality=92)
    write_shards(open_dataset(root / "folder", "all"), root / "shards", SHARDS)
    return root / "shards"


def gigabytes(shards, count: float) -> float:
    """So many of the largest shard."""
    return count * max(path.stat().st_size for path in shards.iterdir()) / 1e9


def recipe_for(place, shuffle_gb, batch_size=8, **changes):
    data = {"dataset": str(place), "split": "all", "held_out": 0, "stream": True, "stream_workers": 2}
    data = {**data, "shuffle_gb": shuffle_gb, **changes.pop("data", {})}
    return tiny(**{"epochs": EPOCHS, "monitor": None, "batch_size": batch_size, "data": data, **changes})


def order_of(place, count: float) -> ShardOrder:
    data = open_dataset(place, "all")
    return ShardOrder(data, np.arange(len(data)), gigabytes(place, count))


# --- the order -------------------------------------------------------------------------------------


def test_an_epoch_is_a_permutation_that_goes_from_group_to_group(shards):
    order = order_of(shards, 2)
    seen = []
    for epoch in range(3):
        groups, rows = order.groups(7, epoch), order.epoch(7, epoch)
        assert sorted(rows.tolist()) == list(range(SAMPLES))
        assert sorted(itertools.chain(*groups)) == list(range(SHARDS)) and len(groups) >= 3
        for group in groups:
            assert sum(order.shards[number].bytes for number in group) <= order.limit
        group_of = {number: place for place, group in enumerate(groups) for number in group}
        places = [group_of[number] for number in order.of[rows].tolist()]
        assert places == sorted(places)
        assert np.array_equal(rows, order_of(shards, 2).epoch(7, epoch)), "seed and epoch alone"
        seen.append((groups, rows.tolist()))
    assert seen[0][0] != seen[1][0] and seen[0][1] != order.epoch(8, 0).tolist()
    within = seen[0][1][:8]
    assert within != sorted(within) and len({order.of[row] for row in within}) == 2, "samples of a group are mixed"


def test_one_group_is_the_order_of_a_set_that_fits(shards):
    order = order_of(shards, SHARDS)
    assert order.groups(3, 1) == [order.groups(3, 1)[0]]
    assert np.array_equal(order.epoch(3, 1), epoch_order(3, 1, SAMPLES))


def test_parts_of_shards_know_their_shards(shards, tmp_path):
    data = open_dataset(shards, "all")
    every = shards_of(data)[1]
    assert every.tolist() == [i // 8 for i in range(SAMPLES)]
    chosen = np.array([40, 3, 17])
    assert shards_of(data.subset(chosen).subset([2, 0]))[1].tolist() == every[[17, 40]].tolist()
    assert shards_of(data.without({0: "bad"}))[1].tolist() == every[1:].tolist()
    for split in ("train", "val"):
        write_shards(data, tmp_path / "x", 2, split)
    joined = open_dataset(f"{tmp_path / 'x'}#keys=shard", "train+val")
    found, of = shards_of(joined)
    assert of.tolist() == [i // 24 for i in range(2 * SAMPLES)] and len({shard.path for shard in found}) == 4
    order = ShardOrder(joined, np.array([1, 30, 90]), 1.0)
    assert len(order.shards) == 3 and sorted(order.epoch(0, 0).tolist()) == [0, 1, 2]


# --- training --------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [1, 4, 8])
def test_a_run_resumes_bit_for_bit_in_the_middle_of_a_group_too(shards, tmp_path, at):
    recipe = recipe_for(shards, gigabytes(shards, 2.5))
    whole = trainer_for(tmp_path / "whole", recipe)
    keys = keys_read(whole)
    for epoch in range(EPOCHS):
        assert Counter(keys[epoch * SAMPLES : (epoch + 1) * SAMPLES]) == Counter(whole.data.dataset.keys)
    parts = in_parts(lambda: trainer_for(tmp_path / "parts", recipe), at)
    same_state(whole.state(), parts.state())


def test_one_group_trains_as_without(shards, tmp_path):
    runs = [trainer_for(tmp_path / str(n), recipe_for(shards, n)) for n in (gigabytes(shards, SHARDS), None)]
    states = []
    for trainer in runs:
        trainer.run()
        states.append({key: value for key, value in trainer.state().items() if key != "fingerprint"})
    same_state(*states)


def test_shards_that_were_packed_anew_are_no_resume(shards, tmp_path):
    write_shards(open_dataset(shards, "all"), tmp_path / "other", 4)
    size = gigabytes(tmp_path / "other", 2)
    first = trainer_for(tmp_path / "run", recipe_for(shards, size))
    first._save()
    other = trainer_for(tmp_path / "run", recipe_for(tmp_path / "other", size))
    assert other.data.dataset.fingerprint == first.data.dataset.fingerprint
    with pytest.raises(TrainingError, match="was started on other data"):
        other.resume()


def test_a_monitor_reads_one_group(shards, tmp_path):
    monitor = {"every_epochs": 1, "train_samples": 50, "held_out_samples": 20, "k": 3}
    monitored = recipe_for(shards, gigabytes(shards, 2), monitor=monitor, data={"held_out": 0.25})
    trainer = trainer_for(tmp_path / "run", monitored)
    of = shards_of(trainer.data.dataset)[1]
    assert len(set(of[trainer.monitor.rows].tolist())) == 2
    trainer.run()
    assert any("held_out_knn" in record for record in trainer.folder.records())


def seen(place: str, size: float, folder: str) -> dict:
    """Keys that this rank read, in order."""
    return {"keys": keys_read(trainer_for(folder, recipe_for(place, size))), "rank": distributed.rank()}


@pytest.mark.slow
def test_two_ranks_see_each_sample_once_and_the_same_groups(shards, tmp_path):
    size = gigabytes(shards, 2)
    (tmp_path / "run").mkdir()
    ranks = spawn(partial(seen, str(shards), size, str(tmp_path / "run")), 2, tmp_path)
    assert [result["rank"] for result in ranks] == [0, 1]
    alone = keys_read(trainer_for(tmp_path / "alone", recipe_for(shards, size)))
    order = order_of(shards, 2)
    keys = list(open_dataset(shards, "all").keys)
    for epoch in range(EPOCHS):
        half = SAMPLES // 2
        read = [result["keys"][epoch * half : (epoch + 1) * half] for result in ranks]
        assert Counter(read[0] + read[1]) == Counter(keys)
        # Batches of eight, four for each rank: side by side they are those of one process.
        steps = [
            part for a, b in zip(*(np.array(part).reshape(-1, 4) for part in read), strict=True) for part in (a, b)
        ]
        assert np.concatenate(steps).tolist() == alone[epoch * SAMPLES : (epoch + 1) * SAMPLES]
        assert [keys[row] for row in order.epoch(0, epoch)] == np.concatenate(steps).tolist()


# --- remote sets -----------------------------------------------------------------------------------


@pytest.fixture
def remote(shards, tmp_path, monkeypatch):
    """The shards behind a server, the cache empty."""
    pytest.importorskip("braceexpand")
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    with serve_folder(shards) as server:
        server.address = f"{server.url}/{{0000..{SHARDS - 1:04d}}}.tar"
        yield server


def copied(tmp_path) -> int:
    return sum(path.stat().st_size for path in (tmp_path / "cache" / "copies").glob("*.tar"))


@pytest.mark.parametrize("room", [2, 4])
def test_a_set_larger_than_the_disk_trains_as_a_local_one(shards, remote, tmp_path, monkeypatch, room):
    """With room for one group and for two, so without and with a group that is fetched ahead."""
    size = gigabytes(shards, 2)
    local = trainer_for(tmp_path / "local", recipe_for(shards, size))
    local.run()
    monkeypatch.setenv("ZOO_COPIES_GB", repr(gigabytes(shards, room)))
    trainer = trainer_for(tmp_path / "remote", recipe_for(remote.address, size))
    assert len(remote.requests) == SHARDS
    most = []
    trainer.run(on_step=lambda step: most.append(copied(tmp_path)))
    trainer.data.shards.wait()
    same_state(local.state(), trainer.state())
    assert max(most) <= round(gigabytes(shards, room) * 1e9)
    if room == 4:
        assert len(remote.requests) <= SHARDS * (EPOCHS + 2), "a shard is fetched once an epoch, and once to be indexed"


def test_the_next_group_is_fetched_while_one_is_read(shards, remote, monkeypatch):
    data = open_dataset(remote.address)
    size = gigabytes(shards, 2)
    monkeypatch.setenv("ZOO_COPIES_GB", repr(2 * size))
    order = ShardOrder(data, np.arange(len(data)), size)

    def here() -> set[int]:
        return {number for number, shard in enumerate(order.shards) if shard.copy.is_here()}

    for shard in order.shards:
        shard.copy.path.unlink()
    first, second, *_ = groups = order.groups(0, 0)
    order.fetch_ahead(0, 0, 0, EPOCHS)
    order.wait()
    assert here() == {*first, *second}
    requests = len(remote.requests)
    order.fetch_ahead(0, 0, 1, EPOCHS)
    order.wait()
    assert len(remote.requests) == requests, "the same group is begun once"
    for shard in order.shards:
        shard.copy.path.unlink(missing_ok=True)
    order.fetch_ahead(0, 0, SAMPLES - 1, 1)
    order.wait()
    assert here() == set(), "nothing comes after the last epoch"
    order.fetch_ahead(0, 0, SAMPLES - 1, EPOCHS)
    order.wait()
    assert here() == {*groups[-1], *order.groups(0, 1)[0]} != set(groups[-1]), "then comes the next epoch"
    for shard in order.shards:
        shard.copy.path.unlink(missing_ok=True)
    monkeypatch.setenv("ZOO_COPIES_GB", repr(size))
    order.fetch_ahead(0, 0, 0, EPOCHS)
    order.wait()
    assert here() == set(), "without room for two groups none is fetched ahead"


def test_a_group_that_cannot_be_fetched_ahead_is_said_by_whoever_reads_it(shards, remote, monkeypatch, caplog):
    monkeypatch.setattr("zoo.network.asking.WAIT", 0)
    data = open_dataset(remote.address)
    order = ShardOrder(data, np.arange(len(data)), gigabytes(shards, 2))
    for number, shard in enumerate(order.shards):
        shard.copy.path.unlink()
        remote.faults[f"{number:04d}.tar"] = "404"
    order.fetch_ahead(0, 0, 0, EPOCHS)
    order.wait()
    assert "could not be fetched ahead" in caplog.text
    with pytest.raises(OSError, match="could not be copied"):
        data.sample(0)


# --- errors ----------------------------------------------------------------------------------------


def test_what_cannot_be_is_refused(shards, remote, tmp_path, monkeypatch):
    with pytest.raises(ConfigError, match=r"data\.shuffle_gb=2 .*set data\.stream=true, or leave it out"):
        recipe_for(shards, 2, data={"stream": False})
    with pytest.raises(DataError, match=r"takes the order from shards, and folder has none.*leave it out"):
        trainer_for(tmp_path / "a", recipe_for(shards.parent / "folder", 1))
    small = gigabytes(shards, 0.5)
    with pytest.raises(DataError, match=r"is smaller than the largest shard, .*\d{4}\.tar with .* GB; set it to"):
        trainer_for(tmp_path / "b", recipe_for(shards, small))
    monkeypatch.setenv("ZOO_COPIES_GB", repr(gigabytes(shards, 2)))
    with pytest.raises(
        DataError, match=r"is more than the .* GB of copies that ZOO_COPIES_GB keeps; lower it, or raise"
    ):
        trainer_for(tmp_path / "c", recipe_for(remote.address, gigabytes(shards, 3)))
    with pytest.raises(DataError, match=r"every batch would fetch shards anew\. Set data\.shuffle_gb to at most"):
        trainer_for(tmp_path / "d", recipe_for(remote.address, None))
