"""The one hand that writes files: whole or not at all; and where data and caches live on disk."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import os
import platform
import re
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from zoo.errors import CheckpointError, DataError, TrainingError, ZooError

#: A temporary file younger than this, in seconds, may belong to a writer that is still at work.
ABANDONED_AFTER = 3600
_FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up"}


def write_whole(path: Path, content: bytes, kind: type[ZooError] = DataError) -> Path:
    """Write a file so that a reader sees the old content or the new, never half.

    Raises:
        `kind`: as `replacing`.
    """
    with replacing(path, kind) as temporary:
        temporary.write_bytes(content)
    return path


def write_text(path: Path, text: str, kind: type[ZooError] = TrainingError) -> Path:
    """`write_whole` for text, as UTF-8."""
    return write_whole(path, text.encode(), kind)


def digest_of(file: BinaryIO) -> hashlib._Hash:
    """sha256 over the rest of an open file, to be gone on with; `hashlib.file_digest` needs Python 3.11."""
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest


@contextmanager
def replacing(
    path: Path,
    kind: type[ZooError] = DataError,
    *,
    previous: Path | None = None,
    kept: str = "what was there is untouched",
    fix: str = "",
    made: Path | None = None,
) -> Iterator[Path]:
    """A temporary path beside `path` for the caller to fill; on success the disk has it and it becomes `path`.

    On any failure it is removed. Files that killed writers of `path` left are removed too.

    Args:
        kind: the error that a failing disk becomes.
        previous: where the file that is replaced goes; None lets it go.
        kept: what the error says is still there.
        fix: what the error says to do, where freeing space or checking the permissions is not all.
        made: the file that will become `path`, already filled; it stays on any failure.

    Raises:
        `kind`: the disk is full or cannot be written to. Errors of the zoo from the caller's block pass unchanged.
    """
    with disk_errors(path, kind, kept=kept, fix=fix):
        with _temporary(path) as temporary:
            temporary = made or temporary
            yield temporary
            _sync(temporary)
            if previous is not None and path.exists():
                os.replace(path, previous)
            os.replace(temporary, path)
        _sync(path.parent)


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """A name beside `path` for a file that is removed at the end, unless it was renamed."""
    remove_leftovers(path, older_than=ABANDONED_AFTER)
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextmanager
def replacing_vouched(
    path: Path, voucher: Path, kind: type[ZooError] = DataError, *, made: Path | None = None
) -> Iterator[tuple[Path, Path]]:
    """As `replacing` for a file and a second one that says that the first is finished: two temporary paths to fill.

    Both have reached the disk before either is replaced, so that a full disk leaves the old pair. `voucher` is gone
    while they change, so that a process killed then leaves no pair of which one is old.

    Args:
        made: the file that will become `path`, already filled; it stays on any failure.
    """
    with disk_errors(path, kind):
        with _temporary(path) as first, _temporary(voucher) as second:
            first = made or first
            yield first, second
            _sync(first)
            _sync(second)
            voucher.unlink(missing_ok=True)
            os.replace(first, path)
            os.replace(second, voucher)
        _sync(path.parent)


@contextmanager
def replacing_folder(folder: Path, kind: type[ZooError] = CheckpointError) -> Iterator[Path]:
    """A new folder beside `folder` for the caller to fill; on success it takes the place of `folder` in one step.

    On any failure it is removed and an older `folder` stays as it was.

    Raises:
        `kind`: the disk is full or cannot be written to. Errors of the zoo from the caller's block pass unchanged.
    """
    with disk_errors(folder, kind):
        folder.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder, older_than=ABANDONED_AFTER)
        fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        with disk_errors(folder, kind):
            fresh.chmod(0o755)
            yield fresh
            for path in [*fresh.rglob("*"), fresh]:
                _sync(path)
            _put(fresh, folder)
            _sync(folder.parent)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


@contextmanager
def disk_errors(
    target: Path, kind: type[ZooError] = DataError, *, kept: str = "what was there is untouched", fix: str = ""
) -> Iterator[None]:
    """Turn an OSError of writing `target` into a `kind` that says what is still there and what to do."""
    try:
        yield
    except ZooError:
        raise
    except OSError as error:
        full = error.errno in (*_FULL, errno.EFBIG)
        reason = _FULL.get(error.errno or 0) or error.strerror or str(error)
        fix = fix or ("free some space and try again" if full else "check the path and its permissions")
        raise kind(f"cannot write {target}: {reason}; {kept}; {fix}") from error


def remove_leftovers(path: Path, older_than: float = 0) -> None:
    """Remove what killed writers of `path` left behind.

    Args:
        older_than: seconds. Give 0 only while holding the lock of `path`: younger files may be in use.
    """
    name = re.escape(path.name)
    left = re.compile(rf"\.{name}\.\d+(-[0-9a-f]+)?\.tmp|\.{name}-(old-)?[a-z0-9_]{{8}}")
    with suppress(OSError):  # the folder does not exist yet, or another process removes the same files
        for leftover in [entry for entry in path.parent.iterdir() if left.fullmatch(entry.name)]:
            if time.time() - leftover.stat().st_mtime >= older_than:
                shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()


def _sync(path: Path) -> None:
    """Wait until the disk has a file or a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _put(fresh: Path, folder: Path) -> None:
    """Put `fresh` at `folder`; an older folder ends up under the name of `fresh`, for the caller to remove."""
    if not folder.exists():
        fresh.rename(folder)
    elif not _exchange(fresh, folder):
        aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-old-", dir=folder.parent))
        folder.rename(aside)
        try:
            fresh.rename(folder)
        except OSError:
            aside.rename(folder)
            raise
        shutil.rmtree(aside, ignore_errors=True)


def _exchange(a: Path, b: Path) -> bool:
    """Swap two paths in one step (Linux renameat2 with RENAME_EXCHANGE); False where that does not exist."""
    with suppress(AttributeError, OSError):
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
        here, exchange = -100, 2
        return renameat2(here, os.fsencode(a), here, os.fsencode(b), exchange) == 0
    return False


@contextmanager
def locked(path: Path, kind: type[ZooError] = DataError, busy: str = "") -> Iterator[None]:
    """Hold the lock that belongs to `path`, `NAME.lock` beside it; the system releases it if this process dies.

    Args:
        busy: what to say where another process holds the lock; empty waits for that process instead.

    Raises:
        `kind`: the lock is held (with `busy`), or the folder cannot be written to.
    """
    with hold(path.with_name(path.name + ".lock"), kind, busy):
        yield


@contextmanager
def hold(lock_file: Path, kind: type[ZooError] = DataError, busy: str = "") -> Iterator[None]:
    """`locked` with the lock file itself, which stays: removing it would let two processes hold two locks.

    Where nobody waits (`busy`), a second file says who holds it, as a waiting lock may empty the first one.
    """
    from filelock import FileLock

    holder = lock_file.with_name(lock_file.name + ".by")
    try:
        lock_file.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(lock_file, timeout=0 if busy else -1)
        lock.acquire()
    except TimeoutError:
        raise kind(busy + _held_by(holder)) from None
    except OSError as error:
        fix = "set ZOO_CACHE to another folder" if kind is DataError else "check the path and its permissions"
        raise kind(f"cannot write to {lock_file.parent}: {error.strerror or error}; {fix}") from None
    try:
        if busy:
            with suppress(OSError):  # only a help for others
                holder.write_text(f"process {os.getpid()} on {platform.node() or 'this machine'}", encoding="utf-8")
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _held_by(holder: Path) -> str:
    try:
        found = holder.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
    return f" (it is {found[:100]})" if found else ""


def is_held(lock_file: Path) -> bool:
    """Whether a process holds the lock at this moment; False where the file is not ours to write to."""
    from filelock import FileLock

    if not lock_file.exists():
        return False
    try:
        with FileLock(lock_file, timeout=0):
            return False
    except TimeoutError:
        return True
    except OSError:  # nobody who could hold it shares the folder with us
        return False


def cache_root(cache_dir: str | Path | None = None) -> Path:
    """Folder of everything that can be rebuilt: `cache_dir`, else $ZOO_CACHE, else ~/.cache/encoder-zoo."""
    return Path(cache_dir or os.environ.get("ZOO_CACHE") or "~/.cache/encoder-zoo").expanduser()


def data_root(root: str | Path | None = None) -> Path:
    """Folder of downloaded datasets: `root`, else $ZOO_DATA, else ~/.cache/encoder-zoo/data."""
    return Path(root or os.environ.get("ZOO_DATA") or "~/.cache/encoder-zoo/data").expanduser()


def make_folder(folder: Path) -> Path:
    """Create `folder`; DataError with the way out where that is not allowed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"cannot create the cache folder {folder} ({error.strerror}); set ZOO_CACHE to a folder you can write to"
        ) from None
    return folder


def write_cache(path: Path, content: bytes) -> None:
    """`write_whole` for what can be made again: a full or read-only cache costs time, never the answer."""
    with contextlib.suppress(DataError):
        write_whole(make_folder(path.parent) / path.name, content)
