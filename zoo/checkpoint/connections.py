"""Connections to hosts that are not trusted: a deadline that no trickle moves, and no way back to this machine."""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import socket
import ssl
import threading
import urllib.parse
import urllib.request
from types import TracebackType
from typing import Any

from zoo.errors import HubError


def is_loopback(url: str, *, resolve: bool = False) -> bool:
    """Whether the host of `url` is this machine, however it is written: `127.1`, `0x7f000001`, `::ffff:127.0.0.1`.

    Args:
        resolve: ask the system for the addresses of a name too; one of this machine's suffices.
    """
    host = urllib.parse.urlsplit(url).hostname or ""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    # The system reads numbers as connect() will: short, decimal, octal and hexadecimal ones.
    return any(_is_here(address) for address in _addresses(host, 0 if resolve else socket.AI_NUMERICHOST))


def _addresses(host: str, flags: int) -> list[str]:
    with contextlib.suppress(OSError, UnicodeError):
        return [str(entry[4][0]) for entry in socket.getaddrinfo(host, None, flags=flags)] if host else []
    return []


def _is_here(address: str) -> bool:
    with contextlib.suppress(ValueError):
        found = ipaddress.ip_address(address.partition("%")[0])
        found = getattr(found, "ipv4_mapped", None) or found
        # A connection to 0.0.0.0 or :: reaches this machine.
        return found.is_loopback or found.is_unspecified
    return False


class Watch:
    """Ends connections whose answer has not begun by a deadline.

    A socket's own timeout starts anew with every byte, so a host that sends one now and then is never given up.

    Args:
        seconds: for all of connecting, handshakes, redirects and headers.
        foreign: the address came from a file of others, so it may not lead to this machine.
    """

    def __init__(self, seconds: float, foreign: bool = False) -> None:
        self.foreign, self.expired = foreign, False
        self._sockets: list[socket.socket] = []
        self._timer = threading.Timer(seconds, self._end)
        self._timer.daemon = True

    def __enter__(self) -> Watch:
        self._timer.start()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.begun()
        for each in self._sockets:
            each.close()

    def begun(self) -> None:
        """The answer has begun: what follows is judged by its speed."""
        self._timer.cancel()

    def opener(self, *handlers: urllib.request.BaseHandler) -> urllib.request.OpenerDirector:
        """An opener all of whose connections are watched."""
        return urllib.request.build_opener(_Http(self), _Https(self), *handlers)

    def add(self, connection: socket.socket) -> None:
        """Watch a new connection. Raises HubError if it leads to this machine and may not."""
        if self.foreign and _is_here(str(connection.getpeername()[0])):
            connection.close()
            raise HubError("a config.json from the network may not point to this machine")
        self._sockets.append(connection.dup())  # TLS takes the socket itself away

    def _end(self) -> None:
        self.expired = True
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


class _Watched(http.client.HTTPConnection):
    """Shows its socket to a `Watch` before anything is sent."""

    watch: Watch

    def connect(self) -> None:
        super().connect()
        self.watch.add(self.sock)


class _WatchedTLS(http.client.HTTPSConnection, _Watched):
    """The same below TLS, so that the handshake is watched too."""


class _Http(urllib.request.HTTPHandler):
    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self.kind = type("Connection", (_Watched,), {"watch": watch})

    def http_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(self.kind, req)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self.kind = type("Connection", (_WatchedTLS,), {"watch": watch})

    def https_open(self, req: urllib.request.Request) -> Any:
        return self.do_open(self.kind, req, context=ssl.create_default_context())
