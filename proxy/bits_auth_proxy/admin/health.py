"""The answers to the probes. Pure: the state of the process goes in, a verdict with its reason comes out.

Liveness is about this process alone. Readiness is about start-up and shutdown alone: during an outage of
Bits, the calls that need Bits get 503, since nobody gains if the pod is taken away.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

from bits_auth_proxy.clock import Clock


class Verdict(NamedTuple):
    """The answer to a probe; `reason` is a short text for people."""

    ok: bool
    reason: str


class Health:
    """Keeps the state that the probes ask for."""

    __slots__ = ("_clock", "_draining", "_grace", "_has_token", "_held", "_started")

    def __init__(self, *, clock: Clock, has_token: Callable[[], bool], startup_grace: float) -> None:
        """Count `startup_grace` seconds from now; after that, start-up is over without a token."""
        self._clock: Final = clock
        self._has_token: Final = has_token
        self._grace: Final = startup_grace
        self._started: float | None = clock.now()
        self._draining = False
        self._held = ""

    def hold(self, reason: str) -> None:
        """Keep start-up from being over until `release`, whatever the grace period says."""
        self._held = reason

    def release(self) -> None:
        """End what `hold` began."""
        self._held = ""

    def drain(self) -> None:
        """Note that shutdown has begun."""
        self._draining = True

    def startup(self) -> Verdict:
        """Return whether start-up is over: the first token has arrived, or the grace period has passed."""
        if self._held:
            return Verdict(ok=False, reason=self._held)
        if self._started is None:
            return Verdict(ok=True, reason="started")
        if self._has_token():
            self._started = None
            return Verdict(ok=True, reason="started")
        if self._clock.now() - self._started >= self._grace:
            return Verdict(ok=True, reason="started without a token")
        return Verdict(ok=False, reason="waiting for the first token")

    def readiness(self) -> Verdict:
        """Return whether new requests should be sent here."""
        if self._draining:
            return Verdict(ok=False, reason="draining")
        return self.startup()
