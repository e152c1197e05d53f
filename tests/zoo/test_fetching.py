"""Downloads: a broken one goes on by Range where the host names the version, and begins anew wherever it cannot."""

from __future__ import annotations

import hashlib
import socket

import pytest

from tests.static_server import serve_folder
from zoo.errors import DataError, HubError
from zoo.network import asking
from zoo.network.asking import Unavailable
from zoo.network.fetching import Fetched, fetch

CONTENT = bytes(range(256)) * 4096
HALF = len(CONTENT) // 2
ETAG = '"version-1"'


@pytest.fixture(autouse=True)
def waits(monkeypatch):
    """Seconds that were waited between attempts; nobody really waits."""
    found = []
    monkeypatch.setattr("zoo.network.asking.time.sleep", found.append)
    return found


@pytest.fixture
def server(tmp_path):
    (tmp_path / "www").mkdir()
    (tmp_path / "www" / "file").write_bytes(CONTENT)
    with serve_folder(tmp_path / "www") as running:
        yield running


@pytest.fixture
def get(server, tmp_path):
    """Fetch the file into an empty folder; what was found."""
    target = tmp_path / "here" / "file"
    target.parent.mkdir()

    def run(**options) -> Fetched:
        found = fetch(f"{server.url}/file", target, **options)
        content = (server.folder / "file").read_bytes()
        assert target.read_bytes() == content
        assert found == Fetched(len(content), hashlib.sha256(content).hexdigest())
        assert [path.name for path in target.parent.iterdir()] == ["file"]
        return found

    run.folder = target.parent
    return run


def test_a_broken_download_goes_on_where_it_ended(server, get):
    server.etag, server.faults["file"] = ETAG, "once:truncated"
    get()
    assert server.parts == [(None, None), (f"bytes={HALF}-", ETAG)]


def test_a_later_call_goes_on_too(server, get, monkeypatch):
    monkeypatch.setattr(asking, "ATTEMPTS", 1)
    server.etag, server.faults["file"] = ETAG, "once:truncated"
    with pytest.raises(Unavailable, match=f"sent {HALF} of {len(CONTENT)} bytes"):
        get()
    assert len(list(get.folder.iterdir())) == 2, "the part, and the note of its version"
    get()
    assert server.parts[-1] == (f"bytes={HALF}-", ETAG)


@pytest.mark.parametrize("etag", ["", 'W/"weak"', "no quotes", '"a\tb"'])
def test_without_a_strong_etag_it_begins_anew(server, get, etag):
    server.etag, server.faults["file"] = etag, "once:truncated"
    get()
    assert server.parts == [(None, None)] * 2


def test_a_file_that_changed_is_sent_anew(server, get):
    server.etag, server.faults["file"] = ETAG, "once:truncated"

    def change(path):
        if len(server.requests) == 2:
            server.etag = '"version-2"'
            (server.folder / "file").write_bytes(CONTENT[::-1])

    server.on_request = change
    get()
    assert server.parts == [(None, None), (f"bytes={HALF}-", ETAG)]


@pytest.mark.parametrize("fault", ["once:416", "once:other-part"])
def test_a_part_that_does_not_fit_is_thrown_away(server, get, monkeypatch, fault):
    server.etag, server.faults["file"] = ETAG, "once:truncated"

    def confuse(path):
        if len(server.requests) == 2:
            server.faults["file"] = fault

    server.on_request = confuse
    get()
    assert [part for part, _ in server.parts if part] == ([f"bytes={HALF}-"] if "part" in fault else [])
    assert server.parts[-1] == (None, None)


def test_a_part_of_another_url_is_not_gone_on_with(server, get, monkeypatch):
    monkeypatch.setattr(asking, "ATTEMPTS", 1)
    server.etag, server.faults["file"] = ETAG, "once:truncated"
    with pytest.raises(Unavailable):
        get()
    (server.folder / "other").write_bytes(b"other")
    fetch(f"{server.url}/other", get.folder / "file")
    assert (get.folder / "file").read_bytes() == b"other" and server.parts[-1] == (None, None)


def test_what_is_refused_leaves_nothing(server, get):
    server.etag = ETAG

    def refuse(found: Fetched) -> None:
        raise DataError(f"{found.bytes} bytes are not welcome")

    with pytest.raises(DataError, match="not welcome"):
        get(check=refuse)
    assert list(get.folder.iterdir()) == []


@pytest.mark.parametrize(("fault", "asked"), [(None, [len(CONTENT)]), ("unsized", None)])
def test_room_is_asked_for_before_bytes_are_written(server, get, fault, asked):
    if fault:
        server.faults["file"] = fault
    sizes = []
    get(room=sizes.append)
    assert sizes == (asked or sorted(sizes)) and sizes[-1] == len(CONTENT)

    def full(size: int) -> None:
        if size > HALF:
            raise DataError("no room")

    (get.folder / "file").unlink()
    with pytest.raises(DataError, match="no room"):
        get(room=full)
    assert list(get.folder.iterdir()) == []


def test_more_bytes_than_allowed(server, get):
    for fault in (None, "unsized"):
        server.faults.update({"file": fault} if fault else {})
        with pytest.raises(HubError, match=r"(announces|sends more than) .*is it a checkpoint"):
            get(limit=HALF)
    assert list(get.folder.iterdir()) == []


def test_a_host_that_refuses_connections_is_asked_three_times(tmp_path, waits):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/file"
        with pytest.raises(Unavailable, match="ConnectionRefusedError") as caught:
            fetch(url, tmp_path / "file")
    assert waits == [0.5, 1.0] and "ConnectionRefusedError" in caught.value.reason
