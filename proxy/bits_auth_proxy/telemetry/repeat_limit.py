"""Keeps repeated log lines from flooding the log."""

from collections.abc import Callable
from typing import Final, Protocol

from bits_auth_proxy.clock import Clock

WINDOW: Final = 10.0
"""Seconds over which lines of one kind are counted."""
BURST: Final = 5
"""The number of lines of one kind that pass within that time."""
_SOONEST: Final = 0.1


class Timer(Protocol):
    """The handle that `call_later` returns."""

    def cancel(self) -> object:
        """Make sure that the timer does not fire."""
        ...


class _Window:
    __slots__ = ("count", "ends")

    def __init__(self, ends: float) -> None:
        self.ends = ends
        self.count = 0


class RepeatLimit:
    """Lets BURST lines of a kind pass per WINDOW and reports how many it held back.

    A kind is a pair: an event's name and whatever distinguishes its lines. Both must be bounded in number.
    """

    __slots__ = ("_call_later", "_clock", "_report", "_timer", "_windows")

    def __init__(
        self,
        *,
        clock: Clock,
        call_later: Callable[[float, Callable[[], None]], Timer],
        report: Callable[[str, str, int], None],
    ) -> None:
        """`report` takes event, kind and count, once for each window in which lines were held back."""
        self._clock = clock
        self._call_later = call_later
        self._report = report
        self._windows: dict[tuple[str, str], _Window] = {}
        self._timer: Timer | None = None

    def admits(self, event: str, kind: str) -> bool:
        """Return whether a line of this event and kind may be written now."""
        key = (event, kind)
        now = self._clock.now()
        window = self._windows.get(key)
        if window is None or now >= window.ends:
            if window is not None:
                self._close(key, window)
            window = self._windows[key] = _Window(now + WINDOW)
        window.count += 1
        if window.count <= BURST:
            return True
        if self._timer is None:
            self._timer = self._call_later(window.ends - now, self._expire)
        return False

    def flush(self) -> None:
        """Report everything that has been held back. For shutdown."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for key, window in self._windows.items():
            self._close(key, window)
        self._windows.clear()

    def _expire(self) -> None:
        """Close the windows that are over, and set the timer again for those with something to report."""
        self._timer = None
        now = self._clock.now()
        for key, window in list(self._windows.items()):
            if now >= window.ends:
                self._close(key, window)
                del self._windows[key]
        pending = [window.ends for window in self._windows.values() if window.count > BURST]
        if pending:
            self._timer = self._call_later(max(_SOONEST, min(pending) - now), self._expire)

    def _close(self, key: tuple[str, str], window: _Window) -> None:
        if window.count > BURST:
            self._report(*key, window.count - BURST)
