"""How fast a host must answer: counted by a clock of the test, so that no test waits or depends on the machine."""

from __future__ import annotations

import pytest

from zoo.errors import HubError
from zoo.network.connection import HEAD_BYTES, PATIENCE, SLOWEST, TIMEOUT, Pace, Slow


class Clock:
    """Seconds that pass only when the test says so."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now

    def reading(self, count: int, seconds: float):
        """A read of `count` bytes that took `seconds`."""

        def read() -> int:
            self.now += seconds
            return count

        return read


@pytest.fixture
def clock():
    return Clock()


def test_headers_that_trickle(clock):
    pace = Pace(1 << 20, clock)
    with pytest.raises(Slow, match="no whole answer"):
        for _ in range(1000):
            pace.receive(clock.reading(1, TIMEOUT - 1))
    assert pace.waited <= PATIENCE + TIMEOUT


def test_headers_without_end(clock):
    pace = Pace(1 << 20, clock)
    with pytest.raises(HubError, match="before any file"):
        for _ in range(1000):
            pace.receive(clock.reading(1 << 16, 0))
    assert pace.before_body <= HEAD_BYTES + (1 << 16)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.97, 0.999])
def test_a_body_that_trickles_after_a_good_start(clock, share):
    size = 100 << 20
    pace = Pace(size, clock)
    pace.begin_body()
    for _ in range(int(share * size) >> 16):
        pace.receive(clock.reading(1 << 16, 0.001))
    good = pace.waited
    with pytest.raises(Slow, match="slower than"):
        for _ in range(100_000):
            pace.receive(clock.reading(1, 0.9))
    assert pace.waited - good <= 2 * PATIENCE


def test_framing_without_a_body_ends_at_the_deadline(clock):
    """Chunk lengths and trailers come fast enough, but no file comes of them."""
    pace = Pace(1 << 20, clock)
    pace.begin_body()
    with pytest.raises(Slow, match="not done after"):
        for _ in range(100_000):
            pace.receive(clock.reading(3 * SLOWEST, 1.0))
    assert pace.waited <= 2 * PATIENCE + (1 << 20) / SLOWEST + 1


def test_a_slow_but_steady_host_and_a_slow_disk_of_ours_are_fine(clock):
    pace = Pace(10 << 20, clock)
    pace.receive(clock.reading(500, PATIENCE - 1))
    pace.begin_body()
    for _ in range(600):
        pace.receive(clock.reading(2 * SLOWEST, 1.0))
        clock.now += 500  # what the caller does with the bytes
    assert pace.receive(clock.reading(0, 5.0)) == 0, "the end is no trickle"
    assert len(pace.seconds) < PATIENCE + 3


def test_a_file_of_unknown_size_has_no_deadline_but_a_speed(clock):
    pace = Pace(None, clock, patience=60)
    pace.receive(clock.reading(500, 50.0))
    pace.begin_body()
    for _ in range(100_000):
        pace.receive(clock.reading(2 * SLOWEST, 1.0))
    with pytest.raises(Slow, match="slower than"):
        for _ in range(1000):
            pace.receive(clock.reading(1, 0.9))
    late = Pace(None, clock, patience=60)
    with pytest.raises(Slow, match="no whole answer within 60 s"):
        late.receive(clock.reading(1, 61.0))
