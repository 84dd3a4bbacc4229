"""The token's life as a state machine without I/O.

Its rules:

1. One flight (an attempt to get a token) at a time, and each has a limit in seconds, after which it counts as
   failed. While none is under way, `next_at` says when the next begins, so the lifecycle never gets stuck.
2. A valid token is served whatever else happens; an expired one never. FRESH, STALE and SUSPECT tokens are
   valid.
3. A token becomes STALE once between 70 % and 80 % of its lifetime, or when the wall clock says so (it ran
   on while a VM was paused). The wall clock alone never expires a token.
4. A new token is unproven until the API has accepted it: answered a request with anything but 401. The
   token before it is kept to its own end. While the API refuses the unproven token, the previous one serves,
   and the new one is tried again after a pause that doubles. Without a proven one, the same request is tried
   again. An unproven token that goes on being refused forces a flight: after 30 s if there is a proven one,
   else when it is refused again. If that brings another one, both are tried.
5. A failed flight sets the next attempt by backoff and Retry-After, and never so late that a valid token
   would expire without one more try.
6. Three denials (400, 401, a scope not granted) in a row are permanent until something else happens:
   attempts are farther apart, and requests without a token are told at once. While requests arrive that get
   no valid token, attempts are 30 s apart at most. Changed credentials start anew.
7. Requests that wait without a token pull the next flight forward: to 1 s after the last one began, but
   not before Retry-After is over.
8. A 401 to a proven token makes it SUSPECT and forces a flight if the API has accepted tokens for the same
   operation: the token has died. Only if it is younger than 30 s and there is a proven one before it, it
   becomes unproven again instead, because some of the API's servers may not know it yet. Tokens that die
   young, again and again, are replaced at intervals that double up to 4 s. New tokens that are refused too
   are replaced at intervals from 30 s that double up to 1 h; any acceptance ends that.
9. A 401 is the operation's own if no token has been accepted for it while the token serves others, or if
   the same request was refused with another token too. The operation then forces flights at intervals of
   its own (30 s, doubling up to 1 h; all such operations together every 5 s at most). Within them, its 401s
   change nothing for the others. Three in a row without any acceptance count as a death all the same, if
   the API has accepted a token for the operation since.
10. Other credentials are a candidate until they have brought a token. They are tried at once and then at
    intervals of their own; whatever happens to them, the pair in use goes on.
11. An operator may ask for a flight, which begins no sooner than rule 7 permits.

Instants are seconds of `Clock.now()`, except `wall`: seconds since the Unix epoch. The module is longer than
others because all of these rules act on the same state.
"""

from enum import Enum
from random import Random
from typing import Final, final

from bits_auth_proxy.auth import schedule
from bits_auth_proxy.auth.operations import FORCED_PACE, MAX_FORCED_PACE, Operations
from bits_auth_proxy.auth.tokens import AccessToken, TokenState

PERMANENT_DENIALS: Final = 3
YOUNG: Final = 30.0
"""Seconds: a proven token that dies before this age has died young."""
MAX_DEATH_PACE: Final = 4.0
"""Seconds between flights at most while tokens die young. Shorter than a request waits for a token."""
WANTED_PACE: Final = 30.0
"""Seconds between attempts at most while requests arrive that get no valid token."""
FLIGHT_LIMIT: Final = 10.0
URGENT_FLIGHT_LIMIT: Final = 2.5
"""Seconds that a flight may last while there is no valid token, or one that is about to expire."""
WORTH_WAITING: Final = 4.0
"""Seconds that a request whose token got a 401 waits at most for the next flight to begin."""
_URGENT: Final = 15.0
_FIRST_PAUSE: Final = 0.25
_MAX_PAUSE: Final = 2.0
_MAX_PAUSE_ALONE: Final = 1.0
"""Seconds until a refused, unproven token is tried again: the first pause, which doubles, and the longest
ones: with and without a proven token before it."""
_PATIENCE_ALONE: Final = 0.25
_PATIENCE: Final = 30.0
"""Seconds after its issue until which the 401s to an unproven token force no flight, because the API may not
know it yet: without and with a proven one before it."""
_LAG: Final = 8.0
"""Seconds after its issue until which a token may be unknown to the API."""
_REFUSALS: Final = 3
"""So many 401s in a row, without any acceptance, are more than an operation's own trouble."""
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
    """The same token is tried again at `try_at`, or another one that comes before: it may be unknown yet."""
    COMING = "coming"
    """A flight is under way or begins within `WORTH_WAITING`."""
    NONE = "none"
    """No other token is to be expected soon."""


@final
class Lifecycle:
    """Holds the token in hand and decides when to get the next. See the module's rules."""

    __slots__ = (
        "_candidate_at",
        "_died",
        "_forced",
        "_forced_at",
        "_forced_pace",
        "_last_start",
        "_not_before",
        "_operations",
        "_pause",
        "_previous",
        "_previous_until",
        "_refresh_at",
        "_refusals",
        "_refused",
        "_requested",
        "_rng",
        "_token",
        "_young_deaths",
        "attempt_at",
        "candidate_failures",
        "denials",
        "early_deaths",
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
        self._died = False
        self._refusals = 0
        self._refused = False
        self._pause = _FIRST_PAUSE
        self.try_at = _NEVER
        """When a refused, unproven token is tried again."""
        self._forced = False
        self._forced_at = _NEVER
        self._forced_pace = 0.0
        self._young_deaths = 0
        self.early_deaths = 0
        """How many proven tokens in a row the API has refused before they were due for refresh."""
        self._operations: Final = Operations()
        self._requested = False
        self._last_start = _NEVER
        self._not_before = _NEVER
        self._candidate_at: float | None = None
        self.candidate_failures = 0
        """Failed flights with the candidate."""
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
        """The newest token, whether it is valid or not."""
        return self._token

    @property
    def permanent(self) -> bool:
        """Whether the token endpoint denies the token requests, as it seems for good."""
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
        if token is not None and not token.proven:
            return self._valid_previous(now) or self.current(now)
        return self.current(now)

    def alternative(self, token: AccessToken, now: float) -> AccessToken | None:
        """Return a valid token other than `token`, if there is one."""
        current = self.current(now)
        if current is not token:
            return current
        other = self._valid_previous(now) if token is self._token else self._token
        return other if other is not None and now < other.expires_at else None

    def state(self, now: float, wall: float) -> TokenState:
        """Return the health of the token."""
        token = self._token
        if token is None:
            return TokenState.ABSENT
        if self.current(now) is None:
            return TokenState.EXPIRED
        if self._died or self._refused:
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

    def flight_started(self, now: float, reason: Reason) -> float:
        """A flight begins. Return how many seconds it may last."""
        self.in_flight = True
        self._last_start = now
        if reason is not Reason.CREDENTIALS:
            self._forced = False
            self._requested = False
        token = self.current(now)
        urgent = token is None or self._died or token.expires_at - now < _URGENT
        return URGENT_FLIGHT_LIMIT if urgent else FLIGHT_LIMIT

    def obtained(self, token: AccessToken, now: float, *, candidate_taken: bool = False) -> None:
        """The flight brought `token`. `candidate_taken`: with the candidate, which is in use from now on."""
        self.in_flight = False
        old = self._token
        if old is not None and not self._died and old.header_line == token.header_line:
            # The token endpoint issued the same token again: whatever the API has said of it still holds.
            token.proven = old.proven
        else:
            self._succeed(old, now)
        self._token = token
        self._not_before = _NEVER
        self._forced = self._requested = False
        self._refresh_at = self.attempt_at = schedule.refresh_at(token, self._rng)
        self.failures = 0
        self.denials = 0
        if candidate_taken:
            self._candidate_at = None

    def _succeed(self, old: AccessToken | None, now: float) -> None:
        """Keep `old` as the previous token if it may still serve, and forget what was said of it."""
        if self._died:
            self._previous = None
        elif old is not None:
            self.early_deaths = self._young_deaths = 0
            if old.proven or self._valid_previous(now) is None:
                self._previous = old
        self._died = False
        self._trust()

    def failed(self, now: float, *, denied: bool, retry_after: float | None) -> None:
        """The flight brought no token. `denied`: the endpoint denied the credentials or the request."""
        self.in_flight = False
        self.failures += 1
        self.denials = self.denials + 1 if denied else 0
        self._not_before = _NEVER
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

    def candidate_failed(self, now: float, *, denied: bool, retry_after: float | None) -> None:
        """A flight with the candidate brought no token. The pair in use goes on."""
        self.in_flight = False
        self.candidate_failures += 1
        if self._candidate_at is None or self._candidate_at > self._last_start:
            # Another pair came meanwhile.
            return
        token = self.current(now)
        if denied and token is not None:
            self._candidate_at = schedule.retry_denied_at(
                now=now, denials=PERMANENT_DENIALS, retry_after=retry_after, token=token, rng=self._rng
            )
        else:
            self._candidate_at = schedule.retry_at(
                now=now, failures=self.candidate_failures, retry_after=retry_after, token=None, rng=self._rng
            )

    def requested(self, now: float) -> float:
        """An operator asks for a flight; return when it begins. One that is under way will do."""
        if self.in_flight:
            return now
        self._requested = True
        self.attempt_at = min(self.attempt_at, max(now, self.soonest))
        return self.attempt_at

    def wanted(self, now: float) -> None:
        """A request came that gets no valid token and does not wait for one."""
        if not self.in_flight:
            self.attempt_at = min(self.attempt_at, max(now, self._last_start + WANTED_PACE, self._not_before))

    def credentials_changed(self, now: float) -> None:
        """Other credentials are a candidate now, to be tried at once."""
        self._candidate_at = now
        self.candidate_failures = 0
        self.denials = 0

    def candidate_withdrawn(self, now: float) -> None:
        """The credentials are again those in use."""
        self._candidate_at = None
        self.denials = 0
        if self.failures:
            self.requested(now)

    @property
    def soonest(self) -> float:
        """When a flight may begin for requests that wait without a token."""
        return max(self._last_start + schedule.MIN_DELAY, self._not_before)

    def next_at(self, *, wanted: bool) -> float:
        """Return when the next flight begins at the latest, unless one is under way."""
        at = min(self.attempt_at, self.soonest) if wanted else self.attempt_at
        return at if self._candidate_at is None else min(at, self._candidate_at)

    # What the API says of the token.

    def accepted(self, token: AccessToken, operation: str) -> None:
        """The API answered a request of `operation` with `token` with anything but 401."""
        token.proven = True
        token.accepted.add(operation)
        self._operations.accept(operation)
        if token is self._token:
            self._forced_pace = 0.0
            self._died = False
            self._trust()
        elif token is self._previous:
            self._forced_pace = 0.0
            self._previous_until = self.try_at

    def _trust(self) -> None:
        """Forget the refusals of the newest token."""
        self._refusals = 0
        self._refused = False
        self._pause = _FIRST_PAUSE
        self.try_at = self._previous_until = _NEVER

    def unauthorized(
        self, token: AccessToken, operation: str, now: float, *, repeated: bool = False
    ) -> Replacement:
        """The API answered 401 to `token`; return what the request can expect.

        `repeated`: the same request was refused with another proven token before.
        """
        # The next acceptance is news.
        token.accepted.clear()
        newest = self._token
        if newest is None or now >= newest.expires_at:
            return Replacement.COMING if self.alternative(token, now) is None else Replacement.AT_HAND
        if token is not newest:
            return self._previous_unauthorized(token, operation, newest, now)
        self._refusals += 1
        operations = self._operations
        if operations.is_paced(operation, now) and not operations.accepts(operation):
            return Replacement.NONE
        if not newest.proven:
            return self._unproven_unauthorized(newest, operation, now)
        if self._died:
            return self._coming(now)
        return self._proven_unauthorized(newest, operation, now, repeated=repeated)

    def _proven_unauthorized(
        self, newest: AccessToken, operation: str, now: float, *, repeated: bool
    ) -> Replacement:
        operations = self._operations
        if repeated:
            # So the token before did not die of it either.
            self.early_deaths = max(0, self.early_deaths - 1)
            operations.blame(operation, now)
            return Replacement.NONE
        if not operations.accepts(operation):
            return self._own_unauthorized(operation, now)
        if operations.is_paced(operation, now) and self._refusals < _REFUSALS:
            return Replacement.NONE
        if now - newest.issued_at < YOUNG and self._proven_previous(now) is not None:
            newest.proven = False
            return self._unproven_unauthorized(newest, operation, now)
        operations.doubt(operation)
        return self._dies(newest, now)

    def _previous_unauthorized(
        self, token: AccessToken, operation: str, newest: AccessToken, now: float
    ) -> Replacement:
        if token is not self._previous:
            return Replacement.AT_HAND
        if token.proven and self._operations.accepts(operation):
            self._previous = None
            if not self._refused:
                return Replacement.AT_HAND
            # The newest is refused too, so all have been revoked.
            self._force(max(now, self._forced_at + schedule.MIN_DELAY, self._not_before))
            return self._coming(now)
        if newest.proven:
            return Replacement.AT_HAND
        return self._own_unauthorized(operation, now) if token.proven else self._again(newest, now)

    def _unproven_unauthorized(self, newest: AccessToken, operation: str, now: float) -> Replacement:
        proven = self._proven_previous(now)
        if not self._operations.accepts(operation) and not self._operations.is_empty:
            # It says nothing of the new token: no other one has served this operation either.
            return self._own_unauthorized(operation, now) if proven is None else Replacement.AT_HAND
        self._refused = True
        if now >= self.try_at:
            self.try_at = now + self._pause
            self._pause = min(_MAX_PAUSE_ALONE if proven is None else _MAX_PAUSE, 2 * self._pause)
        if proven is not None:
            self._previous_until = self.try_at
            if now - newest.issued_at >= _PATIENCE:
                self._force_for_new(now)
            return Replacement.AT_HAND
        again = self._again(newest, now)
        return again if self._valid_previous(now) is None else Replacement.AT_HAND

    def _again(self, newest: AccessToken, now: float) -> Replacement:
        age = now - newest.issued_at
        replacement = Replacement.AGAIN if age < _PATIENCE_ALONE else self._force_for_new(now)
        # Another one may be unknown as well; the request gets it if it comes first.
        return Replacement.AGAIN if age < _LAG else replacement

    def _dies(self, token: AccessToken, now: float) -> Replacement:
        self._died = True
        if now < self._refresh_at:
            self.early_deaths += 1
        self._young_deaths = self._young_deaths + 1 if now - token.issued_at < YOUNG else 0
        interval = min(MAX_DEATH_PACE, 2.0 ** (self._young_deaths - 2)) if self._young_deaths > 1 else 0.0
        self._force(max(now, self._forced_at + interval, self._not_before))
        return self._coming(now)

    def _own_unauthorized(self, operation: str, now: float) -> Replacement:
        if self.in_flight:
            return Replacement.COMING
        if now < self._not_before or not self._operations.may_force(operation, now):
            return Replacement.NONE
        self._forced = True
        self.attempt_at = min(self.attempt_at, now)
        return Replacement.COMING

    def _force_for_new(self, now: float) -> Replacement:
        """Ask for another token in place of a new one that is refused, at intervals that double."""
        if not self.in_flight and now >= max(self._forced_at + self._forced_pace, self._not_before):
            self._forced_pace = min(MAX_FORCED_PACE, max(FORCED_PACE, 2 * self._forced_pace))
            self._force(now)
        return self._coming(now, pulled=False)

    def _force(self, at: float) -> None:
        self._forced = True
        self._forced_at = at
        self.attempt_at = min(self.attempt_at, at)

    def _coming(self, now: float, *, pulled: bool = True) -> Replacement:
        if self.in_flight or self.next_at(wanted=False) <= now + WORTH_WAITING:
            return Replacement.COMING
        if pulled:
            self.wanted(now)
        return Replacement.NONE

    def _valid_previous(self, now: float) -> AccessToken | None:
        previous = self._previous
        return previous if previous is not None and now < previous.expires_at else None

    def _proven_previous(self, now: float) -> AccessToken | None:
        previous = self._valid_previous(now)
        return previous if previous is not None and previous.proven else None

    def _wall_due(self, wall: float) -> bool:
        token = self._token
        return token is not None and wall - token.issued_wall >= self._refresh_at - token.issued_at
