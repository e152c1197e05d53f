"""A disk that is full from its n-th write on, for files in one folder."""

from __future__ import annotations

import builtins
import errno
import io
import os
import pathlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from zoo.errors import ZooError


class FullDisk:
    """Counts each `write` to files under `folder` and each `os.fsync`; from a chosen call on they raise ENOSPC.

    Files are opened through a thin cover that is no file of the system, so that numpy and torch write through it too.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.monkeypatch = os.fspath(folder), monkeypatch
        self.calls, self.fails_at = 0, 0

    def count(self) -> None:
        """One more write; raises if the disk is full by now."""
        self.calls += 1
        if self.fails_at and self.calls >= self.fails_at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def run(self, fails_at: int, action: Callable[[], Any]) -> None:
        """`action` on a disk that is full from the `fails_at`-th write on."""
        self.calls, self.fails_at = 0, fails_at
        real, sync = io.open, os.fsync

        def covered(file: Any, mode: str = "r", *arguments: Any, **options: Any) -> Any:
            opened = real(file, mode, *arguments, **options)
            if isinstance(file, int) or not set(mode) & set("wax+") or not os.fspath(file).startswith(self.folder):
                return opened
            return _Cover(opened, self)

        with self.monkeypatch.context() as patch:
            patch.setattr(builtins, "open", covered)
            patch.setattr(io, "open", covered)
            if hasattr(pathlib, "_NormalAccessor"):  # Python 3.10 took `io.open` when pathlib was imported
                patch.setattr(pathlib._NormalAccessor, "open", staticmethod(covered))
            patch.setattr(os, "fsync", lambda descriptor: (self.count(), sync(descriptor))[1])
            action()

    def at_each_moment(self, action: Callable[[], Any], kind: type[ZooError], check: Callable[[], Any]) -> int:
        """Run `action` with the disk full from the first write on, then the second, until it succeeds.

        Each failure must be one line of `kind` that says that the disk is full; `check` looks at what is left.

        Returns:
            How often it failed.
        """
        for fails_at in range(1, 200):
            try:
                self.run(fails_at, action)
            except kind as error:
                assert re.search("the disk is full", str(error)) and "\n" not in str(error), str(error)
                check()
            else:
                assert self.calls < fails_at, "the disk was full, but nobody said so"
                return fails_at - 1
        raise AssertionError("still failing after 200 writes")


class _Cover:
    def __init__(self, file: Any, disk: FullDisk) -> None:
        self._file, self._disk = file, disk

    def write(self, data: Any) -> int:
        self._disk.count()
        return self._file.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> _Cover:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
