"""Shards behind https and pipes: copied whole into the cache once, or one clear error."""

from __future__ import annotations

import shutil
import warnings

import pytest

from tests.shard_fixtures import same, split_shards
from tests.static_server import serve_folder
from zoo.data.addresses import open_dataset
from zoo.errors import DataError, DataWarning, HubError, UnknownNameError


@pytest.fixture
def pets(tmp_path):
    return split_shards(tmp_path)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("zoo.network.asking.WAIT", 0)
    return tmp_path / "cache"


def test_https_shards_are_copied_once(pets, cache):
    pytest.importorskip("braceexpand")

    folder, shards = pets
    with serve_folder(shards.parent) as server:
        server.faults["train-0001.tar"] = "once:503"
        address = f"{server.url}/shards/train-{{0000..0002}}.tar"
        with pytest.warns(DataWarning, match=r"read from copies in .*cache/copies \(0\.0 GB\)"):
            same(open_dataset(address), open_dataset(folder, "train"))
        asked = len(server.requests)
        assert asked == 4
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert len(open_dataset(address, "train")) == 10 and len(server.requests) == asked


@pytest.mark.parametrize("fault", ["404", "500", "truncated", "garbage"])
def test_a_server_that_fails(pets, cache, fault):

    with serve_folder(pets[1]) as server:
        server.faults["train-0000.tar"] = fault
        with pytest.raises(HubError, match=r"train-0000\.tar could not be copied: .*the same command goes on"):
            open_dataset(f"{server.url}/train-0000.tar")
    assert not list(cache.glob("copies/*.tar"))


def test_what_is_not_encrypted_or_no_url(cache):

    with pytest.raises(UnknownNameError, match=r"is not encrypted; use https://, or set ZOO_ALLOW_HTTP=1"):
        open_dataset("http://example.org/x.tar")
    with pytest.raises(UnknownNameError, match=r"is no URL"):
        open_dataset("https:///x.tar")


def test_a_copy_needs_room(pets, cache, monkeypatch):

    usage = shutil.disk_usage(cache.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10))
    with (
        serve_folder(pets[1]) as server,
        pytest.raises(DataError, match=r"0\.0 GB free; free some space or set ZOO_CACHE"),
    ):
        open_dataset(f"{server.url}/train-0000.tar")


def test_pipes_run_only_if_allowed(pets, cache, monkeypatch):
    folder, shards = pets
    address = f"pipe:cat {shards}/test-0000.tar"
    with pytest.raises(DataError, match=r"runs a command of the shell; set ZOO_ALLOW_PIPE=1"):
        open_dataset(address)
    monkeypatch.setenv("ZOO_ALLOW_PIPE", "1")
    with pytest.warns(DataWarning, match="read from copies"):
        data = open_dataset(address)
    assert data.split == "test"
    same(data, open_dataset(folder, "test"))
    for command, message in ((f"cat {shards}/none.tar", "exit status 1: .*none.tar"), ("true", "exit status 0")):
        with pytest.raises(DataError, match=rf"gave no shard \({message}"):
            open_dataset(f"pipe:{command}")
    assert len(list(cache.glob("copies/*.tar"))) == 1
