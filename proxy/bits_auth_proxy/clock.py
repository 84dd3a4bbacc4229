"""Clocks that keep running while the machine sleeps.

`time.monotonic()` stops while a laptop sleeps or a VM is paused (CLOCK_MONOTONIC on Linux), so a token would
look fresh hours after it expired. CLOCK_BOOTTIME runs on. On macOS, CLOCK_MONOTONIC itself counts sleep,
while `time.monotonic()` reads a clock that does not.
"""

import time
from functools import partial
from typing import Final, Protocol

_BOOT_CLOCK: Final[int] = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Clock(Protocol):
    """The two readings of time that the proxy uses."""

    def now(self) -> float:
        """Return the seconds since an arbitrary moment. They never go back, and they count sleep."""
        ...

    def wall(self) -> float:
        """Return the seconds since the Unix epoch, for people and metrics. They may jump either way."""
        ...


class SystemClock:
    """The machine's clocks."""

    __slots__ = ("now", "wall")

    def __init__(self) -> None:
        # Every request reads the clock several times, so there is no Python function in between.
        self.now = partial(time.clock_gettime, _BOOT_CLOCK)
        self.wall = time.time
