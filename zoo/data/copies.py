"""Whole copies of remote shards in the cache folder, as many as a bound allows: the least recently used one leaves.

`ZOO_COPIES_GB` is the bound, in gigabytes; without it copies stay. Processes of one machine share the folder. Whoever
reads a copy holds a shared lock on `NAME.use` meanwhile, and only a copy whose lock can be had alone is removed. With a
bound, one process at a time fills the folder (`filling.lock`), so that the sizes that it adds up are right. Beside a
copy lies `NAME.json`, which stays when the copy leaves: size and sha256 of the shard. A copy that is fetched again must
be the same file.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from zoo.data.remote import FIX, PIPE, check, file_name, get
from zoo.errors import ChangedError, DataError
from zoo.files import cache_root, digest_of, is_held, locked, make_folder, write_whole
from zoo.network.fetching import PART, Fetched

VARIABLE = "ZOO_COPIES_GB"
#: How often and how long, in seconds, to wait for others to end reading copies that should leave.
TRIES, PAUSE = 600, 0.1
GB = 1e9
_COPY = re.compile(r"[0-9a-f]{16}-.*(?<!\.json)(?<!\.lock)(?<!\.use)")
_PART = re.compile(rf"\.([0-9a-f]{{16}}-.*){re.escape(PART)}")
_log = logging.getLogger(__name__)


def bound() -> int | None:
    """Bytes that all copies together may have; None for any number. Raises DataError for what is no number."""
    text = os.environ.get(VARIABLE, "").strip()
    if not text:
        return None
    try:
        size = round(float(text) * GB)
    except (ValueError, OverflowError):
        size = 0
    if size <= 0:
        raise DataError(f"{VARIABLE}={text!r} is no size; write gigabytes as in {VARIABLE}=200, or unset it")
    return size


@dataclass(frozen=True)
class Copy:
    """A remote shard: its address, and where its copy lies while there is one."""

    address: str
    path: Path

    @classmethod
    def of(cls, address: str) -> Copy:
        """Raises as `zoo.data.remote.check`."""
        check(address)
        return cls(address, Path(os.path.abspath(cache_root() / "copies" / file_name(address))))

    @contextlib.contextmanager
    def used(self, sha256: str = "") -> Iterator[Path]:
        """The path of the copy, which is fetched if it is not there, and stays while the block runs.

        Args:
            sha256: of the shard as it was first seen; empty takes any.

        Raises:
            ChangedError: it is another file now. HubError, DataError: it cannot be fetched, or there is no room.
        """
        limit = bound()
        with contextlib.ExitStack() as held:
            held.enter_context(_shared(self.path))
            facts = self._here()
            if facts is None:
                held.close()  # whoever makes room meanwhile must not wait for one who waits for him
                folder = make_folder(self.path.parent)
                with contextlib.nullcontext() if limit is None else locked(folder / "filling"):
                    held.enter_context(_shared(self.path))
                    facts = self._fetched(limit)
            if sha256 and facts.sha256 != sha256:
                raise ChangedError(f"{self.address} was replaced while its samples were read; open the shards again")
            with contextlib.suppress(OSError):  # a cache that is not ours to write to still serves
                os.utime(self.path, ns=(time.time_ns(),) * 2)
            yield self.path

    def facts(self) -> Fetched:
        """Size and sha256 of the shard, without a copy where they are known. Raises as `used`."""
        known = self._known()
        if known is None:
            with self.used():
                known = self._known()
        assert known is not None
        return known

    def is_here(self) -> bool:
        """Whether the copy lies in the cache at this moment."""
        return self._here() is not None

    def is_known(self) -> bool:
        """Whether size and hash of the shard are known, be its copy there or not."""
        return self._known() is not None

    @property
    def _record(self) -> Path:
        return self.path.with_name(self.path.name + ".json")

    def _known(self) -> Fetched | None:
        try:
            found = json.loads(self._record.read_text(encoding="utf-8"))
            return Fetched(int(found["bytes"]), str(found["sha256"])) if found["address"] == self.address else None
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def _here(self) -> Fetched | None:
        """What is known of the shard if its copy is there, whole."""
        known = self._known()
        try:
            return known if known is not None and os.stat(self.path).st_size == known.bytes else None
        except OSError:
            return None

    def _fetched(self, limit: int | None) -> Fetched:
        """Fetch the copy; the caller holds it in use, and with a limit is the only one who fills the folder."""
        with locked(self.path):
            if (found := self._here()) is not None:
                return found
            known = self._known()
            if known is None and self.path.is_file():  # of a version that kept no record
                return self._recorded(_facts_of(self.path))
            self.path.unlink(missing_ok=True)

            def verify(fetched: Fetched) -> None:
                if known is not None and fetched != known:
                    raise ChangedError(
                        f"{self.address} is another file now ({fetched.bytes:,} bytes, sha256 {fetched.sha256[:12]}...)"
                        f" than when it was first copied ({known.bytes:,} bytes, {known.sha256[:12]}...); delete "
                        f"{self._record} to take the new one, and open the shards again"
                    )

            return self._recorded(get(self.address, self.path, verify, _Room(self, limit).need))

    def _recorded(self, facts: Fetched) -> Fetched:
        write_whole(self._record, json.dumps({"address": self.address, **asdict(facts)}).encode())
        return facts


class _Room:
    """Space for one more copy, made by removing those that were used longest ago.

    Args:
        copy: that will be written. limit: bytes of all copies together, None for any number.
    """

    def __init__(self, copy: Copy, limit: int | None) -> None:
        self.copy, self.limit, self.asked = copy, limit, False
        self.others = math.inf  # bytes of the other copies, once they were looked at

    def need(self, size: int) -> None:
        """Make room for a file of `size` bytes. Raises DataError where there is none."""
        folder, first = self.copy.path.parent, not self.asked
        self.asked = True
        if self.limit is not None and size > self.limit:
            whole = first and not self.copy.address.startswith(PIPE)
            raise DataError(
                f"{self.copy.address} has {_gb(size)}{'' if whole else ' or more'}, and {VARIABLE}={_asked()} allows "
                f"{_gb(self.limit)} for all copies together; set it to several times the largest shard"
            )
        if self.limit is not None and self.others + size > self.limit:
            self._make(size, self.limit)
        if first:
            part = self.copy.path.with_name(f".{self.copy.path.name}{PART}")
            free, there = shutil.disk_usage(folder).free, part.stat().st_size if part.exists() else 0
            if size - there > free:
                raise DataError(f"{self.copy.address} has {_gb(size)}, but {folder} has {free / GB:.1f} GB free; {FIX}")

    def _make(self, size: int, limit: int) -> None:
        for _ in range(TRIES):
            copies = sorted(_copies(self.copy.path))
            self.others = sum(each for _, each, _ in copies)
            for _, each, path in copies:
                if self.others + size > limit and _remove(path):
                    self.others -= each
            if self.others + size <= limit:
                return
            time.sleep(PAUSE)
        raise DataError(
            f"{self.copy.address} needs {_gb(size)}, but copies of {_gb(self.others)} are being read, and "
            f"{VARIABLE}={_asked()} allows no more; raise it, or read with fewer processes"
        )


def _copies(but: Path) -> Iterator[tuple[int, int, Path]]:
    """(time of last use in ns, bytes, path) of what copies lie beside `but`, partial files among them."""
    with os.scandir(but.parent) as entries:
        for entry in entries:
            part = _PART.fullmatch(entry.name)
            name = part[1] if part else entry.name
            if name == but.name or not (part or _COPY.fullmatch(entry.name)):
                continue
            with contextlib.suppress(OSError):
                stat = entry.stat()
                yield 0 if part else stat.st_mtime_ns, stat.st_size, Path(entry.path)


def _remove(path: Path) -> bool:
    """Remove a copy that nobody reads, or a partial file that nobody writes; whether it is gone."""
    part = _PART.fullmatch(path.name)
    if part:
        if is_held(path.with_name(part[1] + ".lock")):
            return False
        path.with_name(path.name + ".json").unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        return True
    with _alone(path) as free:
        if free:
            try:
                path.unlink(missing_ok=True)
            except OSError:  # systems without shared locks refuse it while the file is open
                return False
        return free


@contextlib.contextmanager
def _shared(path: Path) -> Iterator[None]:
    """Hold the copy at `path` in use; the system lets go of it if this process dies."""
    make_folder(path.parent)
    try:
        descriptor = _use_file(path)
    except OSError:  # a cache that is not ours to write to: nobody who shares it with us removes anything
        yield
        return
    try:
        _lock(descriptor, shared=True)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[bool]:
    """Whether nobody holds the copy at `path` in use; nobody will while the block runs."""
    descriptor = _use_file(path)
    try:
        yield _lock(descriptor, shared=False)
    finally:
        os.close(descriptor)


def _use_file(path: Path) -> int:
    return os.open(path.with_name(path.name + ".use"), os.O_RDWR | os.O_CREAT, 0o666)


def _lock(descriptor: int, shared: bool) -> bool:
    """Wait for a lock that others share, or try for one that nobody else has; whether it was had."""
    try:
        import fcntl
    except ImportError:  # Windows lets nobody remove a file that is open
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH if shared else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def announce(missing: Sequence[Copy]) -> None:
    """Say how many shards are fetched now."""
    if missing:
        folder, limit = make_folder(missing[0].path.parent), bound()
        kept = "" if limit is None else f", {VARIABLE} keeps at most {limit / GB:g} GB"
        _log.warning(
            "copying %d shards to %s first, as they cannot be sought where they are; %.1f GB are free there%s",
            len(missing), folder, shutil.disk_usage(folder).free / GB, kept,
        )  # fmt: skip


def _facts_of(path: Path) -> Fetched:
    with path.open("rb") as file:
        return Fetched(os.path.getsize(path), digest_of(file).hexdigest())


def _asked() -> str:
    return os.environ.get(VARIABLE, "")


def _gb(size: float) -> str:
    return f"{size / GB:.1f} GB" if size >= 0.1 * GB else f"{size / 1e6:.3g} MB"
