"""Content of requests that is held so that it can be sent, or sent again."""

from typing import Final, final


@final
class ReplayBudget:
    """The bytes of request content that all exchanges together may hold for a replay."""

    __slots__ = ("free",)

    def __init__(self, total: int) -> None:
        self.free = total


@final
class ReplayBuffer:
    """The content of one request as far as it has arrived.

    The budget counts content only once it is sent. Until then, no more than the limit of one buffer is read
    from the client.
    """

    __slots__ = ("_budget", "_limit", "_reserved", "held", "pieces")

    def __init__(self, budget: ReplayBudget, limit: int) -> None:
        """Hold at most `limit` bytes, and no more than `budget` has free."""
        self._budget: Final = budget
        self._limit: Final = limit
        self._reserved = 0
        self.held = True
        """Whether all content that has arrived is held."""
        self.pieces: list[bytes] = []

    def keep(self, size: int) -> None:
        """Keep `size` bytes of sent content for a replay, or drop all of it if that is too much."""
        needed = size - self._reserved
        if size <= self._limit and needed <= self._budget.free:
            self._budget.free -= needed
            self._reserved = size
        else:
            self.release()

    def release(self) -> None:
        """Drop the content: it will not be sent again."""
        self.held = False
        self.pieces.clear()
        self._budget.free += self._reserved
        self._reserved = 0
