"""The token's life as a state machine without I/O.

Its rules:

1. One flight (token request) at a time. While none is under way, `attempt_at` says when the next begins:
   so the lifecycle never gets stuck.
2. A valid token is served whatever else happens; an expired one never. FRESH, STALE and SUSPECT tokens
   are valid.
3. A token becomes STALE once between 70 % and 80 % of its lifetime, or when the wall clock says so (it ran
   on while a VM was paused). The wall clock alone never expires a token.
4. Only a successful flight replaces a token. A failed one sets `attempt_at` by backoff and Retry-After.
5. Three denials (400, 401, a scope not granted) in a row are permanent until something else happens:
   attempts are farther apart, and requests without a token are told at once. Changed credentials start anew.
6. Requests that wait without a token pull the next flight forward: 1 s after the last, not before
   Retry-After.
7. A 401 from the API to the token in hand makes it SUSPECT and forces a flight: at most one per 30 s,
   and while that goes on, the interval doubles up to 1 h. A 401 to an earlier token changes nothing here;
   the request gets the current token.
8. New credentials are tried at once. If denied, they remain the candidate: each further attempt tries
   them first and then, if a token is needed, the old ones.
9. An operator may ask for a flight: it begins no sooner than rule 6 permits, whatever the token's state.

Instants are seconds of `Clock.now()`, but for `wall`: seconds since the Unix epoch.
"""

from enum import Enum
from random import Random
from typing import Final, final

from bits_auth_proxy.auth import schedule
from bits_auth_proxy.auth.tokens import AccessToken, TokenState

PERMANENT_DENIALS: Final = 3
FORCED_PACE: Final = 30.0
MAX_FORCED_PACE: Final = 3600.0


class Reason(Enum):
    """Why a flight begins; the label `reason` of the refresh metrics."""

    START = "start"
    SCHEDULED = "scheduled"
    EXPIRED = "expired"
    RETRY = "retry"
    UNAUTHORIZED = "refused"
    """The API answered 401 to the token in hand."""
    CREDENTIALS = "credentials"
    REQUESTED = "requested"
    """An operator asked for it."""


class Replacement(Enum):
    """What a request whose token got a 401 can expect."""

    AT_HAND = "use_current"
    """Another valid token is in hand."""
    COMING = "wait"
    """A flight is under way or due now."""
    NONE = "none"
    """No other token is to be expected soon."""


@final
class Lifecycle:
    """Holds the token in hand and decides when to get the next. See the module's rules."""

    __slots__ = (
        "_credentials_changed",
        "_forced",
        "_forced_at",
        "_forced_pace",
        "_last_start",
        "_not_before",
        "_refresh_at",
        "_requested",
        "_rng",
        "_suspect",
        "_token",
        "attempt_at",
        "denials",
        "failures",
        "in_flight",
    )

    def __init__(self, *, now: float, rng: Random) -> None:
        """Begin without a token; the first flight is due at once."""
        self._rng: Final = rng
        self._token: AccessToken | None = None
        self._refresh_at = now
        self._suspect = False
        self._forced = False
        self._forced_at = float("-inf")
        self._forced_pace = FORCED_PACE
        self._credentials_changed = False
        self._requested = False
        self._last_start = float("-inf")
        self._not_before = float("-inf")
        self.attempt_at = now
        """When the next flight begins at the latest, unless one is under way."""
        self.in_flight = False
        self.failures = 0
        """Failed flights since the last good one."""
        self.denials = 0
        """Denials in a row."""

    @property
    def token(self) -> AccessToken | None:
        """The last token obtained, be it valid or not."""
        return self._token

    @property
    def permanent(self) -> bool:
        """Whether the token endpoint denies the token requests, as it seems for good."""
        return self.denials >= PERMANENT_DENIALS

    def current(self, now: float) -> AccessToken | None:
        """Return the token if it is valid."""
        token = self._token
        return token if token is not None and now < token.expires_at else None

    def state(self, now: float, wall: float) -> TokenState:
        """Return the health of the token in hand."""
        if self._token is None:
            return TokenState.ABSENT
        if now >= self._token.expires_at:
            return TokenState.EXPIRED
        if self._suspect:
            return TokenState.SUSPECT
        return TokenState.STALE if now >= self._refresh_at or self._wall_due(wall) else TokenState.FRESH

    def flight_due(self, now: float, wall: float, *, wanted: bool) -> Reason | None:
        """Return why a flight is to begin now, if it is. `wanted`: requests wait for a token."""
        if self.in_flight:
            return None
        valid = self.current(now) is not None
        pulled = wanted and not valid and now >= self.soonest
        ran_ahead = self.failures == 0 and self._wall_due(wall)
        if now < self.attempt_at and not pulled and not ran_ahead:
            return None
        if self._credentials_changed:
            return Reason.CREDENTIALS
        if self._token is None:
            return Reason.RETRY if self.failures else Reason.START
        if not valid:
            return Reason.EXPIRED
        if self._forced:
            return Reason.UNAUTHORIZED
        if self._requested:
            return Reason.REQUESTED
        return Reason.RETRY if self.failures else Reason.SCHEDULED

    def flight_started(self, now: float) -> None:
        """A token request is about to be sent."""
        self.in_flight = True
        self._last_start = now
        self._credentials_changed = False
        self._forced = False
        self._requested = False

    def obtained(self, token: AccessToken, now: float, *, candidate_denied: bool = False) -> None:
        """The flight brought `token`.

        `candidate_denied`: the new credentials were denied, and the old ones yielded it.
        """
        self.in_flight = False
        self._token = token
        self._suspect = False
        self._not_before = float("-inf")
        self._refresh_at = self.attempt_at = schedule.refresh_at(token, self._rng)
        if candidate_denied:
            self.failures += 1
            self.denials += 1
            retry = schedule.retry_denied_at(
                now=now, denials=self.denials, retry_after=None, token=token, rng=self._rng
            )
            self.attempt_at = min(self.attempt_at, retry)
        else:
            self.failures = 0
            self.denials = 0
        self._start_anew_if_credentials_changed(now)

    def failed(self, now: float, *, denied: bool, retry_after: float | None) -> None:
        """The flight brought no token. `denied`: the endpoint denied our credentials or our request."""
        self.in_flight = False
        self.failures += 1
        self.denials = self.denials + 1 if denied else 0
        self._not_before = float("-inf")
        if retry_after is not None:
            self._not_before = now + min(retry_after, schedule.MAX_RETRY_AFTER)
        token = self.current(now)
        if self.permanent:
            self.attempt_at = schedule.retry_denied_at(
                now=now, denials=self.denials, retry_after=retry_after, token=token, rng=self._rng
            )
        else:
            self.attempt_at = schedule.retry_at(
                now=now, failures=self.failures, retry_after=retry_after, token=token, rng=self._rng
            )
        if self._suspect:
            # Forced: the pace of forced flights holds for their retries too, until the refresh is due anyway.
            self.attempt_at = max(self.attempt_at, min(self._forced_at + self._forced_pace, self._refresh_at))
        self._start_anew_if_credentials_changed(now)

    def unauthorized(self, token: AccessToken, now: float) -> Replacement:
        """The API answered 401 to `token`; return what the request can expect."""
        current = self.current(now)
        if current is None:
            return Replacement.COMING
        if current is not token:
            return Replacement.AT_HAND
        self._suspect = True
        if self.in_flight:
            return Replacement.COMING
        since = now - self._forced_at
        if since < self._forced_pace:
            return Replacement.NONE
        if now < self._not_before:
            return Replacement.NONE
        again = since < 2 * self._forced_pace
        self._forced_pace = min(MAX_FORCED_PACE, self._forced_pace * 2) if again else FORCED_PACE
        self._forced_at = now
        self._forced = True
        self.attempt_at = now
        return Replacement.COMING

    def requested(self, now: float) -> float:
        """An operator asks for a flight; return when it begins. One that is under way will do."""
        if self.in_flight:
            return now
        self._requested = True
        self.attempt_at = min(self.attempt_at, max(now, self.soonest))
        return self.attempt_at

    def credentials_changed(self, now: float) -> None:
        """Other credentials are there to be tried."""
        self._credentials_changed = True
        self._start_anew_if_credentials_changed(now)

    def _start_anew_if_credentials_changed(self, now: float) -> None:
        if self._credentials_changed:
            self.denials = 0
            self.attempt_at = now

    @property
    def soonest(self) -> float:
        """When a flight may begin for those who wait without a token."""
        return max(self._last_start + schedule.MIN_DELAY, self._not_before)

    def _wall_due(self, wall: float) -> bool:
        token = self._token
        return token is not None and wall - token.issued_wall >= self._refresh_at - token.issued_at
