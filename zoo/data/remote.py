"""Addresses of files that cannot be sought where they are, and how such a file is fetched whole: https and commands."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import tempfile
import urllib.parse
from collections.abc import Callable
from pathlib import Path

from zoo.errors import DataError, HubError
from zoo.files import remove_leftovers, replacing
from zoo.network.asking import FetchError, Rules
from zoo.network.connection import checked
from zoo.network.fetching import Fetched, fetch

PIPE = "pipe:"
#: Object stores redirect to other hosts and take their time to find a file.
RULES = Rules(same_host=False, timeout=60.0)
FIX = "free some space or set ZOO_CACHE to another disk"
_CHUNK = 1 << 20


def is_remote(address: str) -> bool:
    """Whether an address is a URL of http or https, or a command behind `pipe:`."""
    return address.startswith(("https://", "http://", PIPE))


def is_command(address: str) -> bool:
    """Whether an address would run a command of the shell if a person gave it."""
    return address.removeprefix("webdataset:").startswith(PIPE)


def name_of(address: str) -> str:
    """What a remote file is called: the path of a URL, or the last word of a command that names a tar."""
    if address.startswith(PIPE):
        words = [word.strip("'\"") for word in address.removeprefix(PIPE).split()]
        return next((word for word in reversed(words) if ".tar" in word), "command.tar").split("?")[0]
    return urllib.parse.unquote(urllib.parse.urlsplit(address).path)


def check(address: str) -> None:
    """Refuse what may not be asked for.

    Raises:
        UnknownNameError: no URL, or one that is not encrypted. DataError: a command that was not allowed.
    """
    if not address.startswith(PIPE):
        checked(address, "https://host/path/shard-0000.tar")
    elif os.environ.get("ZOO_ALLOW_PIPE") != "1":
        raise DataError(
            f"{address} runs a command of the shell; set ZOO_ALLOW_PIPE=1 if it is your own, or give the path or "
            "URL of the shard"
        )


def get(address: str, path: Path, verify: Callable[[Fetched], None], room: Callable[[int], None]) -> Fetched:
    """Write the file behind an address to `path`, whole or not at all. The caller holds the lock of `path`.

    Args:
        verify: raises an error for content that is not what was wanted.
        room: called with a size in bytes before so many are written; raises an error where there is no room.

    Raises:
        HubError: the host does not answer or does not hold it.
        DataError: a command that was not allowed or failed; the disk is full. UnknownNameError: as `check`.
    """
    check(address)
    if address.startswith(PIPE):
        return _run(address, path, verify, room)
    try:
        return fetch(address, path, rules=RULES, check=verify, room=room, kind=DataError, fix=FIX)
    except FetchError as error:
        raise HubError(
            f"{address} could not be copied: {error.reason}; check the address and the network. Shards that were "
            "copied stay, and the same command goes on"
        ) from None


def _run(address: str, path: Path, verify: Callable[[Fetched], None], room: Callable[[int], None]) -> Fetched:
    remove_leftovers(path)
    command = ["/bin/sh", "-c", address.removeprefix(PIPE)]
    with (
        replacing(path, fix=FIX) as temporary,
        temporary.open("wb") as file,
        tempfile.TemporaryFile() as said,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, stdin=subprocess.DEVNULL) as running,
    ):
        digest, size = hashlib.sha256(), 0
        try:
            while chunk := running.stdout.read(_CHUNK):
                size += len(chunk)
                room(size)
                digest.update(chunk)
                file.write(chunk)
        except BaseException:
            running.kill()
            raise
        if running.wait() or not size:
            said.seek(0)
            lines = said.read().decode(errors="replace").strip().splitlines()
            why = f"exit status {running.returncode}" + (f": {lines[-1][:300]}" if lines else "")
            raise DataError(f"{address} gave no shard ({why}); try the command in a shell")
        found = Fetched(size, digest.hexdigest())
        verify(found)
    return found


def file_name(address: str) -> str:
    """Name of the copy of a remote file: part of a hash of the address, then what the file is called."""
    name = re.sub(r"[^\w.-]", "_", name_of(address).rpartition("/")[2])[-80:] or "shard.tar"
    return f"{hashlib.sha256(address.encode()).hexdigest()[:16]}-{name}"
