"""Bounds that connections share."""

from collections.abc import Callable


class ConnectionLimit:
    """How many client connections there may be, over all listeners."""

    __slots__ = ("_free", "_waiting")

    def __init__(self, limit: int) -> None:
        self._free = limit
        self._waiting: list[Callable[[], None]] = []

    def take(self) -> bool:
        """Reserve a place if there is one."""
        if self._free <= 0:
            return False
        self._free -= 1
        return True

    def give(self) -> None:
        """Return a place; who waits for one is woken."""
        self._free += 1
        waiting, self._waiting = self._waiting, []
        for wake in waiting:
            wake()

    def wake_when_free(self, wake: Callable[[], None]) -> None:
        """Call `wake` once when a place is returned."""
        self._waiting.append(wake)


class ReplayBudget:
    """How many bytes of request bodies may be held for replay by all exchanges together."""

    __slots__ = ("_free",)

    def __init__(self, total: int) -> None:
        self._free = total

    def take(self, size: int) -> bool:
        """Reserve `size` bytes if they are free."""
        if size > self._free:
            return False
        self._free -= size
        return True

    def give(self, size: int) -> None:
        """Return what was reserved."""
        self._free += size
