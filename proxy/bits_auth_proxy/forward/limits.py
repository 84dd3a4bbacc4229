"""The limit that client connections share."""

from collections.abc import Callable


class ConnectionLimit:
    """The number of client connections that may be open, over all listeners."""

    __slots__ = ("_free", "_waiting")

    def __init__(self, limit: int) -> None:
        self._free = limit
        self._waiting: list[Callable[[], None]] = []

    def take(self) -> bool:
        """Reserve a place if there is one; return whether there was."""
        if self._free <= 0:
            return False
        self._free -= 1
        return True

    def give(self) -> None:
        """Give back a place, and wake the listeners that wait for one."""
        self._free += 1
        waiting, self._waiting = self._waiting, []
        for wake in waiting:
            wake()

    def wake_when_free(self, wake: Callable[[], None]) -> None:
        """Call `wake` once when a place is given back."""
        self._waiting.append(wake)
