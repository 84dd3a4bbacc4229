"""The token's life as a state machine without I/O.

Its rules:

1. One flight (an attempt to get a token) at a time, and none lasts longer than `flight_limit`. While none
   is under way, `next_at` says when the next begins, so the lifecycle never gets stuck.
2. A valid token is served whatever else happens; an expired one never. FRESH, STALE and SUSPECT tokens are
   valid.
3. A token becomes STALE once between 70 % and 80 % of its lifetime, or when the wall clock says so (it ran
   on while a VM was paused). The wall clock alone never expires a token.
4. A new token is unproven until the API has accepted it: answered a request with anything but 401. The
   last proven token is kept to its own end. While the API refuses the unproven token, the previous one
   serves, and the new one is tried again after a pause that doubles; without a previous one, the same
   request is tried again. Only a token that the API keeps refusing is given up for another.
5. A failed flight sets the next attempt by backoff and Retry-After, and never so late that a valid token
   would expire without one more try.
6. Three denials (400, 401, a scope not granted) in a row are permanent until something else happens:
   attempts are farther apart, and requests without a token are told at once. While such requests arrive,
   attempts are 30 s apart at most. Changed credentials start anew.
7. Requests that wait without a token pull the next flight forward: to 1 s after the last one began, but
   not before Retry-After is over.
8. A 401 to a proven token makes it SUSPECT and forces a flight if the token has served the same operation
   before: then it has died. Tokens that die young, again and again, are replaced at intervals that double
   up to 30 s. New tokens that are refused too are replaced at intervals from 30 s that double up to 1 h;
   any acceptance ends that.
9. A 401 to an operation that the token has never served, while it serves others, is that operation's own.
   It forces a flight at intervals of its own (30 s, doubling up to 1 h) and changes nothing for the
   others.
10. Other credentials are a candidate until they have brought a token. They are tried at once and then at
    intervals of their own; whatever happens to them, the pair in use goes on.
11. An operator may ask for a flight, which begins no sooner than rule 7 permits.

Instants are seconds of `Clock.now()`, except `wall`: seconds since the Unix epoch.
"""

from enum import Enum
from random import Random
from typing import Final, final

from bits_auth_proxy.auth import schedule
from bits_auth_proxy.auth.tokens import AccessToken, TokenState

PERMANENT_DENIALS: Final = 3
FORCED_PACE: Final = 30.0
MAX_FORCED_PACE: Final = 3600.0
YOUNG: Final = 30.0
"""Seconds: a proven token that dies before this age has died young."""
MAX_DEATH_PACE: Final = 30.0
WANTED_PACE: Final = 30.0
"""Seconds between attempts at most while requests arrive and the credentials are denied."""
FLIGHT_LIMIT: Final = 10.0
URGENT_FLIGHT_LIMIT: Final = 2.5
"""Seconds that a flight may last while there is no valid token, or one that is about to expire."""
_URGENT: Final = 15.0
_FIRST_PAUSE: Final = 0.25
_MAX_PAUSE: Final = 30.0
"""Seconds until a refused, unproven token is tried again: the first pause, which doubles up to the last."""
_GIVE_UP_ALONE: Final = 4.0
_GIVE_UP: Final = 30.0
"""Seconds of refusals after which an unproven token is given up: without and with a previous one."""
_MAX_OPERATIONS: Final = 256
_NEVER: Final = float("-inf")


class Reason(Enum):
    """Why a flight begins; the label `reason` of the refresh metrics."""

    START = "start"
    SCHEDULED = "scheduled"
    EXPIRED = "expired"
    RETRY = "retry"
    UNAUTHORIZED = "refused"
    """The API answered 401 to the token in hand."""
    CREDENTIALS = "credentials"
    """Other credentials are tried."""
    REQUESTED = "requested"
    """An operator asked for it."""


class Replacement(Enum):
    """What a request can expect whose token the API answered with 401."""

    AT_HAND = "at_hand"
    """Another valid token is in hand: `alternative`."""
    AGAIN = "again"
    """The same token is tried again at `try_at`: the API may not know it yet."""
    COMING = "coming"
    """A flight is under way or due now."""
    NONE = "none"
    """No other token is to be expected soon."""


@final
class _OwnPace:
    """How often an operation's own 401 may force a flight."""

    __slots__ = ("interval", "next_at")

    def __init__(self, now: float) -> None:
        self.interval = FORCED_PACE
        self.next_at = now + FORCED_PACE

    def lengthen(self, now: float) -> None:
        """Double the interval."""
        self.interval = min(MAX_FORCED_PACE, 2 * self.interval)
        self.next_at = now + self.interval


@final
class Lifecycle:
    """Holds the token in hand and decides when to get the next. See the module's rules."""

    __slots__ = (
        "_candidate_at",
        "_candidate_denials",
        "_candidate_failures",
        "_deaths",
        "_forced",
        "_forced_at",
        "_forced_pace",
        "_last_start",
        "_not_before",
        "_own",
        "_pause",
        "_previous",
        "_previous_until",
        "_refresh_at",
        "_refused_since",
        "_requested",
        "_rng",
        "_suspect",
        "_token",
        "attempt_at",
        "denials",
        "failures",
        "in_flight",
        "try_at",
    )

    def __init__(self, *, now: float, rng: Random) -> None:
        """Begin without a token; the first flight is due at once."""
        self._rng: Final = rng
        self._token: AccessToken | None = None
        self._previous: AccessToken | None = None
        self._previous_until = _NEVER
        self._refresh_at = now
        self._suspect = False
        self._refused_since: float | None = None
        self._pause = _FIRST_PAUSE
        self.try_at = _NEVER
        """When a refused, unproven token is tried again."""
        self._forced = False
        self._forced_at = _NEVER
        self._forced_pace = 0.0
        self._deaths = 0
        self._own: dict[str, _OwnPace] = {}
        self._requested = False
        self._last_start = _NEVER
        self._not_before = _NEVER
        self._candidate_at: float | None = None
        self._candidate_failures = 0
        self._candidate_denials = 0
        self.attempt_at = now
        """When the next flight with the pair in use begins at the latest, unless one is under way."""
        self.in_flight = False
        self.failures = 0
        """Failed flights with the pair in use since the last good one."""
        self.denials = 0
        """Denials of the pair in use in a row."""

    # The token.

    @property
    def token(self) -> AccessToken | None:
        """The last token obtained, be it valid or not."""
        return self._token

    @property
    def permanent(self) -> bool:
        """Whether the token endpoint denies the credentials, as it seems for good."""
        return self.denials >= PERMANENT_DENIALS

    def current(self, now: float) -> AccessToken | None:
        """Return the token for a request that can be sent again, None if there is no valid one."""
        token = self._token
        if token is not None and now < token.expires_at:
            if now >= self._previous_until:
                return token
            return self._valid_previous(now) or token
        return self._valid_previous(now)

    def steady(self, now: float) -> AccessToken | None:
        """Return the token for a request that can't be sent again: a proven one, if there is one."""
        token = self._token
        if token is not None and not token.accepted:
            return self._valid_previous(now) or self.current(now)
        return self.current(now)

    def alternative(self, token: AccessToken, now: float) -> AccessToken | None:
        """Return a valid token other than `token`, if there is one."""
        newest = self._token
        if newest is not None and newest is not token and now < newest.expires_at:
            return newest
        previous = self._valid_previous(now)
        return None if previous is token else previous

    def state(self, now: float, wall: float) -> TokenState:
        """Return the health of the token."""
        token = self._token
        if token is None:
            return TokenState.ABSENT
        if self.current(now) is None:
            return TokenState.EXPIRED
        if self._suspect:
            return TokenState.SUSPECT
        due = now >= min(self._refresh_at, token.expires_at) or self._wall_due(wall)
        return TokenState.STALE if due else TokenState.FRESH

    # Flights.

    def flight_due(self, now: float, wall: float, *, wanted: bool) -> Reason | None:
        """Return why a flight is to begin now, if it is. `wanted`: requests wait for a token."""
        if self.in_flight:
            return None
        if self._candidate_at is not None and now >= self._candidate_at:
            return Reason.CREDENTIALS
        token = self._token
        valid = token is not None and now < token.expires_at
        pulled = wanted and not valid and now >= self.soonest
        ran_ahead = self.failures == 0 and self._wall_due(wall)
        if now < self.attempt_at and not pulled and not ran_ahead:
            return None
        if token is None:
            return Reason.RETRY if self.failures else Reason.START
        if not valid:
            return Reason.EXPIRED
        if self._forced:
            return Reason.UNAUTHORIZED
        if self._requested:
            return Reason.REQUESTED
        return Reason.RETRY if self.failures else Reason.SCHEDULED

    def flight_started(self, now: float) -> float:
        """A flight begins. Return how many seconds it may last."""
        self.in_flight = True
        self._last_start = now
        self._forced = False
        self._requested = False
        token = self.current(now)
        urgent = token is None or token.expires_at - now < min(_URGENT, token.lifetime / 2)
        return URGENT_FLIGHT_LIMIT if urgent else FLIGHT_LIMIT

    def obtained(self, token: AccessToken, *, candidate_taken: bool = False) -> None:
        """The flight brought `token`. `candidate_taken`: with the candidate, which is in use from now on."""
        self.in_flight = False
        old = self._token
        # A token that died is nothing to fall back on, and one that never was proven replaces none that was.
        if old is not None and old.accepted:
            self._previous = None if self._suspect else old
        self._token = token
        self._suspect = False
        self._refused_since = None
        self._pause = _FIRST_PAUSE
        self.try_at = self._previous_until = _NEVER
        self._not_before = _NEVER
        self._refresh_at = self.attempt_at = schedule.refresh_at(token, self._rng)
        self.failures = 0
        self.denials = 0
        if candidate_taken:
            self._candidate_at = None

    def failed(self, now: float, *, denied: bool, retry_after: float | None) -> None:
        """The flight brought no token. `denied`: the endpoint denied the credentials or the request."""
        self.in_flight = False
        self.failures += 1
        self.denials = self.denials + 1 if denied else 0
        self._not_before = _NEVER
        if retry_after is not None:
            self._not_before = now + min(retry_after, schedule.MAX_RETRY_AFTER)
        self.attempt_at = self._retry_at(
            now,
            failures=self.failures,
            denials=self.denials,
            retry_after=retry_after,
            token=self.current(now),
        )

    def candidate_failed(self, now: float, *, denied: bool, retry_after: float | None) -> None:
        """A flight with the candidate brought no token. The pair in use goes on."""
        self.in_flight = False
        self._candidate_failures += 1
        self._candidate_denials = self._candidate_denials + 1 if denied else 0
        if self._candidate_at is None or self._candidate_at <= self._last_start:
            self._candidate_at = self._retry_at(
                now,
                failures=self._candidate_failures,
                denials=PERMANENT_DENIALS if denied else 0,
                retry_after=retry_after,
                token=self.current(now) if denied else None,
            )

    def _retry_at(
        self, now: float, *, failures: int, denials: int, retry_after: float | None, token: AccessToken | None
    ) -> float:
        if denials >= PERMANENT_DENIALS:
            return schedule.retry_denied_at(
                now=now, denials=denials, retry_after=retry_after, token=token, rng=self._rng
            )
        return schedule.retry_at(
            now=now, failures=failures, retry_after=retry_after, token=token, rng=self._rng
        )

    def requested(self, now: float) -> float:
        """An operator asks for a flight; return when it begins. One that is under way will do."""
        if self.in_flight:
            return now
        self._requested = True
        self.attempt_at = min(self.attempt_at, max(now, self.soonest))
        return self.attempt_at

    def wanted(self, now: float) -> None:
        """A request came for which there is no token, and which does not wait."""
        if not self.in_flight:
            self.attempt_at = min(self.attempt_at, max(now, self._last_start + WANTED_PACE, self._not_before))

    def credentials_changed(self, now: float) -> None:
        """Other credentials are a candidate now, to be tried at once."""
        self._candidate_at = now
        self._candidate_failures = self._candidate_denials = 0
        self.denials = 0

    @property
    def soonest(self) -> float:
        """When a flight may begin for requests that wait without a token."""
        return max(self._last_start + schedule.MIN_DELAY, self._not_before)

    def next_at(self, *, wanted: bool) -> float:
        """Return when the next flight begins at the latest, unless one is under way."""
        at = self.attempt_at if not wanted else min(self.attempt_at, self.soonest)
        return at if self._candidate_at is None else min(at, self._candidate_at)

    # What the API says of the token.

    def accepted(self, token: AccessToken, operation: str) -> None:
        """The API answered a request of `operation` with `token` with anything but 401."""
        if len(token.accepted) < _MAX_OPERATIONS:
            token.accepted.add(operation)
        self._own.pop(operation, None)
        if token is self._token:
            self._forced_pace = 0.0
            if self._refused_since is not None:
                self._suspect = False
                self._refused_since = None
                self._previous_until = self.try_at = _NEVER

    def unauthorized(self, token: AccessToken, operation: str, now: float) -> Replacement:
        """The API answered 401 to `token`; return what the request can expect."""
        newest = self._token
        if newest is None or now >= newest.expires_at:
            return Replacement.COMING if self.alternative(token, now) is None else Replacement.AT_HAND
        if token is not newest:
            return self._previous_unauthorized(token, operation, newest, now)
        if not newest.accepted:
            return self._unproven_unauthorized(operation, now)
        if operation in newest.accepted:
            return self._died(newest, now)
        return self._own_unauthorized(operation, now)

    def _previous_unauthorized(
        self, token: AccessToken, operation: str, newest: AccessToken, now: float
    ) -> Replacement:
        if token is self._previous and operation in token.accepted:
            self._previous = None
            if not newest.accepted and self._refused_since is not None:
                # Both are refused, and the previous one had served: all have been revoked.
                return self._force_for_new(now)
        return Replacement.AT_HAND

    def _unproven_unauthorized(self, operation: str, now: float) -> Replacement:
        previous = self._valid_previous(now)
        if previous is not None and operation not in previous.accepted:
            # It says nothing of the new token: the previous one has not served this operation either.
            return Replacement.AT_HAND
        if self._refused_since is None:
            self._refused_since = now
        self._suspect = True
        if now >= self.try_at:
            self.try_at = now + self._pause
            self._pause = min(_MAX_PAUSE, 2 * self._pause)
        if previous is not None:
            self._previous_until = self.try_at
            if now - self._refused_since >= _GIVE_UP:
                self._force_for_new(now)
            return Replacement.AT_HAND
        if now - self._refused_since >= _GIVE_UP_ALONE:
            return self._force_for_new(now)
        return Replacement.AGAIN

    def _died(self, token: AccessToken, now: float) -> Replacement:
        if not self._suspect:
            self._suspect = True
            self._deaths = self._deaths + 1 if now - token.issued_at < YOUNG else 0
            interval = min(MAX_DEATH_PACE, 2.0 ** (self._deaths - 1)) if self._deaths else 0.0
            self._force(max(now, self._forced_at + interval, self._not_before), now)
        return self._coming(now)

    def _own_unauthorized(self, operation: str, now: float) -> Replacement:
        if self.in_flight:
            return Replacement.COMING
        own = self._own.get(operation)
        if own is None:
            if len(self._own) >= _MAX_OPERATIONS:
                return Replacement.NONE
            self._own[operation] = _OwnPace(now)
        elif now < own.next_at:
            return Replacement.NONE
        else:
            own.lengthen(now)
        if now < self._not_before:
            return Replacement.NONE
        self._forced = True
        self.attempt_at = min(self.attempt_at, now)
        return Replacement.COMING

    def _force_for_new(self, now: float) -> Replacement:
        """Ask for another token in place of a new one that is refused, at intervals that double."""
        if not self.in_flight and now >= max(self._forced_at + self._forced_pace, self._not_before):
            self._forced_pace = min(MAX_FORCED_PACE, max(FORCED_PACE, 2 * self._forced_pace))
            self._force(now, now)
        return self._coming(now)

    def _force(self, at: float, now: float) -> None:
        self._forced = True
        self._forced_at = max(at, now)
        self.attempt_at = min(self.attempt_at, at)

    def _coming(self, now: float) -> Replacement:
        due = self._forced and self.attempt_at <= now
        return Replacement.COMING if self.in_flight or due else Replacement.NONE

    def _valid_previous(self, now: float) -> AccessToken | None:
        previous = self._previous
        return previous if previous is not None and now < previous.expires_at else None

    def _wall_due(self, wall: float) -> bool:
        token = self._token
        return token is not None and wall - token.issued_wall >= self._refresh_at - token.issued_at
