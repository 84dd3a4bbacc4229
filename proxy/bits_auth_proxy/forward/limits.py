"""The limits that client connections share."""

from collections.abc import Callable
from typing import Final, final


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


@final
class ClientShares:
    """The number of requests in flight, tunnels included, that each client address may have."""

    __slots__ = ("_limit", "taken")

    def __init__(self, limit: int) -> None:
        self._limit: Final = limit
        self.taken: Final[dict[str, int]] = {}
        """The requests in flight by address. Addresses that have none are not in it."""

    def take(self, peer: str) -> bool:
        """Count a request of the address `peer` in if its share is not used up; return whether it was not."""
        taken = self.taken.get(peer, 0)
        if taken >= self._limit:
            return False
        self.taken[peer] = taken + 1
        return True

    def give(self, peer: str) -> None:
        """Count a request that has ended out."""
        taken = self.taken.pop(peer) - 1
        if taken:
            self.taken[peer] = taken
