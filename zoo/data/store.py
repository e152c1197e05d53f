"""Where data and caches live on disk, and how files are written so that a crash or a second process does no harm."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from zoo.errors import DataError


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
