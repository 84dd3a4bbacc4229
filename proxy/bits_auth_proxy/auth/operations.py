"""Which operations the API accepts our tokens for, and how often one that it refuses may force a flight.

A 401 says that a token is no longer valid only if the API has accepted tokens for the same operation.
Otherwise it is the operation's own, and then it must neither make all others wait nor have the token endpoint
asked for every call. Instants are seconds of `Clock.now()`.
"""

from typing import Final, final

FORCED_PACE: Final = 30.0
MAX_FORCED_PACE: Final = 3600.0
"""Seconds between the flights that one operation forces: the first interval, which doubles, and the last."""
SPACING: Final = 5.0
"""Seconds between the flights that all such operations force."""
_MAX_OPERATIONS: Final = 256
"""Callers choose the names, so only so many are remembered."""
_NEVER: Final = float("-inf")


@final
class _Pace:
    """When an operation may force a flight again."""

    __slots__ = ("interval", "next_at")

    def __init__(self) -> None:
        self.interval = 0.0
        self.next_at = _NEVER


@final
class Operations:
    """Remembers operations by name."""

    __slots__ = ("_accepted", "_next_at", "_paces")

    def __init__(self) -> None:
        self._accepted: set[str] = set()
        self._paces: dict[str, _Pace] = {}
        self._next_at = _NEVER

    def accept(self, operation: str) -> None:
        """Note that the API accepted a token for `operation`."""
        if len(self._accepted) >= _MAX_OPERATIONS:
            self._accepted.clear()
        self._accepted.add(operation)

    def accepts(self, operation: str) -> bool:
        """Return whether the API has accepted a token for `operation` since its last 401 that was doubted."""
        return operation in self._accepted

    @property
    def is_empty(self) -> bool:
        """Whether no operation is known that the API accepts our tokens for."""
        return not self._accepted

    def is_paced(self, operation: str, now: float) -> bool:
        """Return whether `operation` has forced a flight, or was to blame, too recently to force another."""
        pace = self._paces.get(operation)
        return pace is not None and now < pace.next_at

    def doubt(self, operation: str) -> None:
        """Note that `operation` got a 401, so the next one alone is no sign that a token has died."""
        self._accepted.discard(operation)

    def blame(self, operation: str, now: float) -> None:
        """Note that a 401 was the operation's own."""
        self.doubt(operation)
        if not self.is_paced(operation, now):
            self._begin_interval(operation, now)

    def may_force(self, operation: str, now: float) -> bool:
        """Return whether `operation` may force a flight now; if it may, it has."""
        if now < self._next_at or self.is_paced(operation, now):
            return False
        self._begin_interval(operation, now)
        self._next_at = now + SPACING
        return True

    def _begin_interval(self, operation: str, now: float) -> None:
        pace = self._paces.get(operation)
        if pace is None:
            if len(self._paces) >= _MAX_OPERATIONS:
                del self._paces[next(iter(self._paces))]
            pace = self._paces[operation] = _Pace()
        # It is twice as long as the one before, unless that is long past.
        again = now < pace.next_at + pace.interval
        pace.interval = min(MAX_FORCED_PACE, 2 * pace.interval) if again else FORCED_PACE
        pace.next_at = now + pace.interval
