"""A web server over a folder, with the faults of real ones."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.serving import running


class StaticServer:
    """Serves `folder`. `faults` maps a file name to a fault, `requests` is what came in.

    With `etag` a file has that ETag, and parts of it are served: `parts` is what was asked for, (Range, If-Range).

    Faults: "404", "429", "500", "403" (status), "429:SECONDS" (with Retry-After), "once:503" (then well),
    "truncated", "tampered", "huge", "silent" (no answer), "trickle" (a byte at a time), "moved" (another
    host), "beside" (a redirect within the host), "garbage" (not HTTP), "slow-headers" (a header line at a time),
    "late-trickle" (well, but for the last bytes), "endless-redirect" (with a body without end), "unsized" (no
    Content-Length), "other-part" (not the part that was asked for), "pipe" (a redirect to a command).
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.faults: dict[str, str] = {}
        self.requests: list[str] = []
        self.etag = ""
        self.parts: list[tuple[str | None, str | None]] = []
        self.on_request = lambda path: None
        self.closing = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                with contextlib.suppress(ConnectionError):  # a client that has seen enough hangs up
                    server.answer(self)

            def log_message(self, *args: object) -> None:
                """The tests read `requests` instead."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """Serve one file, or commit its fault."""
        self.requests.append(handler.path)
        self.on_request(handler.path)
        name = handler.path.split("/")[-1]
        path, fault = self.folder / handler.path.lstrip("/").replace("beside-", ""), self.faults.get(name)
        if fault and fault.startswith("once:"):
            del self.faults[name]
            fault = fault.removeprefix("once:")
        status, _, wait = (fault or "").partition(":")
        if status.isdecimal() or not path.is_file():
            handler.send_response(int(status) if status.isdecimal() else 404)
            if wait:
                handler.send_header("Retry-After", wait)
            handler.end_headers()
        elif fault in ("moved", "beside", "pipe"):
            handler.send_response(302)
            elsewhere = {"moved": f"http://localhost:1{handler.path}", "pipe": "pipe:touch%20ran"}
            target = elsewhere.get(fault, f"/c/beside-{name}")
            handler.send_header("Location", target)
            handler.end_headers()
        elif fault == "silent":
            self.closing.wait(20)
        elif fault == "slow-headers":
            handler.wfile.write(b"HTTP/1.0 200 OK\r\n")
            while not self.closing.wait(0.02):
                handler.wfile.write(b"X: y\r\n"[:1])
        elif fault == "endless-redirect":
            handler.wfile.write(f"HTTP/1.0 302 Found\r\nLocation: /c/beside-{name}\r\n\r\n".encode())
            while not self.closing.is_set():
                handler.wfile.write(bytes(1 << 16))
        elif fault == "garbage":
            handler.wfile.write(b"\x00\x01\x02 this is no HTTP\r\n\r\n")
        else:
            self._send(handler, path.read_bytes(), fault)

    def _begin(self, handler: BaseHTTPRequestHandler) -> int:
        """Byte that the answer begins with: what Range says, if If-Range names the ETag of now."""
        part, version = handler.headers.get("Range"), handler.headers.get("If-Range")
        self.parts.append((part, version))
        return int(part[len("bytes=") : -1]) if part and self.etag and version == self.etag else 0

    def _send(self, handler: BaseHTTPRequestHandler, content: bytes, fault: str | None) -> None:
        if fault == "tampered":
            content = content[:-1] + bytes([content[-1] ^ 1])
        if fault == "huge":
            content += bytes(1 << 21)
        begin, whole = self._begin(handler), len(content)
        content = content[begin:]
        handler.send_response(206 if begin else 200)
        if begin:
            shown = 0 if fault == "other-part" else begin
            handler.send_header("Content-Range", f"bytes {shown}-{whole - 1}/{whole}")
        if self.etag:
            handler.send_header("ETag", self.etag)
        if fault not in ("huge", "unsized"):
            handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        if fault == "truncated":
            content = content[: len(content) // 2]
        if fault == "trickle":
            for byte in content[:200]:
                handler.wfile.write(bytes([byte]))
                self.closing.wait(0.02)
            return
        if fault == "late-trickle":
            handler.wfile.write(content[:-200])
            while not self.closing.wait(0.02):
                handler.wfile.write(content[-1:])
        handler.wfile.write(content)


@contextmanager
def serve_folder(folder: Path) -> Iterator[StaticServer]:
    """A running `StaticServer`."""
    server = StaticServer(folder)
    with running(server.server):
        try:
            yield server
        finally:
            server.closing.set()  # before the shutdown, which waits for answers under way
