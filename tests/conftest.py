"""Shared by all tests: one thread per process, and caches that never touch the user's own."""

from __future__ import annotations

import os

# Before torch is imported: two xdist workers on two cores must not start four threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

from tests.full_disk import FullDisk


@pytest.fixture(autouse=True, scope="session")
def private_cache(tmp_path_factory):
    """Decoded pixels and downloads of this session go to a temporary folder."""
    cache = tmp_path_factory.mktemp("cache")
    os.environ["ZOO_CACHE"] = str(cache)
    os.environ["HF_HOME"] = str(cache / "huggingface")
    yield cache


@pytest.fixture
def full_disk(tmp_path, monkeypatch):
    """Fills the disk of `tmp_path` at a chosen write; see `FullDisk`."""
    return FullDisk(tmp_path, monkeypatch)
