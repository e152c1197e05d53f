"""A file from a host: into a partial file, checked, then renamed; a broken download goes on where it ended.

It goes on only where the host names the version of the file by a strong ETag, and asks for the rest of that version
(`Range` with `If-Range`, RFC 9110): a file that changed meanwhile is sent anew. The partial file lies beside the file
that it will be, so that a later process goes on with it too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from zoo.errors import HubError, ZooError
from zoo.files import digest_of, disk_errors, remove_leftovers, replacing
from zoo.network.asking import Again, Answer, Rules, Stale, insist

#: Ending of partial files, behind a dot and the name of the file that they will be.
PART = ".part"


@dataclass(frozen=True)
class Fetched:
    """What was written: its size in bytes and its sha256 (hex)."""

    bytes: int
    sha256: str


def _accept(found: Fetched) -> None:
    """Any content will do."""


def _no_limit(size: int) -> None:
    """There is room for any size."""


def fetch(
    url: str,
    path: Path,
    *,
    limit: int | None = None,
    rules: Rules | None = None,
    check: Callable[[Fetched], None] = _accept,
    room: Callable[[int], None] = _no_limit,
    kind: type[ZooError] = HubError,
    fix: str = "",
) -> Fetched:
    """Fetch `url` to `path`, which appears whole or not at all. The caller holds the lock of `path`.

    Args:
        limit: bytes that the file may have.
        check: raises `Again`, or an error, for content that is not what was wanted.
        room: called with the size in bytes before they are written, as soon as it is known and else as it grows;
            raises an error where there is no room.
        kind: the error that a failing disk becomes. fix: what it says to do.

    Raises:
        HubError: the host cannot be reached or does not hold it. `kind`: the disk is full or cannot be written to.
    """
    part = _Partial(path)
    remove_leftovers(path)

    def attempt() -> Fetched:
        with disk_errors(path, kind, fix=fix):
            try:
                return _attempt(url, part, limit, rules or Rules(), check, room)
            except Again:
                if not part.note.exists():
                    part.forget()
                raise
            except Exception:
                part.forget()
                raise

    found = insist(url, attempt)
    try:
        with replacing(path, kind, fix=fix, made=part.file):
            pass
    finally:
        part.forget()
    return found


def _attempt(
    url: str,
    part: _Partial,
    limit: int | None,
    rules: Rules,
    check: Callable[[Fetched], None],
    room: Callable[[int], None],
) -> Fetched:
    start, etag = part.state(url)
    try:
        answer = Answer(url, limit, rules, start, etag)
    except Stale:
        part.forget()
        raise
    with answer.closing_on_errors():
        room(answer.start + (answer.length or 0))
        digest, received = part.begin(url, answer.etag, answer.start), answer.start
        with part.file.open("ab") as file:
            for chunk in answer.chunks():
                received += len(chunk)
                if answer.length is None:
                    room(received)
                digest.update(chunk)
                file.write(chunk)
    found = Fetched(received, digest.hexdigest())
    check(found)
    return found


class _Partial:
    """The first bytes of a file that will be `path`, and a note beside them: which URL, which version."""

    def __init__(self, path: Path) -> None:
        self.file = path.with_name(f".{path.name}{PART}")
        self.note = path.with_name(f".{path.name}{PART}.json")

    def state(self, url: str) -> tuple[int, str]:
        """How many bytes are there, and the ETag of their version; 0 where nothing can go on."""
        try:
            note = json.loads(self.note.read_text(encoding="utf-8"))
            if note["url"] == url and isinstance(note["etag"], str) and not self.file.is_symlink():
                return self.file.stat().st_size, note["etag"]
        except (OSError, ValueError, TypeError, KeyError):
            pass
        self.forget()
        return 0, ""

    def begin(self, url: str, etag: str, start: int) -> hashlib._Hash:
        """Keep the first `start` bytes; their sha256, to be gone on with."""
        if start:
            with self.file.open("rb") as file:
                return digest_of(file)
        self.forget()
        if etag:
            self.note.write_text(json.dumps({"url": url, "etag": etag}), encoding="utf-8")
        return hashlib.sha256()

    def forget(self) -> None:
        """Remove both files."""
        self.note.unlink(missing_ok=True)
        self.file.unlink(missing_ok=True)
