"""Connections to a host that is not trusted: what it sends is timed byte by byte, and where it really is is looked at.

A time limit of a socket starts anew with every byte. So the bytes themselves are counted here, those of headers and of
chunk lengths too: an answer has a deadline as a whole, and a minimum speed over the last seconds.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import io
import ipaddress
import math
import os
import re
import socket
import time
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Callable
from typing import Any

from zoo.errors import HubError, UnknownNameError

#: Seconds without a byte before an attempt is given up.
TIMEOUT = 10.0
#: Headers take at most `PATIENCE` seconds; from then on at least `SLOWEST` bytes a second come, over any `PATIENCE`.
SLOWEST, PATIENCE = 2048, 20.0


#: Bytes before the body: headers, and what a redirect says beside its target.
HEAD_BYTES = 1 << 20


class Slow(Exception):
    """The host sends too little; another attempt may go better."""


class Pace:
    """How fast a host answers one request, by the seconds that we waited for it: our own work does not count.

    Args:
        limit: bytes that the body may have; None sets no deadline, the minimum speed holds all the same.
        clock: seconds, for tests.
        patience: seconds that headers may take; None is `PATIENCE`.
    """

    def __init__(
        self, limit: int | None, clock: Callable[[], float] = time.monotonic, patience: float | None = None
    ) -> None:
        self.clock, self.waited = clock, 0.0
        self.patience = PATIENCE if patience is None else patience
        self.body_from: float | None = None  # how long the headers took
        self.deadline = math.inf if limit is None else 2 * PATIENCE + limit / SLOWEST
        self.seconds: Counter[int] = Counter()  # bytes in each second of the waiting
        self.before_body = 0

    def begin_body(self) -> None:
        """The headers are there; from now on the speed counts."""
        self.body_from = self.waited

    def receive(self, read: Callable[[], int | None]) -> int | None:
        """Call `read`, which waits for bytes and returns how many came. Raises Slow."""
        started = self.clock()
        count = read()
        self.waited += self.clock() - started
        self.seconds[int(self.waited)] += count or 0
        if self.body_from is None:
            self._head(count or 0)
            return count
        if self.waited > self.deadline:
            raise Slow(f"not done after {self.deadline:.0f} s")
        if self.waited - self.body_from > PATIENCE:
            oldest = int(self.waited - PATIENCE)
            for second in [second for second in self.seconds if second < oldest]:
                del self.seconds[second]
            if count and sum(self.seconds.values()) < SLOWEST * PATIENCE:
                raise Slow(f"slower than {SLOWEST} bytes a second over the last {PATIENCE:g} s")
        return count

    def _head(self, count: int) -> None:
        self.before_body += count
        if self.waited > self.patience:
            raise Slow(f"no whole answer within {self.patience:g} s")
        if self.before_body > HEAD_BYTES:
            raise HubError(f"the host sends more than {HEAD_BYTES} bytes before any file")


class _Paced(io.RawIOBase):
    """The bytes of a socket, each read of which a `Pace` times."""

    def __init__(self, raw: io.RawIOBase, pace: Pace) -> None:
        self.raw, self.pace = raw, pace

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        return self.pace.receive(lambda: self.raw.readinto(buffer))

    def close(self) -> None:
        self.raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, pace: Pace, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.fp = io.BufferedReader(_Paced(self.fp.detach(), pace))


class _Handler(urllib.request.HTTPHandler, urllib.request.HTTPSHandler):
    """Opens http and https with a `Pace`, and if told so not to this machine, whatever name leads here."""

    def __init__(self, pace: Pace, allow_here: bool) -> None:
        super().__init__()
        self.pace, self.allow_here = pace, allow_here

    def http_open(self, request: Any) -> Any:
        return self.do_open(functools.partial(self._connection, http.client.HTTPConnection, request), request)

    def https_open(self, request: Any) -> Any:
        return self.do_open(functools.partial(self._connection, http.client.HTTPSConnection, request), request)

    def _connection(self, kind: Any, request: Any, host: str, **keywords: Any) -> Any:
        made = kind(host, **keywords)
        made.response_class = functools.partial(_Response, self.pace)
        if not self.allow_here and not request.has_proxy():
            made._create_connection = _elsewhere
        return made


def _elsewhere(*arguments: Any, **keywords: Any) -> socket.socket:
    """`socket.create_connection`, hung up before a byte is sent if it leads to this machine."""
    made = socket.create_connection(*arguments, **keywords)
    if is_here(made.getpeername()[0]):
        made.close()
        raise HubError("a config.json from the network may not point to this machine")
    return made


def opener(pace: Pace, *handlers: Any, allow_here: bool = True) -> urllib.request.OpenerDirector:
    """What opens URLs at that pace.

    Args:
        allow_here: whether addresses of this machine may be connected to.
    """
    return urllib.request.build_opener(_Handler(pace, allow_here), *handlers)


def is_here(address: str) -> bool:
    """Whether a numeric address is this machine: loopback or unspecified, in any notation that connecting takes."""
    with contextlib.suppress(OSError):  # 127.1, 2130706433, 0x7f000001 and 0177.0.0.1 are 127.0.0.1 to the system
        address = socket.inet_ntoa(socket.inet_aton(address))
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    found = getattr(found, "ipv4_mapped", None) or found
    return found.is_loopback or found.is_unspecified


def is_loopback(url: str) -> bool:
    """Whether the host of `url` is written as this machine; a name that only resolves to it is met when connecting."""
    host = (urllib.parse.urlsplit(url).hostname or "").rstrip(".")
    return host == "localhost" or host.endswith(".localhost") or is_here(host)


def checked(url: str, example: str) -> urllib.parse.SplitResult:
    """The parts of a URL that may be asked for: https, or http to this machine or with ZOO_ALLOW_HTTP=1.

    Args:
        example: of a URL that would do, for errors.

    Raises:
        UnknownNameError: no URL, letters that belong in none, another scheme, or not encrypted.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        host = parts.hostname
        parts.port  # noqa: B018  (raises ValueError)
    except ValueError as error:
        raise UnknownNameError(f"{url!r} is no URL: {error}") from None
    if not host or not re.fullmatch(r"[\x21-\x7e]+", url):
        raise UnknownNameError(f"{url!r} is no URL; write {example}")
    if parts.scheme not in ("http", "https"):
        raise UnknownNameError(f"{url!r} has an unknown scheme; write {example}")
    if parts.scheme == "http" and not is_loopback(url) and os.environ.get("ZOO_ALLOW_HTTP") != "1":
        raise UnknownNameError(
            f"{url!r} is not encrypted; use https://, or set ZOO_ALLOW_HTTP=1 if you trust the network"
        )
    return parts
