"""Keeps a valid token in hand: the I/O around `lifecycle`, and the `TokenSource` of the data path.

It holds the waiting requests, runs the one flight and ends it when it takes too long. It looks at the clock
at least once a second, because the event loop's timers stand still while the machine sleeps.
"""

import asyncio
from collections.abc import Callable
from random import Random
from typing import Final, NamedTuple, Protocol

from bits_auth_proxy.auth import schedule
from bits_auth_proxy.auth.bits_oauth import ClientCredentials, TokenGrant, TokenRequestError
from bits_auth_proxy.auth.lifecycle import Lifecycle, Reason, Replacement
from bits_auth_proxy.auth.tokens import AccessToken, TokenState, TokenUnavailable, TokenWaiter
from bits_auth_proxy.clock import Clock
from bits_auth_proxy.tasks import TaskOwner

TICK: Final = 1.0
"""Seconds between looks at the clock, at most."""
_SOONEST: Final = 0.01


class TokenEndpoint(Protocol):
    """Where tokens come from."""

    async def fetch_token(self, credentials: ClientCredentials) -> TokenGrant:
        """Return a new token. Raises TokenRequestError."""
        ...


class RefreshObserver(Protocol):
    """Hears of the token's life, always after the lifecycle did. Durations in seconds; no method raises."""

    def token_obtained(self, token: AccessToken, reason: Reason, duration: float, *, assumed: bool) -> None:
        """An attempt brought a token; `assumed`: the answer did not say how long it lives."""
        ...

    def token_failed(
        self,
        error: TokenRequestError,
        reason: Reason,
        duration: float,
        *,
        state: TokenState,
        failures: int,
    ) -> None:
        """An attempt failed. `state` is that of the token now; `failures` counts failed flights in a row."""
        ...

    def token_unauthorized(self, token: AccessToken) -> None:
        """The API answered 401 to the token in hand."""
        ...

    def crashed(self, error: BaseException) -> None:
        """An exception escaped where none should."""
        ...


class _Attempt(NamedTuple):
    """A token request that has ended, with a token or with an error."""

    duration: float
    token: AccessToken | None = None
    lifetime_assumed: bool = False
    error: TokenRequestError | None = None


class CandidateStatus(NamedTuple):
    """Credentials that have not brought a token yet. `since` is in seconds since the Unix epoch."""

    client_id: str
    since: float
    last_error: str | None
    """Why the last attempt with them failed, None before there was one."""


class RefresherStatus(NamedTuple):
    """How the token does. Instants are seconds since the Unix epoch."""

    state: TokenState
    token: AccessToken | None
    expires: float | None
    """When the token stops being used; the safety margin is off."""
    next_refresh: float
    in_flight: bool
    consecutive_failures: int
    permanent: bool
    last_error: str | None
    """Why the last attempt with the pair in use failed, None if it succeeded."""
    client_id: str = ""
    """Of the pair in use."""
    candidate: CandidateStatus | None = None
    """The pair that is to replace it, while it has not brought a token."""


class Refresher:
    """The token of one client, always valid as far as the token endpoint allows."""

    __slots__ = (
        "_again",
        "_call_later",
        "_candidate",
        "_candidate_error",
        "_candidate_since",
        "_clock",
        "_closed",
        "_conceal",
        "_credentials",
        "_endpoint",
        "_flight",
        "_flight_ends",
        "_flight_limit",
        "_flight_reason",
        "_flight_started",
        "_last_error",
        "_life",
        "_look",
        "_look_timer",
        "_looked_at",
        "_observer",
        "_patience",
        "_tasks",
        "_timer",
        "_unauthorized_waiters",
        "_waiters",
        "current",
        "steady",
    )

    def __init__(
        self,
        *,
        endpoint: TokenEndpoint,
        credentials: ClientCredentials,
        clock: Clock,
        rng: Random,
        tasks: TaskOwner,
        call_later: Callable[[float, Callable[[], None]], asyncio.TimerHandle],
        patience: float,
        conceal: Callable[[str], None],
        look: Callable[[], None] | None = None,
        observer: RefreshObserver,
    ) -> None:
        """Take the endpoint and the pair for it; nothing happens before `start`.

        `patience` is how many seconds a request waits for a token. `conceal` gets every new token before
        anything else does, so that no log line can show it. `look` has the credential files read at once: a
        denial may mean that they hold another pair by now.
        """
        self._endpoint = endpoint
        self._credentials = credentials
        self._candidate: ClientCredentials | None = None
        self._clock = clock
        self._tasks = tasks
        self._call_later = call_later
        self._patience = patience
        self._conceal = conceal
        self._look = look
        self._observer = observer
        self._life = Lifecycle(now=clock.now(), rng=rng)
        # Without a frame of Python code in between: every request asks.
        self.current = self._life.current
        self.steady = self._life.steady
        # Ordered: who waits longest hears first.
        self._waiters: dict[TokenWaiter, None] = {}
        self._unauthorized_waiters: dict[TokenWaiter, None] = {}
        self._again: dict[TokenWaiter, None] = {}
        """Those whose token the API may not know yet."""
        self._flight: asyncio.Task[None] | None = None
        self._flight_reason = Reason.START
        self._flight_started = self._flight_ends = self._flight_limit = 0.0
        self._looked_at = float("-inf")
        self._look_timer: asyncio.TimerHandle | None = None
        self._candidate_error: TokenRequestError | None = None
        self._candidate_since = 0.0
        self._last_error: TokenRequestError | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    # Life.

    def start(self) -> None:
        """Get the first token, and keep it fresh from then on."""
        self._proceed()

    def close(self) -> None:
        """Look no more at the clock; who still waits is told. The flight is the task owner's to end."""
        self._closed = True
        for timer in (self._timer, self._look_timer):
            if timer is not None:
                timer.cancel()
        reason = TokenUnavailable("the proxy is shutting down", retry_after=1.0)
        for waiter in self._all_waiters():
            self._tell(waiter, reason)

    def change_credentials(self, credentials: ClientCredentials) -> None:
        """Try other credentials at once. They replace the present ones when they have brought a token."""
        self._candidate, self._candidate_error = credentials, None
        self._candidate_since = self._clock.wall()
        self._life.credentials_changed(self._clock.now())
        self._proceed()

    def refresh(self) -> float:
        """Ask for another token as soon as the pace allows; return in how many seconds that is."""
        now = self._clock.now()
        at = self._life.requested(now)
        self._proceed()
        return max(0.0, at - now)

    def status(self) -> RefresherStatus:
        """Return how the token does now."""
        now, wall = self._clock.now(), self._clock.wall()
        token = self._life.token
        return RefresherStatus(
            state=self._life.state(now, wall),
            token=token,
            expires=None if token is None else token.issued_wall + (token.expires_at - token.issued_at),
            next_refresh=wall + max(0.0, self._life.next_at(wanted=False) - now),
            in_flight=self._life.in_flight,
            consecutive_failures=self._life.failures,
            permanent=self._life.permanent,
            last_error=None if self._last_error is None else self._last_error.detail,
            client_id=self._credentials.client_id,
            candidate=self._candidate_status(),
        )

    def _candidate_status(self) -> CandidateStatus | None:
        if self._candidate is None:
            return None
        error = self._candidate_error
        return CandidateStatus(
            self._candidate.client_id, self._candidate_since, None if error is None else error.detail
        )

    # The TokenSource.

    def acquire(self, waiter: TokenWaiter) -> None:
        """Tell `waiter` as soon as a valid token is there, or that none will come in time; maybe at once."""
        now = self._clock.now()
        token = self.current(now)
        if token is not None:
            waiter.token_ready(token)
            return
        # A flight may have outlived its time while the machine slept.
        self._proceed()
        life = self._life
        hopeless = not life.in_flight and life.next_at(wanted=True) - now > self._patience
        if self._closed or life.permanent or hopeless:
            life.wanted(now)
            waiter.token_unavailable(self.explain())
            self._proceed()
        else:
            self._waiters[waiter] = None
            self._proceed()

    def accept(self, token: AccessToken, operation: str) -> None:
        """Take note that the API accepted `token`; those whose request it refused before try again."""
        self._life.accepted(token, operation)
        if self._again and token is self._life.token:
            for waiter in _emptied(self._again):
                self._tell(waiter, token)

    def unauthorized(self, token: AccessToken, operation: str, waiter: TokenWaiter) -> None:
        """Report that the API answered 401 to `token`; `waiter` hears what it can have instead."""
        now, life = self._clock.now(), self._life
        before = life.state(now, self._clock.wall())
        replacement = life.unauthorized(token, operation, now)
        if before is not TokenState.SUSPECT and life.state(now, self._clock.wall()) is TokenState.SUSPECT:
            self._observer.token_unauthorized(token)
            self._look_soon(now)
        alternative = life.alternative(token, now)
        if replacement is Replacement.AT_HAND and alternative is not None:
            waiter.token_ready(alternative)
        elif self._closed or replacement is Replacement.NONE:
            waiter.token_unavailable(self.explain())
        elif replacement is Replacement.AGAIN:
            self._again[waiter] = None
            self._proceed()
        elif self.current(now) is None:
            self.acquire(waiter)
        else:
            self._unauthorized_waiters[waiter] = None
            self._proceed()

    def forget(self, waiter: TokenWaiter) -> None:
        """End the wait of `waiter`."""
        self._waiters.pop(waiter, None)
        self._unauthorized_waiters.pop(waiter, None)
        self._again.pop(waiter, None)

    def explain(self) -> TokenUnavailable:
        """Return why there is no token, and when the next attempt begins."""
        error, life = self._last_error or self._candidate_error, self._life
        if self._closed:
            return TokenUnavailable("the proxy is shutting down", retry_after=1.0)
        wait = 0.0 if life.in_flight else life.next_at(wanted=not life.permanent) - self._clock.now()
        return TokenUnavailable(
            "there is no valid token"
            if error is None
            else f"there is no valid token; the last token request failed ({error.kind})",
            retry_after=max(1.0, wait),
            permanent=life.permanent,
        )

    # The clock and the flight.

    def _proceed(self) -> None:
        """Begin a flight if one is due, end one that takes too long, and set the next look at the clock."""
        if self._closed:
            return
        now, life = self._clock.now(), self._life
        if life.in_flight and now >= self._flight_ends:
            self._drop_flight()
        reason = life.flight_due(now, self._clock.wall(), wanted=bool(self._waiters))
        if reason is not None:
            self._flight_limit = life.flight_started(now)
            self._flight_started, self._flight_ends = now, now + self._flight_limit
            self._flight_reason = reason
            self._flight = self._tasks.start(self._fly(reason), name="token-refresh")
        if self._again and now >= life.try_at:
            # One tries; if it is accepted, the others follow.
            waiter = next(iter(self._again))
            del self._again[waiter]
            token = self.current(now)
            self._tell(waiter, self.explain() if token is None else token)
        if self._timer is not None:
            self._timer.cancel()
        next_at = self._flight_ends if life.in_flight else life.next_at(wanted=bool(self._waiters))
        if self._again:
            next_at = min(next_at, life.try_at)
        self._timer = self._call_later(min(TICK, max(_SOONEST, next_at - now)), self._proceed)

    def _drop_flight(self) -> None:
        """End a flight that has outlived its time: an endpoint that hangs, or a machine that slept."""
        flight, self._flight = self._flight, None
        if flight is not None:
            flight.cancel()
        error = TokenRequestError("timeout", f"there was no whole response within {self._flight_limit:g} s")
        attempt = _Attempt(self._clock.now() - self._flight_started, error=error)
        self._failed(self._flight_reason, error, attempt)

    async def _fly(self, reason: Reason) -> None:
        flight = asyncio.current_task()
        try:
            candidate = self._candidate if reason is Reason.CREDENTIALS else None
            attempt = await self._request(candidate or self._credentials)
            if self._flight is not flight:
                return
            self._flight = None
            if attempt.token is not None:
                taken = candidate is not None and candidate is self._candidate
                if candidate is not None:
                    self._credentials = candidate
                if taken:
                    self._candidate = self._candidate_error = None
                self._last_error = None
                self._obtained(reason, attempt.token, attempt, candidate_taken=taken)
            elif attempt.error is not None:
                self._failed(reason, attempt.error, attempt)
        except asyncio.CancelledError:
            # Not by `_drop_flight`, which has forgotten the flight: nobody else may end it uncounted.
            if self._flight is flight and not self._closed:
                self._flight = None
                self._failed(reason, TokenRequestError("internal", "the attempt was cancelled"))
            raise
        except Exception as error:  # noqa: BLE001 - whatever happens, the token's life must go on
            self._observer.crashed(error)
            if self._life.in_flight:
                self._flight = None
                self._failed(reason, TokenRequestError("internal", "an internal error occurred; see the log"))

    async def _request(self, credentials: ClientCredentials) -> _Attempt:
        # The lifetime counts from before the request is sent: the server can't have begun earlier.
        issued_at, issued_wall = self._clock.now(), self._clock.wall()
        try:
            grant = await self._endpoint.fetch_token(credentials)
        except TokenRequestError as error:
            return _Attempt(self._clock.now() - issued_at, error=error)
        self._conceal(grant.value)
        token = AccessToken(
            grant.value,
            issued_at=issued_at,
            issued_wall=issued_wall,
            lifetime=grant.lifetime,
            margin=schedule.safety_margin(grant.lifetime),
            scope=grant.scope,
        )
        return _Attempt(self._clock.now() - issued_at, token=token, lifetime_assumed=grant.lifetime_assumed)

    def _obtained(
        self, reason: Reason, token: AccessToken, attempt: _Attempt, *, candidate_taken: bool
    ) -> None:
        self._life.obtained(token, candidate_taken=candidate_taken)
        self._report(reason, attempt)
        for waiter in self._all_waiters():
            # The machine may have slept since the request was sent, and what the other waiters do takes time
            # too: a waiter whose turn comes after the token's end waits for the next one.
            if self.current(self._clock.now()) is token:
                self._tell(waiter, token)
            else:
                self._waiters[waiter] = None
        self._proceed()

    def _failed(self, reason: Reason, error: TokenRequestError, *attempts: _Attempt) -> None:
        life, now = self._life, self._clock.now()
        if reason is Reason.CREDENTIALS:
            life.candidate_failed(now, denied=error.denied, retry_after=error.retry_after)
            self._candidate_error = error
        else:
            life.failed(now, denied=error.denied, retry_after=error.retry_after)
            self._last_error = error
        self._report(reason, *attempts)
        if error.denied:
            self._look_soon(now)
        # An unauthorized request has a response to pass on; one without a token waits for the next attempt.
        disappointed = _emptied(self._unauthorized_waiters)
        if life.permanent or life.next_at(wanted=True) - now > self._patience:
            disappointed += _emptied(self._waiters)
        self._proceed()
        for waiter in disappointed:
            self._tell(waiter, self.explain())

    def _look_soon(self, now: float) -> None:
        """Have the credential files read in the next turn of the event loop; once a second is enough."""
        if self._look is not None and now - self._looked_at >= TICK:
            self._looked_at = now
            self._look_timer = self._call_later(0.0, self._look)

    def _all_waiters(self) -> list[TokenWaiter]:
        return [*_emptied(self._waiters), *_emptied(self._unauthorized_waiters), *_emptied(self._again)]

    def _report(self, reason: Reason, *attempts: _Attempt) -> None:
        """Let the observer hear of attempts after the lifecycle did. Its trouble costs no token."""
        for attempt in attempts:
            try:
                if attempt.token is not None:
                    self._observer.token_obtained(
                        attempt.token, reason, attempt.duration, assumed=attempt.lifetime_assumed
                    )
                elif attempt.error is not None:
                    self._observer.token_failed(
                        attempt.error,
                        reason,
                        attempt.duration,
                        state=self._life.state(self._clock.now(), self._clock.wall()),
                        failures=self._life.failures,
                    )
            except Exception as error:  # noqa: BLE001 - see above
                self._observer.crashed(error)

    def _tell(self, waiter: TokenWaiter, news: AccessToken | TokenUnavailable) -> None:
        try:
            if isinstance(news, AccessToken):
                waiter.token_ready(news)
            else:
                waiter.token_unavailable(news)
        except Exception as error:  # noqa: BLE001 - one waiter's failure is not the others'
            self._observer.crashed(error)


def _emptied(waiters: dict[TokenWaiter, None]) -> list[TokenWaiter]:
    """Take all waiters out, so that what they do on hearing can't disturb the round."""
    taken = list(waiters)
    waiters.clear()
    return taken
