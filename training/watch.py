"""When a run saves and stops: decided by one clock and any signal, and told to all processes at the same step."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator
from typing import Any

from training import distributed

#: About how many seconds may pass until all processes know of a signal, a time limit or a save that is due.
PATIENCE = 1.0
#: At most this many steps may pass.
MOST_STEPS = 50


class Stopped(Exception):
    """The run was asked to stop (Ctrl-C, SIGTERM, time limit) and has saved its state."""


class Watch:
    """Asks after every step whether to save and whether to stop.

    Signals reach one process, and each has its own clock; but saving and stopping lead to collectives, which all must
    enter at the same step. So one process answers alone, and of many all get the answer of one collective: a stop that
    any of them wants, a save that the main process finds due, and the step at which they ask again, which is chosen by
    the main process so that fast steps are not slowed down and slow ones do not delay a stop.

    Args:
        step: at which the run starts. minutes: time limit, None for none. save_minutes: between two saves.
    """

    def __init__(self, step: int, minutes: float | None, save_minutes: float) -> None:
        self.reason: str | None = None
        self._started = self._saved = time.monotonic()
        self._deadline = None if minutes is None else self._started + 60 * minutes
        self._save_seconds = 60 * save_minutes
        self._first, self._next = step, step + 1

    def ask(self, step: int) -> tuple[str | None, bool]:
        """After `step` steps: why to stop, or None; and whether to save. Equal on every process."""
        now = time.monotonic()
        if self.reason is None and self._deadline is not None and now > self._deadline:
            self.reason = "time limit reached"
        save = now - self._saved > self._save_seconds
        if distributed.world_size() == 1:
            stop = self.reason
        else:
            if step < self._next:
                return None, False
            seconds = (now - self._started) / max(1, step - self._first)
            pause = max(1, min(MOST_STEPS, int(PATIENCE / max(seconds, 1e-6))))
            votes = [int(self.reason is not None), *([int(save), pause] if distributed.is_main() else [0, 0])]
            wanted, saves, pause = distributed.all_reduce_max(votes)
            stop, save, self._next = self.reason, bool(saves), step + pause
            if wanted and stop is None:
                stop = "another process was asked to stop"
        if save:
            self._saved = now
        return stop, save

    @contextlib.contextmanager
    def signals(self) -> Iterator[None]:
        """Ctrl-C and SIGTERM become a stop after the step.

        The first step of a process may take minutes (compilation, a search of second order), and nothing of it is worth
        saving, so it is left at once. A second signal raises KeyboardInterrupt wherever the run is.
        """

        def ask(number: int, frame: Any) -> None:
            if self.reason is not None:
                raise KeyboardInterrupt
            self.reason = f"{signal.Signals(number).name} received"
            if self._in_first_step:
                raise Stopped(self.reason)

        old = {}
        with contextlib.suppress(ValueError):  # only the main thread may install handlers
            for number in (signal.SIGINT, signal.SIGTERM):
                old[number] = signal.signal(number, ask)
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)

    _in_first_step = False

    @contextlib.contextmanager
    def first_step(self) -> Iterator[None]:
        """Around the first step of this process.

        Raises:
            Stopped: a signal came meanwhile.
        """
        if self.reason is not None:
            raise Stopped(self.reason)
        self._in_first_step = True
        try:
            yield
        except Exception as error:
            # torch.compile may turn the exception of a signal into one of its own.
            if self.reason is not None and not isinstance(error, Stopped):
                raise Stopped(self.reason) from None
            raise
        finally:
            self._in_first_step = False
