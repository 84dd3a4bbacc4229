"""Timers that go off when a fake clock passes them."""

import asyncio
from collections.abc import Callable

from tests.support.clock import FakeClock


class FakeTimer(asyncio.TimerHandle):
    """What the event loop's `call_later` returns, without an event loop."""

    def __init__(self, when: float, callback: Callable[[], None]) -> None:
        super().__init__(when, callback, (), asyncio.get_running_loop())


class FakeTimers:
    """`call_later` on a fake clock."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self._timers: list[FakeTimer] = []
        self.made = 0
        """How many there have been."""

    def call_later(self, delay: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        timer = FakeTimer(self.clock.now() + delay, callback)
        self._timers.append(timer)
        self.made += 1
        return timer

    @property
    def waiting(self) -> int:
        """How many timers have not gone off."""
        return sum(not timer.cancelled() for timer in self._timers)

    async def advance(self, seconds: float, step: float = 0.5) -> None:
        """Let time pass in steps; tasks run in between."""
        end = self.clock.now() + seconds
        while self.clock.now() < end:
            self.clock.advance(min(step, end - self.clock.now()))
            await self.fire()

    async def fire(self) -> None:
        """Let what is due go off, and tasks run."""
        due = [timer for timer in self._timers if not timer.cancelled() and timer.when() <= self.clock.now()]
        self._timers = [timer for timer in self._timers if timer not in due and not timer.cancelled()]
        for timer in due:
            timer._run()
        await settle()


async def settle() -> None:
    """Let all tasks run until they wait for something."""
    for _ in range(10):
        await asyncio.sleep(0)
