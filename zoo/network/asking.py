"""One request to a host that is not trusted, and how often it is asked again; each failure is one sentence."""

from __future__ import annotations

import contextlib
import email.utils
import http.client
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from zoo.errors import HubError
from zoo.network.connection import TIMEOUT, Pace, Slow, opener
from zoo.text import clipped

ATTEMPTS = 3
#: Seconds before the second attempt; twice as many before each further one.
WAIT = 0.5
#: Longest wait that a host may ask for with Retry-After, in seconds.
LONGEST_WAIT = 30.0
_CHUNK = 1 << 16
_Result = TypeVar("_Result")


class FetchError(HubError):
    """A host that does not give what it was asked for; `reason` says why without the URL."""

    reason = ""


class NotFound(FetchError):
    """The host answers that it has no such file."""


class Unavailable(FetchError):
    """The host does not answer, or says that it cannot now; the file may well be there."""


class Again(Exception):
    """An attempt that failed in a way that another may not; `wait` in seconds if the host named a time."""

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait


class Stale(Again):
    """The host cannot go on where a partial file ends."""


@dataclass(frozen=True)
class Rules:
    """What a host may do.

    Attributes:
        same_host: whether a redirect must stay within the host; else it only may not leave encryption.
        allow_here: whether the host may be this machine, under whatever name.
        timeout: seconds of silence, and for headers; None: 10 s of silence, 20 s for headers.
    """

    same_host: bool = True
    allow_here: bool = True
    timeout: float | None = None


class Answer:
    """The answer of a host to one request.

    Args:
        limit: bytes that the body may have; None for any number.
        start: byte from which on the file is wanted, of the version that `etag` names.

    Attributes:
        start: byte of the file that the body begins with: `start`, or 0 where the host sends all of it.
        length: bytes of the body; None where the host does not say.
        etag: strong name of the version that is sent; empty where the host gives none.

    Raises:
        Again: another attempt may go better; Stale, if it asks for the whole file.
        FetchError: it refuses. HubError: it sends something else.
    """

    def __init__(self, url: str, limit: int | None, rules: Rules, start: int = 0, etag: str = "") -> None:
        from zoo import __version__

        headers = {"User-Agent": f"encoder-zoo/{__version__}", "Accept-Encoding": "identity"}
        if start:
            headers |= {"Range": f"bytes={start}-", "If-Range": etag}
        request = urllib.request.Request(url, headers=headers)
        self.url, self.limit = url, limit
        timeout = rules.timeout or TIMEOUT
        pace = Pace(limit, patience=rules.timeout)
        redirects = _SameHost if rules.same_host else _Encrypted
        with _told(url, timeout):
            self.response = opener(pace, redirects, allow_here=rules.allow_here).open(request, timeout=timeout)
        self.timeout = timeout
        pace.begin_body()
        found = self.response.headers
        with self.closing_on_errors(), _told(url, timeout):
            length = found.get("Content-Length")
            self.length = int(length) if length else None
            self.start = self._start(found.get("Content-Range"), start)
        etag = found.get("ETag") or ""
        self.etag = etag if re.fullmatch(r'"[\x21\x23-\x7e]{1,200}"', etag) else ""
        if limit is not None and self.start + (self.length or 0) > limit:
            self.response.close()
            raise HubError(f"{url} announces {self.length} bytes, at most {limit} are expected; is it a checkpoint?")

    def _start(self, content_range: str | None, wanted: int) -> int:
        if self.response.status != 206:
            return 0
        begins = re.match(r"bytes (\d+)-", content_range or "")
        if not wanted or begins is None or int(begins[1]) != wanted:
            raise Stale("the host sends another part of the file than was asked for")
        return wanted

    @contextlib.contextmanager
    def closing_on_errors(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.response.close()
            raise

    def chunks(self) -> Iterator[bytes]:
        """The body. Raises Again: it breaks off. HubError: it has more bytes than it may."""
        received = 0
        with contextlib.closing(self.response):
            while chunk := self._read():
                received += len(chunk)
                if self.limit is not None and self.start + received > self.limit:
                    raise HubError(
                        f"{self.url} sends more than {self.limit} bytes, as many as are expected; is it a checkpoint?"
                    )
                yield chunk
        if self.length is not None and received < self.length:
            raise Again(f"sent {received} of {self.length} bytes")

    def _read(self) -> bytes:
        with _told(self.url, self.timeout):
            return self.response.read1(_CHUNK)


def read(url: str, limit: int, rules: Rules | None = None) -> bytes:
    """The body of `url`. Raises HubError; NotFound for 404; a body beyond `limit` bytes is refused."""
    return insist(url, lambda: b"".join(Answer(url, limit, rules or Rules()).chunks()))


def insist(url: str, attempt: Callable[[], _Result]) -> _Result:
    """What `attempt` returns, called again while it raises Again. Raises Unavailable after `ATTEMPTS`."""
    for tried in range(ATTEMPTS):
        try:
            return attempt()
        except Again as error:
            wait = WAIT * 2**tried if error.wait is None else error.wait
            if tried + 1 == ATTEMPTS or wait > LONGEST_WAIT:
                later = f"; it asks to wait {wait:.0f} s" if error.wait else ""
                raise _failed(
                    Unavailable, url, f"{error}{later}", "try again later or use a mirror", "could not be fetched: "
                ) from None
            time.sleep(wait)
    raise AssertionError("unreachable")


def _failed(kind: type[FetchError], url: str, reason: str, fix: str, verb: str) -> FetchError:
    error = kind(f"{url} {verb}{reason}; {fix}")
    error.reason = reason
    return error


@contextlib.contextmanager
def _told(url: str, timeout: float) -> Iterator[None]:
    """Errors of a connection as `Again`, or as a FetchError where asking again is of no use."""
    try:
        yield
    except Slow as error:
        raise Again(str(error)) from None
    except urllib.error.HTTPError as error:
        raise _refused(url, error) from None
    except (http.client.HTTPException, TimeoutError, urllib.error.URLError, ConnectionError, ValueError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, TimeoutError):
            raise Again(f"no answer within {timeout:g} s") from None
        # http.client repeats what a broken server sent.
        said = clipped(" ".join(str(reason).split()), 200)
        raise Again(f"{type(reason).__name__}: {said or 'the connection broke'}") from None


def _refused(url: str, error: urllib.error.HTTPError) -> Exception:
    code = error.code
    error.close()
    if code == 416:
        return Stale("the host answers 416")
    if code in (404, 410):
        return _failed(NotFound, url, f"does not exist ({code})", "check the address", "")
    if code == 429 or code >= 500:
        return Again(f"the host answers {code}", _retry_after(error.headers.get("Retry-After")))
    return _failed(
        FetchError, url, f"the host answers {code}", "check the address or use a mirror", "could not be fetched: "
    )


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


class _Encrypted(urllib.request.HTTPRedirectHandler):
    """Follows a redirect anywhere on the web, as object stores need it, but none from https to http."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if req.full_url.startswith("https:") and not newurl.startswith("https:"):
            reason = f"redirects to {clipped(newurl, 200)}, which is not encrypted"
            raise _failed(FetchError, req.full_url, reason, "use another host", "")
        return super().redirect_request(req, fp, code, msg, headers, newurl)
