"""The one hand that writes files: whole or not at all; and where data and caches live on disk."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import secrets
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from zoo.errors import CheckpointError, DataError, TrainingError


def write_whole(path: Path, content: bytes) -> Path:
    with replacing(path) as temporary:
        temporary.write_bytes(content)
    return path


def write_text(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old text or the new, never half."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise TrainingError(f"cannot write {path}: {error}") from None


def _replace(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise disk_error(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def disk_error(path: Path, error: OSError, kept: str = "nothing was replaced") -> DataError:
    """What to tell a person when writing `path` failed."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    reason = "the disk is full" if full else str(error)
    return DataError(f"cannot write {path}: {reason}; {kept}. Free some space or choose another place")


def _remove_leftovers(path: Path) -> None:
    """Remove what killed writers of `path` left; recent ones may belong to a writer that is still at work."""
    if not path.exists():
        return
    for leftover in path.parent.glob(f".{path.name}[-.]*"):
        with suppress(FileNotFoundError):
            if time.time() - leftover.stat().st_mtime > 3600:
                shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()


@contextmanager
def disk_errors(target: Path) -> Iterator[None]:
    """Turn an OSError of writing `target` into a CheckpointError with its fix."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        fix = "free some space and write it again" if full else "check the path and its permissions"
        raise CheckpointError(
            f"{target} could not be written ({error.strerror or error}); what was there is untouched; {fix}"
        ) from error


def write_synced(path: Path, content: bytes) -> None:
    """Write a file and wait until the disk has it. Raises OSError."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_folder(fresh: Path, folder: Path) -> None:
    """Put `fresh` at `folder`; an older folder ends up under the name of `fresh`, for the caller to remove."""
    _sync_folder(fresh)
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
    _sync_folder(folder.parent)


def _exchange(a: Path, b: Path) -> bool:
    """Swap two paths in one step (Linux renameat2 with RENAME_EXCHANGE); False where that does not exist."""
    with suppress(AttributeError, OSError):
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
        here, exchange = -100, 2
        return renameat2(here, os.fsencode(a), here, os.fsencode(b), exchange) == 0
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


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, renamed to it on success and removed on any failure."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(path: Path) -> None:
    """Remove what killed writers of `path` left behind; call it only while holding the lock of `path`."""
    for leftover in path.parent.glob(f".{path.name}.*.tmp"):
        leftover.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock that belongs to `path`; the system releases it if this process dies."""
    from filelock import FileLock

    make_folder(path.parent)
    try:
        lock = FileLock(path.with_name(path.name + ".lock"))
        lock.acquire()
    except OSError as error:
        raise DataError(f"cannot write to {path.parent} ({error.strerror}); set ZOO_CACHE to another folder") from None
    try:
        yield
    finally:
        lock.release()


def workers() -> int:
    """Threads for reading and decoding: the cores this process may use, at most 16."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(16, cores)


#: Below this many seconds per sample, threads cost more (handing over the interpreter lock) than they bring.
WORTH_THREADS = 4e-4


def chunks_in_order(work: Callable[[range], Any], total: int, chunk: int = 64) -> Iterator[Any]:
    """`work(range)` over consecutive ranges of 0..total, results in order and few of them waiting.

    Runs in threads, since reading, decoding and hashing release the interpreter lock, unless the
    first range shows that the samples are tiny.
    """
    ranges = [range(start, min(start + chunk, total)) for start in range(0, total, chunk)]
    started = time.perf_counter()
    first = work(ranges[0])
    tiny = time.perf_counter() - started < WORTH_THREADS * len(ranges[0])
    yield first
    if tiny or workers() == 1:
        yield from map(work, ranges[1:])
    else:
        yield from _threaded(work, ranges[1:])


def _threaded(work: Callable[[range], Any], ranges: list[range]) -> Iterator[Any]:
    from concurrent.futures import ThreadPoolExecutor

    count = workers()
    with ThreadPoolExecutor(count) as pool:
        pending: deque[Any] = deque()
        try:
            for piece in ranges:
                pending.append(pool.submit(work, piece))
                # A bounded window: a disk slower than the decoders must not fill the memory.
                if len(pending) > 2 * count:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            for future in pending:
                future.cancel()
