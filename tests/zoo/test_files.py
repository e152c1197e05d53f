"""The one hand that writes: whole or not at all, leftovers, locks, and nobody writes beside it."""

from __future__ import annotations

import errno
import os
import re
import time
from pathlib import Path

import pytest

from zoo import files
from zoo.errors import CheckpointError, DataError, TrainingError

ROOT = Path(__file__).resolve().parents[2]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_failing_writer_leaves_the_old_file(tmp_path):
    path = files.write_text(tmp_path / "a.json", "old")
    with pytest.raises(ValueError, match="half"), files.replacing(path) as temporary:
        temporary.write_text("new")
        raise ValueError("half way")
    assert path.read_text() == "old" and names(tmp_path) == ["a.json"]


@pytest.mark.parametrize("kind", [DataError, TrainingError, CheckpointError])
@pytest.mark.parametrize(
    ("number", "said"),
    [(errno.ENOSPC, "the disk is full"), (errno.EDQUOT, "quota"), (errno.EACCES, "Permission denied")],
)
def test_a_failing_disk_is_one_error_of_the_callers_kind(tmp_path, monkeypatch, kind, number, said):
    path = files.write_whole(tmp_path / "a", b"old")

    def fail(descriptor):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(kind, match=rf"cannot write .*/a: .*{said}.*; what was there is untouched; (free|check)"):
        files.write_whole(path, b"new", kind)
    with pytest.raises(kind, match=said), files.replacing_folder(tmp_path / "folder", kind) as fresh:
        (fresh / "b").write_text("new")
    assert path.read_bytes() == b"old" and names(tmp_path) == ["a"]


def test_errors_of_the_zoo_pass_unchanged(tmp_path):
    with pytest.raises(TrainingError, match=r"^mine$"), files.replacing(tmp_path / "a"):
        raise TrainingError("mine")
    assert names(tmp_path) == []


def test_the_file_before_is_kept_where_that_is_asked_for(tmp_path):
    for text in ("1", "2", "3"):
        with files.replacing(tmp_path / "last", previous=tmp_path / "previous") as temporary:
            temporary.write_text(text)
    assert (tmp_path / "last").read_text() == "3" and (tmp_path / "previous").read_text() == "2"


def test_leftovers_go_and_files_in_use_or_of_others_stay(tmp_path):
    old, others = ".a.json.17-abcd1234.tmp", (".a.json.18-abcd1234.tmp", ".a.json.b.17-abcd1234.tmp", ".a.json.notes")
    for name in (old, *others):
        (tmp_path / name).write_text("")
    long_ago = time.time() - 2 * files.ABANDONED_AFTER
    for name in (old, *others[1:]):
        os.utime(tmp_path / name, (long_ago, long_ago))
    files.write_text(tmp_path / "a.json", "{}")
    assert names(tmp_path) == sorted([*others, "a.json"])
    files.remove_leftovers(tmp_path / "a.json")
    assert names(tmp_path) == sorted([*others[1:], "a.json"])


def test_a_lock_says_who_waits(tmp_path):
    with files.locked(tmp_path / "a"):
        assert files.is_held(tmp_path / "a.lock")
        second = files.locked(tmp_path / "a", TrainingError, busy="somebody writes")
        with pytest.raises(TrainingError, match=r"^somebody writes$"), second:
            pass
    assert not files.is_held(tmp_path / "a.lock")
    with files.locked(tmp_path / "a", busy="somebody writes"):
        said = rf"^somebody writes \(it is process {os.getpid()} on "
        with pytest.raises(DataError, match=said), files.locked(tmp_path / "a", busy="somebody writes"):
            pass
    assert names(tmp_path) == ["a.lock"]


def test_a_cache_that_cannot_be_written_costs_nothing_else(tmp_path):
    (tmp_path / "file").write_text("")
    files.write_cache(tmp_path / "file" / "a", b"x")
    files.write_cache(tmp_path / "new" / "a", b"x")
    assert (tmp_path / "new" / "a").read_bytes() == b"x"


def test_nobody_else_syncs_or_makes_temporary_names():
    """A second hand would forget the disk that is full, the lock or the leftovers."""
    # The part file of an extraction grows in place, under a journal of its own.
    allowed = {"zoo/files.py", "zoo/features/stream.py"}
    own = re.compile(r"os\.replace|os\.fsync|\.rename\(|\.tmp\b|NamedTemporaryFile|mkstemp")
    found = {
        str(path.relative_to(ROOT))
        for room in ("zoo", "training", "evaluation", "benchmarks")
        for path in (ROOT / room).rglob("*.py")
        if own.search(path.read_text(encoding="utf-8"))
    }
    assert found <= allowed, found - allowed
