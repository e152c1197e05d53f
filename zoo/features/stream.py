"""Streaming extraction: a part file that can be killed and resumed at any moment, filled by one process or many."""

from __future__ import annotations

import atexit
import io
import logging
import os
import shutil
import zlib
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import torch
import torch.distributed as dist

from zoo.errors import ChangedError, DataError
from zoo.features.table import FeatureTable, part_path, sidecar_of, sidecar_path
from zoo.files import disk_errors, hold, replacing_vouched

if TYPE_CHECKING:
    from zoo.features.run import Run

_log = logging.getLogger(__name__)


class PartFile:
    """An unfinished `(N, D)` float32 `.npy` and the journal of its finished batches.

    The journal is the 32 bytes of the table's `origin`, then 8 bytes per batch: zero, or
    a flag with the CRC-32 of the batch. A batch counts as done only if its bytes still have that
    CRC, so neither a kill nor a power cut can pass off half-written rows as features.

    Plain writes, not a memory map: a full disk is then an error instead of a SIGBUS, and
    written pages do not count as memory of the process.
    """

    def __init__(self, path: Path, shape: tuple[int, int], batch_size: int) -> None:
        self.path, self.part, self.journal = path, part_path(path), part_path(path).with_suffix(".journal")
        self.shape, self.batch_size = shape, batch_size
        self._header = _npy_header(shape)

    def start(self, origin: str, resume: bool) -> bool:
        """Make the files or take up those of an earlier run; False if that run does not fit and was thrown away.

        Raises:
            DataError: the folder cannot be written to, or the disk has not enough free space.
        """
        digest = bytes.fromhex(origin)
        known = self.journal.read_bytes()[:32] if self.journal.exists() else None
        if resume and known == digest and not self.part.exists() and self.path.exists():
            os.replace(self.path, self.part)  # killed between the renaming and the sidecar
        if resume and known == digest and self._header_is_whole():
            return True
        self.discard()
        needed = len(self._header) + 4 * self.shape[0] * self.shape[1]
        with disk_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self.path.parent).free
            if needed > free:
                raise DataError(
                    f"{self.path}: {self.shape[0]} x {self.shape[1]} float32 features take {needed / 1e9:.1f} GB, "
                    f"the disk has {free / 1e9:.1f} GB free"
                )
            self.part.write_bytes(self._header)
            self.journal.write_bytes(digest + bytes(8 * -(-self.shape[0] // self.batch_size)))
        return known is None or not resume

    def done(self, batches: Iterable[int]) -> set[int]:
        """Those of `batches` that are written and whole."""
        finished = set()
        with open(self.part, "rb") as part, open(self.journal, "rb") as journal:
            for batch in batches:
                journal.seek(32 + 8 * batch)
                mark = int.from_bytes(journal.read(8), "little")
                if mark and mark == _mark(self._read(part, batch)):
                    finished.add(batch)
        return finished

    def write(self, batch: int, features: np.ndarray) -> None:
        """Store a batch, then mark it as done.

        Raises:
            DataError: the write failed; batches marked before it are kept.
        """
        data = np.ascontiguousarray(features, dtype="<f4").tobytes()
        with disk_errors(self.path, kept=f"progress is kept in {self.part.name} and the same command resumes"):
            _write_at(self.part, self._offset(batch), data)
            _write_at(self.journal, 32 + 8 * batch, _mark(data).to_bytes(8, "little"))

    def finish(self, sidecar: bytes) -> None:
        """Make the part file durable and give it its final name, beside `sidecar`; the journal stays until `discard`.

        Raises:
            DataError: the disk is full; an older table and the part file stay as they are.
        """
        with replacing_vouched(self.path, sidecar_path(self.path), made=self.part) as (_, beside):
            beside.write_bytes(sidecar)

    def discard(self) -> None:
        """Remove part file and journal, where they exist."""
        self.part.unlink(missing_ok=True)
        self.journal.unlink(missing_ok=True)

    def _header_is_whole(self) -> bool:
        if not self.part.exists():
            return False
        with open(self.part, "rb") as file:
            return file.read(len(self._header)) == self._header

    def _offset(self, batch: int) -> int:
        return len(self._header) + 4 * self.shape[1] * self.batch_size * batch

    def _read(self, part: BinaryIO, batch: int) -> bytes:
        rows = min(self.batch_size, self.shape[0] - batch * self.batch_size)
        part.seek(self._offset(batch))
        return part.read(4 * self.shape[1] * rows)


def _mark(data: bytes) -> int:
    return 1 << 32 | zlib.crc32(data)


def _write_at(path: Path, offset: int, data: bytes) -> None:
    with open(path, "rb+", buffering=0) as file:
        file.seek(offset)
        view = memoryview(data)
        while view:
            view = view[file.write(view) :]


def _npy_header(shape: tuple[int, int]) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def extract_to(run: Run, path: Path, resume: bool, wait: bool = False) -> FeatureTable:
    """`zoo.extract` with `out`: fill the part file of `path`, over all ranks, and give it its name when complete.

    `wait`: where another process extracts into the same file, wait for it; else that is a DataError at once.
    """
    rank, world = _ranks()
    # Read first: a finished table may lie in a folder that nobody can write to.
    if not _any(world, rank == 0 and not (resume and _is_finished(run, path))):
        return FeatureTable.load(path)
    busy = f"another process is extracting into {path}; wait until it ends, or choose another place"
    with ExitStack() as held:
        lock = hold(path.with_name(f".{path.name}.lock"), busy="" if wait else busy)
        _together(world, lambda: held.enter_context(lock) if rank == 0 else None)
        return _extract(run, path, resume, rank, world)


def _extract(run: Run, path: Path, resume: bool, rank: int, world: int) -> FeatureTable:
    part = PartFile(path, (len(run.data), run.width), run.batch_size)
    mine = np.array_split(np.arange(run.batches), world)[rank].tolist()
    origin = _together(world, lambda: _begin(run, part, resume) if rank == 0 else "")
    if _any(world, rank == 0 and not origin):
        return FeatureTable.load(path)

    def work() -> None:
        done = part.done(mine)
        before = sum(len(run.span(batch)) for batch in done)
        if before:
            _log.info("%s: resuming, %d samples are done", path, before)
        try:
            run.compute([batch for batch in mine if batch not in done], part.write, before)
        except ChangedError:
            part.discard()  # nobody knows which of the batches are of the files that the fingerprint is of
            raise

    _together(world, work)
    _together(world, lambda: _finish(run, part, origin) if rank == 0 else None)
    return FeatureTable.load(path)


def _begin(run: Run, part: PartFile, resume: bool) -> str:
    """Prepare the part file; the hash of what the features are made from, or "" if they are finished already."""
    origin = run.origin
    if resume and _is_finished(run, part.path):
        return ""
    if not part.start(origin, resume):
        _log.warning(
            "%s: the unfinished extraction there was made from other weights, data, preprocessing, precision "
            "or batch size; starting over",
            part.path,
        )
    return origin


def _is_finished(run: Run, path: Path) -> bool:
    if not path.exists():
        return False
    try:
        return FeatureTable.load(path).origin == run.origin
    except DataError:
        _log.info("%s is not a finished feature table and will be replaced", path)
        return False


def _finish(run: Run, part: PartFile, origin: str) -> None:
    try:
        table = run.table(np.load(part.part, mmap_mode="r", allow_pickle=False), origin)
    except DataError:  # rows of files that were replaced must not be taken up again
        part.discard()
        raise
    if part.path.suffix == ".npy":
        part.finish(sidecar_of(table))
    else:
        table.save(part.path)
    part.discard()


def _ranks() -> tuple[int, int]:
    """(rank, world size), joining the group that torchrun prepared."""
    if not dist.is_available():
        return 0, 1
    if not dist.is_initialized() and int(os.environ.get("WORLD_SIZE", 1)) > 1 and "RANK" in os.environ:
        # Ranks meet only at the ends: the slowest may be far behind.
        dist.init_process_group("gloo", timeout=timedelta(days=1))
        atexit.register(_leave)
    return (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)


def _leave() -> None:
    """Leave the group that `_ranks` joined: threads of Gloo that outlive Python abort the process now and then."""
    if dist.is_initialized():
        dist.destroy_process_group()


def _any(world: int, flag: bool) -> bool:
    """Whether `flag` is set on any rank; all ranks wait for each other."""
    if world == 1:
        return flag
    total = torch.tensor(int(flag), device="cuda" if dist.get_backend() == "nccl" else "cpu")
    dist.all_reduce(total, dist.ReduceOp.MAX)
    return bool(total)


def _together(world: int, work: Callable[[], Any]) -> Any:
    """Run `work` on all ranks; where one fails, all raise, so that none waits for it without end."""
    failure, result = None, None
    try:
        result = work()
    except Exception as error:
        failure = error
    if _any(world, failure is not None):
        raise failure or DataError("another rank failed; its own message says why")
    return result
