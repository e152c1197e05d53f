"""A loopback stand-in for the Hugging Face Hub: HEAD and GET of /ORG/NAME/resolve/REVISION/FILE, with faults."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.serving import running

COMMIT = "1f" * 20
REPO = "zoo-tests/encoder"
#: fault -> status and headers that the real hub sends with it
STATUS = {
    "404": (404, {"X-Error-Code": "EntryNotFound"}),
    "no-revision": (404, {"X-Error-Code": "RevisionNotFound"}),
    "no-repository": (401, {"X-Error-Code": "RepoNotFound"}),
    "gated": (403, {"X-Error-Code": "GatedRepo"}),
    "401": (401, {}),
    "403": (403, {}),
    "429": (429, {"Retry-After": "0"}),
    "500": (500, {}),
    "503": (503, {}),
}


class Hub:
    """One repository with one commit. `faults` maps a file name (or "*") to a fault; `requests` is what came in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.faults: dict[str, str] = {}
        self.requests: list[tuple[str, str]] = []
        self.commit = COMMIT
        #: earlier commit -> the folder that it holds
        self.older: dict[str, Path] = {}
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                hub.answer(self, body=False)

            def do_GET(self) -> None:
                hub.answer(self, body=True)

            def log_message(self, *args: object) -> None:
                """The tests read `requests` instead."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def answer(self, handler: BaseHTTPRequestHandler, body: bool) -> None:
        """Serve one request, or commit the fault that is set for its file."""
        self.requests.append((handler.command, handler.path))
        parts = handler.path.lstrip("/").split("/")
        revision = parts[3] if len(parts) > 3 else ""
        commit = revision if revision in self.older else self.commit
        name, path = parts[-1], self.older.get(revision, self.folder) / parts[-1]
        fault = self.faults.get(name) or self.faults.get("*")
        if "/".join(parts[:2]) != REPO:
            fault = "no-repository"
        elif parts[3] not in ("main", self.commit, *self.older):
            fault = "no-revision"
        elif not path.is_file():
            fault = "404"
        if fault == "silent":
            threading.Event().wait(0.4)
            handler.close_connection = True
            return
        if fault in STATUS:
            self._refuse(handler, *STATUS[fault])
            return
        content = path.read_bytes()
        etag = hashlib.sha256(content).hexdigest()
        if fault == "tampered":
            content = content[:-1] + bytes([content[-1] ^ 1])
        handler.send_response(200)
        for key, value in {"ETag": f'"{etag}"', "X-Repo-Commit": commit, "Content-Length": len(content)}.items():
            handler.send_header(key, str(value))
        handler.end_headers()
        if body:
            handler.wfile.write(content[: len(content) // 2] if fault == "truncated" else content)
            handler.close_connection = fault == "truncated"

    @staticmethod
    def _refuse(handler: BaseHTTPRequestHandler, status: int, headers: dict[str, str]) -> None:
        handler.send_response(status)
        for key, value in {**headers, "Content-Length": "0"}.items():
            handler.send_header(key, value)
        handler.end_headers()


@contextmanager
def serve(folder: Path) -> Iterator[Hub]:
    """A running `Hub` that offers the files of `folder`."""
    hub = Hub(folder)
    with running(hub.server):
        yield hub
