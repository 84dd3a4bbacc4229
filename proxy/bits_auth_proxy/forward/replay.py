"""Content of requests that is held so that it can be sent, or sent again."""

from typing import Final, final


@final
class ReplayBudget:
    """The bytes of request content that all exchanges together may hold, whether it has been sent or not."""

    __slots__ = ("free",)

    def __init__(self, total: int) -> None:
        self.free = total


@final
class ReplayBuffer:
    """The content of one request as far as it has arrived. Every byte counts from its arrival."""

    __slots__ = ("_budget", "_limit", "_reserved", "held", "pieces")

    def __init__(self, budget: ReplayBudget, limit: int) -> None:
        """Hold at most `limit` bytes, and no more than `budget` has free."""
        self._budget: Final = budget
        self._limit: Final = limit
        self._reserved = 0
        self.held = True
        """Whether all content that has arrived is held, within the bounds."""
        self.pieces: list[bytes] = []

    def add(self, content: bytes) -> None:
        """Add content that has arrived.

        If that is too much, the content is no longer held for a replay. It stays until it is sent, so the
        caller must not take more of it before it has called `release`.
        """
        self.pieces.append(content)
        size = len(content)
        reserved = self._reserved + size
        free = self._budget.free - size
        if reserved <= self._limit and free >= 0:
            self._reserved = reserved
            self._budget.free = free
        else:
            self.held = False

    def release(self) -> None:
        """Drop the content: it will not be sent again."""
        self.held = False
        self.pieces.clear()
        self._budget.free += self._reserved
        self._reserved = 0
