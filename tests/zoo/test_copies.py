"""Copies of remote shards under a bound: the least recently used leaves, none that is read, and all stay the same."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tests.shard_fixtures import same, shards_of, split_shards
from tests.static_server import serve_folder
from zoo.data import copies
from zoo.data.addresses import open_dataset
from zoo.data.copies import Copy, bound
from zoo.errors import ChangedError, DataError

pytestmark = pytest.mark.filterwarnings("ignore::zoo.errors.DataWarning")
SHARDS = 6


@pytest.fixture
def pets(tmp_path):
    """A folder of pictures, and its train split as six shards of almost one size."""
    folder, _ = split_shards(tmp_path)
    data = open_dataset(folder, "train")
    shards_of(data, tmp_path / "www", SHARDS, "train")
    return folder


@pytest.fixture
def server(pets, tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("zoo.network.asking.WAIT", 0)
    monkeypatch.setattr(copies, "TRIES", 1)
    monkeypatch.setattr(copies, "PAUSE", 0)
    with serve_folder(tmp_path / "www") as running:
        yield running


@pytest.fixture
def allow(server, monkeypatch):
    """Set the bound to some number of the largest shard."""
    largest = max(path.stat().st_size for path in server.folder.iterdir())

    def put(shards: float) -> int:
        size = int(shards * largest)
        monkeypatch.setenv("ZOO_COPIES_GB", repr(size / 1e9))
        return size

    return put


def address(server, number: int) -> str:
    return f"{server.url}/train-{number:04d}.tar"


def all_of(server) -> str:
    pytest.importorskip("braceexpand")
    return f"{server.url}/train-{{0000..{SHARDS - 1:04d}}}.tar"


def here(tmp_path) -> dict[int, int]:
    """Number of each shard that is there -> its bytes."""
    found = (tmp_path / "cache" / "copies").glob("*.tar")
    return dict(sorted((int(path.name[-8:-4]), path.stat().st_size) for path in found))


@pytest.mark.parametrize("text", ["many", "0", "-1", "nan", "inf", "3 GB"])
def test_a_bound_that_is_no_size(monkeypatch, text):
    monkeypatch.setenv("ZOO_COPIES_GB", text)
    with pytest.raises(DataError, match=r"is no size; write gigabytes as in ZOO_COPIES_GB=200"):
        bound()
    monkeypatch.setenv("ZOO_COPIES_GB", "")
    assert bound() is None


def test_the_least_recently_used_copy_leaves(server, allow, tmp_path):
    allow(3)
    made = [Copy.of(address(server, i)) for i in range(SHARDS)]
    for moment, copy in enumerate(made[:3]):
        with copy.used() as path:
            assert path.read_bytes() == (server.folder / f"train-{made.index(copy):04d}.tar").read_bytes()
        os.utime(copy.path, ns=(moment, moment))
    assert list(here(tmp_path)) == [0, 1, 2]
    os.utime(made[0].path, ns=(9, 9))
    with made[3].used():
        assert list(here(tmp_path)) == [0, 2, 3]
    assert made[1].facts().bytes > 0 and not made[1].is_here(), "what is known of it stays"


def test_reading_is_use(server, allow, tmp_path):
    allow(2)
    made = [Copy.of(address(server, i)) for i in range(3)]
    for moment, copy in enumerate(made[:2]):
        with copy.used():
            pass
        os.utime(copy.path, ns=(moment, moment))
    with made[0].used():
        pass
    with made[2].used():
        assert list(here(tmp_path)) == [0, 2]


def test_a_copy_in_use_never_leaves(server, allow, tmp_path):
    allow(2)
    made = [Copy.of(address(server, i)) for i in range(3)]
    with made[0].used() as first, made[1].used() as second:
        with (
            pytest.raises(DataError, match=r"train-0002\.tar needs .* are being read, and ZOO_COPIES_GB=.*raise it"),
            made[2].used(),
        ):
            pass
        assert first.exists() and second.exists()
    with made[2].used():
        assert 2 in here(tmp_path)


def _hold(where: str, cache: str, ready, done) -> None:
    os.environ["ZOO_CACHE"] = cache
    with Copy.of(where).used():
        ready.set()
        done.wait()


def test_a_copy_that_another_process_reads_never_leaves(server, allow, tmp_path):
    """And the lock of a process that was killed is gone."""
    allow(1)
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(address(server, 0), str(tmp_path / "cache"), ready, done))
    other.start()
    assert ready.wait(120)
    copy = Copy.of(address(server, 1))
    with pytest.raises(DataError, match="are being read"), copy.used():
        pass
    assert list(here(tmp_path)) == [0]
    other.kill()
    other.join()
    with copy.used():
        assert list(here(tmp_path)) == [1]


@pytest.mark.parametrize("fault", [None, "unsized"])
def test_a_bound_smaller_than_the_largest_shard(server, allow, tmp_path, fault):
    allow(0.5)
    if fault:
        server.faults["train-0000.tar"] = fault
    with pytest.raises(
        DataError, match=r"and ZOO_COPIES_GB=\S+ allows .* together; set it to several times the largest"
    ):
        open_dataset(address(server, 0))
    assert here(tmp_path) == {} and not list((tmp_path / "cache" / "copies").glob(".*"))


def test_the_bound_holds_for_commands(server, allow, tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_ALLOW_PIPE", "1")
    for number in (0, 1):
        allow(1)
        with Copy.of(f"pipe:cat {server.folder}/train-{number:04d}.tar").used():
            assert list(here(tmp_path)) == [number]
    allow(0.5)
    with pytest.raises(DataError, match="or more, and ZOO_COPIES_GB"), Copy.of("pipe:yes train-0003.tar").used():
        pass
    assert list(here(tmp_path)) == [1]


@pytest.mark.parametrize("room", [1, 2, SHARDS])
def test_a_set_larger_than_the_bound_is_the_folder_it_was_made_from(server, pets, allow, tmp_path, room):
    size = allow(room)
    data, folder = open_dataset(all_of(server)), open_dataset(pets, "train")
    assert len(server.requests) == SHARDS, "each shard is fetched once to be indexed"
    same(data, folder)
    requests = len(server.requests)
    again = open_dataset(all_of(server))
    assert again.fingerprint == folder.fingerprint and len(server.requests) == requests, "nothing is fetched to open it"
    order = np.random.default_rng(0).permutation(len(data))
    for index in order.tolist():
        assert data.content(index) == folder.content(index)
        assert sum(here(tmp_path).values()) <= size
    data.check_unchanged()


def test_the_fingerprint_fetches_each_shard_once_where_nothing_is_known(server, pets, allow, tmp_path):
    allow(1)
    data = open_dataset(all_of(server))
    for path in (tmp_path / "cache" / "shards").glob("*.sha256"):
        path.unlink()
    with Copy.of(address(server, 0)).used():
        pass
    requests = len(server.requests)
    assert data.fingerprint == open_dataset(pets, "train").fingerprint
    assert len(server.requests) == requests + SHARDS - 1


def test_threads_share_a_cache_that_is_too_small(server, pets, allow, tmp_path, monkeypatch):
    """Readers wait for each other where copies that should leave are being read."""
    monkeypatch.setattr(copies, "TRIES", 20_000)
    size = allow(2)
    data, folder = open_dataset(all_of(server)), open_dataset(pets, "train")
    rows = list(range(len(data))) * 3
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(data.content, rows)) == [folder.content(row) for row in rows]
    assert sum(here(tmp_path).values()) <= size


def _read_all(where: str, cache: str, room: str, seed: int) -> None:
    os.environ.update(ZOO_CACHE=cache, ZOO_COPIES_GB=room)
    data = open_dataset(where)
    for index in np.random.default_rng(seed).permutation(len(data))[:8].tolist():
        data.sample(index)


def test_processes_share_a_cache_that_is_too_small(server, allow, tmp_path):
    size = allow(3)
    context = multiprocessing.get_context("spawn")
    arguments = [(all_of(server), str(tmp_path / "cache"), os.environ["ZOO_COPIES_GB"], seed) for seed in range(3)]
    workers = [context.Process(target=_read_all, args=each) for each in arguments]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(240)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert sum(here(tmp_path).values()) <= size


def test_a_shard_that_was_replaced_at_its_host(server, allow, tmp_path):
    allow(1)
    data = open_dataset(all_of(server))
    shutil.copy(server.folder / "train-0005.tar", server.folder / "train-0000.tar")
    with pytest.raises(ChangedError, match=r"train-0000\.tar is another file now .*; delete .*\.json to take the new"):
        data.content(0)
    assert 0 not in here(tmp_path)
    record = data.shards[0].copy.path.with_name(data.shards[0].copy.path.name + ".json")
    record.unlink()
    with pytest.raises(ChangedError, match="was replaced while its samples were read; open the shards again"):
        data.content(0)


def test_a_copy_of_an_earlier_version_is_taken_and_a_damaged_one_is_fetched_again(server, tmp_path):
    copy = Copy.of(address(server, 0))
    copy.path.parent.mkdir(parents=True)
    shutil.copy(server.folder / "train-0000.tar", copy.path)
    with copy.used():
        assert server.requests == []
    assert json.loads(copy.path.with_name(copy.path.name + ".json").read_text())["bytes"] == copy.path.stat().st_size
    copy.path.write_bytes(copy.path.read_bytes()[:-1])
    with copy.used() as path:
        assert path.read_bytes() == (server.folder / "train-0000.tar").read_bytes() and len(server.requests) == 1


def test_parts_of_broken_downloads_count_and_leave_first(server, allow, tmp_path, monkeypatch):
    allow(2)
    server.etag = '"one"'
    monkeypatch.setattr("zoo.network.asking.ATTEMPTS", 1)
    with Copy.of(address(server, 0)).used():
        pass
    server.faults["train-0001.tar"] = "truncated"
    with pytest.raises(OSError, match="could not be copied"), Copy.of(address(server, 1)).used():
        pass
    folder = tmp_path / "cache" / "copies"
    assert len(list(folder.glob(".*.part"))) == 1
    with Copy.of(address(server, 2)).used():
        assert list(here(tmp_path)) == [0, 2] and not list(folder.glob(".*.part*"))
