"""When to refresh: the proxy's own policy and two others to compare it with.

All share the proxy's `Lifecycle`, so backoff, Retry-After and waiting requests are treated alike; the
others differ in the moment of the refresh alone.
"""

from random import Random
from typing import Protocol

from bits_auth_proxy.auth.lifecycle import Lifecycle, Reason
from bits_auth_proxy.auth.tokens import AccessToken


class Policy(Protocol):
    """What the simulation needs of a `Lifecycle`."""

    attempt_at: float

    def flight_due(self, now: float, wall: float, *, wanted: bool) -> Reason | None: ...

    def flight_started(self, now: float, reason: Reason) -> float: ...

    def obtained(self, token: AccessToken, now: float) -> None: ...

    def failed(self, now: float, *, denied: bool, retry_after: float | None) -> None: ...


class PolicyMaker(Protocol):
    def __call__(self, *, now: float, rng: Random) -> Policy: ...


class FixedShare:
    """Refresh at 90 % of the lifetime, as many clients do."""

    SHARE = 0.9

    def __init__(self, *, now: float, rng: Random) -> None:
        self._life = Lifecycle(now=now, rng=rng)
        self.attempt_at = now

    def flight_due(self, now: float, wall: float, *, wanted: bool) -> Reason | None:
        self._life.attempt_at = self.attempt_at
        # A wall clock at its beginning: it would call for the refresh that the lifecycle has drawn.
        return self._life.flight_due(now, 0.0, wanted=wanted)

    def flight_started(self, now: float, reason: Reason) -> float:
        return self._life.flight_started(now, reason)

    def obtained(self, token: AccessToken, now: float) -> None:
        self._life.obtained(token, now)
        self.attempt_at = token.issued_at + token.lifetime * self.SHARE

    def failed(self, now: float, *, denied: bool, retry_after: float | None) -> None:
        self._life.failed(now, denied=denied, retry_after=retry_after)
        self.attempt_at = self._life.attempt_at


class Lazy(FixedShare):
    """Refresh when a request finds the token expired. Only the first token is fetched unasked."""

    def obtained(self, token: AccessToken, now: float) -> None:
        super().obtained(token, now)
        self.attempt_at = float("inf")

    def failed(self, now: float, *, denied: bool, retry_after: float | None) -> None:
        had_token = self._life.token is not None
        super().failed(now, denied=denied, retry_after=retry_after)
        if had_token:
            self.attempt_at = float("inf")
