"""Copies of what cannot be sought: files behind https and what a command prints, kept whole in the cache folder."""

from __future__ import annotations

import hashlib
import http.client
import logging
import os
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from zoo.errors import DataError, HubError, UnknownNameError
from zoo.files import cache_root, locked, make_folder, remove_leftovers, replacing

ATTEMPTS = 3
#: Seconds between two attempts; seconds that a host may be silent.
WAIT, TIMEOUT = 1.0, 60.0
_CHUNK = 1 << 20
_FIX = "free some space or set ZOO_CACHE to another disk"
_log = logging.getLogger(__name__)


def is_remote(address: str) -> bool:
    """Whether an address is a URL of http or https, or a command behind `pipe:`."""
    return address.startswith(("https://", "http://", "pipe:"))


def name_of(address: str) -> str:
    """What a remote file is called: the path of a URL, or the last word of a command that names a tar."""
    if address.startswith("pipe:"):
        words = [word.strip("'\"") for word in address.removeprefix("pipe:").split()]
        return next((word for word in reversed(words) if ".tar" in word), "command.tar").split("?")[0]
    return urllib.parse.unquote(urllib.parse.urlsplit(address).path)


def copies(addresses: Sequence[str]) -> list[Path]:
    """A whole copy of each remote file; those that lie in the cache already are not asked for again.

    Raises:
        UnknownNameError: no URL, or one that is not encrypted.
        HubError: the host does not answer or does not hold it.
        DataError: a command that was not allowed or failed; no room on the disk.
    """
    for address in addresses:
        _check(address)
    paths = [_place(address) for address in addresses]
    missing = [i for i, path in enumerate(paths) if not path.is_file()]
    if missing:
        folder = make_folder(paths[0].parent)
        _log.warning(
            "copying %d of %d shards to %s first, as they cannot be sought where they are; %.1f GB are free there",
            len(missing), len(paths), folder, shutil.disk_usage(folder).free / 1e9,
        )  # fmt: skip
    for i in missing:
        with locked(paths[i]):
            remove_leftovers(paths[i])
            if not paths[i].is_file():
                (_run if addresses[i].startswith("pipe:") else _fetch)(addresses[i], paths[i])
    return paths


def _place(address: str) -> Path:
    name = re.sub(r"[^\w.-]", "_", name_of(address).rpartition("/")[2])[-80:] or "shard.tar"
    return cache_root() / "copies" / f"{hashlib.sha256(address.encode()).hexdigest()[:16]}-{name}"


def _check(address: str) -> None:
    if address.startswith("pipe:"):
        if os.environ.get("ZOO_ALLOW_PIPE") != "1":
            raise DataError(
                f"{address} runs a command of the shell; set ZOO_ALLOW_PIPE=1 if it is your own, or give the path or "
                "URL of the shard"
            )
        return
    try:
        parts = urllib.parse.urlsplit(address)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise UnknownNameError(f"{address!r} is no URL: {error}") from None
    if not host or not re.fullmatch(r"[\x21-\x7e]+", address):
        raise UnknownNameError(f"{address!r} is no URL; write https://host/path/shard-0000.tar")
    here = host in ("localhost", "::1") or host.startswith("127.")
    if parts.scheme == "http" and not here and os.environ.get("ZOO_ALLOW_HTTP") != "1":
        raise UnknownNameError(
            f"{address!r} is not encrypted; use https://, or set ZOO_ALLOW_HTTP=1 if you trust the network"
        )


class _Broken(Exception):
    """A connection that broke while a body was read; no OSError, which would be one of the disk here."""


class _NoDowngrade(urllib.request.HTTPRedirectHandler):
    """Follows a redirect, but none from https to http."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        if req.full_url.startswith("https:") and not newurl.startswith("https:"):
            raise urllib.error.URLError(f"it redirects to {newurl[:200]}, which is not encrypted")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _fetch(url: str, path: Path) -> None:
    problem = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(WAIT)
        try:
            with (
                urllib.request.build_opener(_NoDowngrade).open(url, timeout=TIMEOUT) as response,
                replacing(path, fix=_FIX) as temporary,
                temporary.open("wb") as file,
            ):
                length = int(response.headers.get("Content-Length") or 0)
                _need_room(url, path, length)
                received = _copy(response, file)
                if received < length:
                    raise _Broken(f"it sent {received:,} of {length:,} bytes")
            return
        except urllib.error.HTTPError as error:
            problem = f"{error.code} {error.reason}"
            if error.code < 500 and error.code != 429:
                break
        except (_Broken, http.client.HTTPException, urllib.error.URLError, TimeoutError, ConnectionError) as error:
            problem = " ".join(str(getattr(error, "reason", error)).split())[:200]
    raise HubError(
        f"{url} could not be copied: {problem or 'no answer'}; check the address and the network. Shards that were "
        "copied stay, and the same command goes on"
    )


def _need_room(url: str, path: Path, size: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if size > free:
        raise DataError(f"{url} has {size / 1e9:.1f} GB, but {path.parent} has {free / 1e9:.1f} GB free; {_FIX}")


def _copy(source: BinaryIO, target: BinaryIO) -> int:
    total = 0
    while chunk := _read(source):
        target.write(chunk)
        total += len(chunk)
    return total


def _read(source: BinaryIO) -> bytes:
    try:
        return source.read(_CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise _Broken(str(error) or type(error).__name__) from None


def _run(address: str, path: Path) -> None:
    command = address.removeprefix("pipe:")
    with replacing(path, fix=_FIX) as temporary, temporary.open("wb") as file:
        done = subprocess.run(["/bin/sh", "-c", command], stdout=file, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
        if done.returncode or not file.tell():
            said = done.stderr.decode(errors="replace").strip().splitlines()
            why = f"exit status {done.returncode}" + (f": {said[-1][:300]}" if said else "")
            raise DataError(f"{address} gave no shard ({why}); try the command in a shell")
