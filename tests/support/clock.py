"""Time that moves when told to."""


class FakeClock:
    """Implements `bits_auth_proxy.clock.Clock`."""

    def __init__(self, now: float = 1000.0, wall: float = 1_700_000_000.0) -> None:
        self._now = now
        self._wall = wall

    def now(self) -> float:
        return self._now

    def wall(self) -> float:
        return self._wall

    def advance(self, seconds: float) -> None:
        """Let time pass, as both clocks see it."""
        self._now += seconds
        self._wall += seconds

    def jump_wall(self, seconds: float) -> None:
        """Set the wall clock ahead, or back."""
        self._wall += seconds
