"""Files over HTTP(S) from a host that is not trusted: limits on size, time and redirects, each failure one sentence."""

from __future__ import annotations

import email.utils
import hashlib
import http.client
import os
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zoo.checkpoint.connection import TIMEOUT, Pace, Slow, is_loopback, opener
from zoo.errors import CheckpointError, HubError, UnknownNameError
from zoo.files import locked, remove_leftovers, replacing
from zoo.text import clipped

ATTEMPTS = 3
#: Longest wait that a host may ask for with Retry-After.
LONGEST_WAIT = 30.0
_CHUNK = 1 << 16


class NotFound(HubError):
    """The host answers that it has no such file."""


class Unavailable(HubError):
    """The host does not answer, or says that it cannot now; the file may well be there."""


class _Again(Exception):
    """An attempt that failed in a way that another may not; `wait` in seconds if the host named a time."""

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait


def check_url(url: str) -> str:
    """Return `url` without its last slash if it may be fetched.

    Raises:
        UnknownNameError: not https (http is for this machine, or with ZOO_ALLOW_HTTP=1), or more than a plain path.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        host = parts.hostname
        parts.port  # noqa: B018  (raises ValueError)
    except ValueError as error:
        raise UnknownNameError(f"{url!r} is no URL: {error}") from None
    if not host or not re.fullmatch(r"[\x21-\x7e]+", url):
        raise UnknownNameError(f"{url!r} is no URL; write https://host/path/NAME")
    if parts.query or parts.fragment or "@" in parts.netloc or ".." in urllib.parse.unquote(parts.path).split("/"):
        raise UnknownNameError(f"{url!r}: a checkpoint's URL is https://host/path/NAME, without user, query or '..'")
    if parts.scheme == "http" and not is_loopback(url) and os.environ.get("ZOO_ALLOW_HTTP") != "1":
        raise UnknownNameError(
            f"{url!r} is not encrypted; use https://, or set ZOO_ALLOW_HTTP=1 if you trust the network"
        )
    if parts.scheme not in ("http", "https"):
        raise UnknownNameError(f"{url!r} has an unknown scheme; write https://host/path/NAME")
    return url.rstrip("/")


def read(url: str, limit: int) -> bytes:
    """The body of `url`. Raises HubError; NotFound for 404; a body beyond `limit` bytes is refused."""

    def attempt() -> bytes:
        content = bytearray()
        for chunk in _stream(url, limit):
            content += chunk
        return bytes(content)

    return _try(url, attempt)


def download(url: str, path: Path, size: int, sha256: str, *, allow_here: bool = True) -> Path:
    """Fetch `url` to `path`, which appears only once size and sha256 are right; one process fetches, others wait.

    Args:
        allow_here: whether the host may be this machine, under whatever name.

    Raises:
        HubError: the host cannot be reached or does not hold it.
        CheckpointError: the host sends other bytes.
    """

    def attempt() -> None:
        digest, received = hashlib.sha256(), 0
        with replacing(path, HubError) as temporary, temporary.open("wb") as file:
            for chunk in _stream(url, size, allow_here):
                digest.update(chunk)
                received += len(chunk)
                file.write(chunk)
            if received != size:
                raise _Again(f"sent {received} of {size} bytes")
            if digest.hexdigest() != sha256:
                raise CheckpointError(
                    f"{url} sends another file than config.json describes: sha256 {digest.hexdigest()[:12]}..., "
                    f"expected {sha256[:12]}...; tell its owner, or use another mirror"
                )

    with locked(path, HubError):
        remove_leftovers(path)
        if not is_whole(path, size):
            path.unlink(missing_ok=True)
            _try(url, attempt)
    return path


def is_whole(path: Path, size: int) -> bool:
    """A regular file, not a link that someone put in the cache, of the right size."""
    return path.is_file() and not path.is_symlink() and path.stat().st_size == size


def _try(url: str, attempt: Any) -> Any:
    for left in reversed(range(ATTEMPTS)):
        try:
            return attempt()
        except _Again as error:
            wait = 0.5 * 2 ** (ATTEMPTS - left - 1) if error.wait is None else error.wait
            if left == 0 or wait > LONGEST_WAIT:
                later = f"; it asks to wait {wait:.0f} s" if error.wait else ""
                raise Unavailable(
                    f"{url} could not be fetched: {error}{later}; try again later or use a mirror"
                ) from None
            time.sleep(wait)
    raise AssertionError("unreachable")


def _stream(url: str, limit: int, allow_here: bool = True) -> Iterator[bytes]:
    from zoo import __version__

    request = urllib.request.Request(
        url, headers={"User-Agent": f"encoder-zoo/{__version__}", "Accept-Encoding": "identity"}
    )
    pace, received = Pace(limit), 0
    try:
        with opener(pace, _SameHost, allow_here=allow_here).open(request, timeout=TIMEOUT) as response:
            pace.begin_body()
            length = int(response.headers.get("Content-Length") or -1)
            if length > limit:
                raise HubError(f"{url} announces {length} bytes, at most {limit} are expected; is it a checkpoint?")
            while chunk := response.read1(_CHUNK):
                received += len(chunk)
                if received > limit:
                    raise HubError(f"{url} sends more than {limit} bytes, as many as are expected; is it a checkpoint?")
                yield chunk
            if received < length:
                raise _Again(f"sent {received} of {length} bytes")
    except Slow as error:
        raise _Again(str(error)) from None
    except urllib.error.HTTPError as error:
        raise _refused(url, error) from None
    except (http.client.HTTPException, TimeoutError, urllib.error.URLError, ConnectionError, ValueError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, TimeoutError):
            raise _Again(f"no answer within {TIMEOUT:g} s") from None
        # http.client repeats what a broken server sent.
        said = clipped(" ".join(str(reason).split()), 200)
        raise _Again(f"{type(reason).__name__}: {said or 'the connection broke'}") from None


def _refused(url: str, error: urllib.error.HTTPError) -> Exception:
    code = error.code
    error.close()
    if code in (404, 410):
        return NotFound(f"{url} does not exist ({code}); check the address")
    if code == 429 or code >= 500:
        return _Again(f"the host answers {code}", _retry_after(error.headers.get("Retry-After")))
    return HubError(f"{url} could not be fetched: the host answers {code}; check the address or use a mirror")


def _retry_after(value: str | None) -> float | None:
    """Seconds from a Retry-After header: a number, or an HTTP date (RFC 9110, 10.2.3)."""
    if value is None:
        return None
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (TypeError, ValueError):
        return None


class _SameHost(urllib.request.HTTPRedirectHandler):
    """Follows a redirect within one host; a redirect elsewhere would hand the choice of host to the first one."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        before, after = urllib.parse.urlsplit(req.full_url), urllib.parse.urlsplit(newurl)
        if (before.scheme, before.netloc) != (after.scheme, after.netloc):
            raise HubError(
                f"{req.full_url} redirects to another host, {clipped(f'{after.scheme}://{after.netloc}', 200)}; "
                "load from there if you trust it"
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)
