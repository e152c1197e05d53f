"""Files of a checkpoint on a web server: a plain URL, the size and the hash that config.json states."""

from __future__ import annotations

import urllib.parse
from pathlib import Path

from zoo.errors import CheckpointError, HubError, UnknownNameError
from zoo.files import locked
from zoo.network.asking import Again, Rules
from zoo.network.connection import checked
from zoo.network.fetching import Fetched, fetch

EXAMPLE = "https://host/path/NAME"


def check_url(url: str) -> str:
    """Return `url` without its last slash if it may be fetched.

    Raises:
        UnknownNameError: not https (http is for this machine, or with ZOO_ALLOW_HTTP=1), or more than a plain path.
    """
    parts = checked(url, EXAMPLE)
    if parts.query or parts.fragment or "@" in parts.netloc or ".." in urllib.parse.unquote(parts.path).split("/"):
        raise UnknownNameError(f"{url!r}: a checkpoint's URL is {EXAMPLE}, without user, query or '..'")
    return url.rstrip("/")


def download(url: str, path: Path, size: int, sha256: str, *, allow_here: bool = True) -> Path:
    """Fetch `url` to `path`, which appears only once size and sha256 are right; one process fetches, others wait.

    Args:
        allow_here: whether the host may be this machine, under whatever name.

    Raises:
        HubError: the host cannot be reached or does not hold it.
        CheckpointError: the host sends other bytes.
    """

    def check(found: Fetched) -> None:
        if found.bytes != size:
            raise Again(f"sent {found.bytes} of {size} bytes")
        if found.sha256 != sha256:
            raise CheckpointError(
                f"{url} sends another file than config.json describes: sha256 {found.sha256[:12]}..., "
                f"expected {sha256[:12]}...; tell its owner, or use another mirror"
            )

    with locked(path, HubError):
        if not is_whole(path, size):
            path.unlink(missing_ok=True)
            fetch(url, path, limit=size, rules=Rules(allow_here=allow_here), check=check)
    return path


def is_whole(path: Path, size: int) -> bool:
    """A regular file, not a link that someone put in the cache, of the right size."""
    return path.is_file() and not path.is_symlink() and path.stat().st_size == size
