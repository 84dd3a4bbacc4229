"""What the probes answer. Pure: the state of the process in, a verdict and its reason out.

Liveness is about this process alone. Readiness is about start-up and shutdown only: an outage of Bits is
answered with 503 to the calls it concerns, since taking the pod away would help nobody.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

from bits_auth_proxy.clock import Clock


class Verdict(NamedTuple):
    """A probe's answer; `reason` is a short text for people."""

    ok: bool
    reason: str


class Health:
    """Keeps what the probes ask about."""

    __slots__ = ("_clock", "_draining", "_grace", "_has_token", "_started")

    def __init__(self, *, clock: Clock, has_token: Callable[[], bool], startup_grace: float) -> None:
        """Count `startup_grace` seconds from now: after that the app may start without a token."""
        self._clock: Final = clock
        self._has_token: Final = has_token
        self._grace: Final = startup_grace
        self._started: float | None = clock.now()
        self._draining = False

    def drain(self) -> None:
        """Shutdown has begun."""
        self._draining = True

    def startup(self) -> Verdict:
        """Whether start-up is over: the first token is there, or it was waited for long enough."""
        if self._started is None:
            return Verdict(ok=True, reason="started")
        if self._has_token():
            self._started = None
            return Verdict(ok=True, reason="started")
        if self._clock.now() - self._started >= self._grace:
            return Verdict(ok=True, reason="started without a token")
        return Verdict(ok=False, reason="waiting for the first token")

    def readiness(self) -> Verdict:
        """Whether new requests should be sent here."""
        if self._draining:
            return Verdict(ok=False, reason="draining")
        return self.startup()
