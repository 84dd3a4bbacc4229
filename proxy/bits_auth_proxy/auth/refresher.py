"""Keeps a valid token in hand: the I/O around `lifecycle`, and the `TokenSource` of the data path.

It holds the waiting requests, runs the one flight, and looks at the clock once a second at least:
timers of the event loop stand still while the machine sleeps.
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
_DUE: Final = (TokenState.ABSENT, TokenState.STALE, TokenState.SUSPECT, TokenState.EXPIRED)


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


class RefresherStatus(NamedTuple):
    """The state of the token. Instants are seconds since the Unix epoch."""

    state: TokenState
    token: AccessToken | None
    expires: float | None
    """When the token stops being used: its end less the safety margin."""
    next_refresh: float
    in_flight: bool
    consecutive_failures: int
    permanent: bool
    last_error: str | None
    """Why the last token request failed, None if it succeeded."""


class Refresher:
    """The token of one client, always valid as far as the token endpoint allows."""

    __slots__ = (
        "_call_later",
        "_candidate",
        "_clock",
        "_closed",
        "_conceal",
        "_credentials",
        "_endpoint",
        "_last_error",
        "_life",
        "_observer",
        "_tasks",
        "_timer",
        "_unauthorized_waiters",
        "_waiters",
        "current",
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
        conceal: Callable[[str], None],
        observer: RefreshObserver,
    ) -> None:
        """Take the endpoint and the pair for it; nothing happens before `start`.

        `conceal` gets every new token before anything else does, so that no log line can show it.
        """
        self._endpoint = endpoint
        self._credentials = credentials
        self._candidate: ClientCredentials | None = None
        self._clock = clock
        self._tasks = tasks
        self._call_later = call_later
        self._conceal = conceal
        self._observer = observer
        self._life = Lifecycle(now=clock.now(), rng=rng)
        # Without a frame of Python code in between: every request asks.
        self.current = self._life.current
        # Ordered: who waits longest hears first.
        self._waiters: dict[TokenWaiter, None] = {}
        self._unauthorized_waiters: dict[TokenWaiter, None] = {}
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
        if self._timer is not None:
            self._timer.cancel()
        reason = TokenUnavailable("the proxy is shutting down", retry_after=1.0)
        for waiter in (*_emptied(self._waiters), *_emptied(self._unauthorized_waiters)):
            self._tell(waiter, reason)

    def change_credentials(self, credentials: ClientCredentials) -> None:
        """Try other credentials at once. They replace the present ones when they have brought a token."""
        self._candidate = credentials
        self._life.credentials_changed(self._clock.now())
        self._proceed()

    def refresh(self) -> float:
        """Ask for another token as soon as the pace allows; return in how many seconds that is."""
        now = self._clock.now()
        at = self._life.requested(now)
        self._proceed()
        return max(0.0, at - now)

    def status(self) -> RefresherStatus:
        """Return the state of the token now."""
        now, wall = self._clock.now(), self._clock.wall()
        token = self._life.token
        return RefresherStatus(
            state=self._life.state(now, wall),
            token=token,
            expires=None if token is None else token.issued_wall + (token.expires_at - token.issued_at),
            next_refresh=wall + max(0.0, self._life.attempt_at - now),
            in_flight=self._life.in_flight,
            consecutive_failures=self._life.failures,
            permanent=self._life.permanent,
            last_error=None if self._last_error is None else self._last_error.detail,
        )

    # The TokenSource.

    def acquire(self, waiter: TokenWaiter) -> None:
        """Tell `waiter` as soon as a valid token is there, or that none will come; maybe at once."""
        token = self.current(self._clock.now())
        if token is not None:
            waiter.token_ready(token)
        elif self._closed or self._life.permanent:
            waiter.token_unavailable(self._unavailable())
        else:
            self._waiters[waiter] = None
            self._proceed()

    def unauthorized(self, token: AccessToken, waiter: TokenWaiter) -> None:
        """Report that the API answered 401 to `token`; `waiter` hears of another, or that there is none."""
        now = self._clock.now()
        current = self._life.current(now)
        if token is current and self._life.state(now, self._clock.wall()) is not TokenState.SUSPECT:
            self._observer.token_unauthorized(token)
        replacement = self._life.unauthorized(token, now)
        if current is None:
            self.acquire(waiter)
        elif replacement is Replacement.AT_HAND:
            waiter.token_ready(current)
        elif replacement is Replacement.NONE or self._closed:
            waiter.token_unavailable(self._unavailable())
        else:
            self._unauthorized_waiters[waiter] = None
            self._proceed()

    def forget(self, waiter: TokenWaiter) -> None:
        """End the wait of `waiter`."""
        self._waiters.pop(waiter, None)
        self._unauthorized_waiters.pop(waiter, None)

    # The clock and the flight.

    def _proceed(self) -> None:
        """Begin a flight if one is due, and see that the clock is looked at in time."""
        if self._closed:
            return
        now = self._clock.now()
        reason = self._life.flight_due(now, self._clock.wall(), wanted=bool(self._waiters))
        if reason is not None:
            self._life.flight_started(now)
            self._tasks.start(self._fly(reason), name="token-refresh")
        if self._timer is not None:
            self._timer.cancel()
        next_at = self._life.soonest if self._waiters else self._life.attempt_at
        soon = TICK if self._life.in_flight else min(TICK, max(_SOONEST, next_at - now))
        self._timer = self._call_later(soon, self._proceed)

    async def _fly(self, reason: Reason) -> None:
        try:
            await self._attempt(reason)
        except Exception as error:  # noqa: BLE001 - whatever happens, the token's life must go on
            self._observer.crashed(error)
            self._failed(reason, TokenRequestError("internal", "an internal error occurred; see the log"))

    async def _attempt(self, reason: Reason) -> None:
        candidate = self._candidate
        attempt = await self._request(candidate or self._credentials)
        if attempt.token is not None:
            if candidate is not None:
                self._credentials = candidate
                if self._candidate is candidate:
                    self._candidate = None
            self._last_error = None
            self._obtained(reason, attempt.token, attempt)
        elif attempt.error is not None:
            due = self._life.state(self._clock.now(), self._clock.wall()) in _DUE
            if candidate is not None and attempt.error.may_concern_the_pair and due:
                await self._fall_back(reason, attempt, attempt.error)
            else:
                self._failed(reason, attempt.error, attempt)

    async def _fall_back(self, reason: Reason, denied: _Attempt, denial: TokenRequestError) -> None:
        """Ask with the old pair: the new one is denied, and a token is needed."""
        attempt = await self._request(self._credentials)
        if attempt.token is not None:
            self._last_error = denial
            self._obtained(reason, attempt.token, denied, attempt, candidate_denied=True)
        elif attempt.error is not None:
            self._failed(reason, attempt.error, denied, attempt)

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
        self, reason: Reason, token: AccessToken, *attempts: _Attempt, candidate_denied: bool = False
    ) -> None:
        self._life.obtained(token, self._clock.now(), candidate_denied=candidate_denied)
        self._report(reason, *attempts)
        for waiter in (*_emptied(self._waiters), *_emptied(self._unauthorized_waiters)):
            # The machine may have slept since the request was sent, and what the other waiters do takes time
            # too: a waiter whose turn comes after the token's end waits for the next one.
            if self.current(self._clock.now()) is token:
                self._tell(waiter, token)
            else:
                self._waiters[waiter] = None
        self._proceed()

    def _failed(self, reason: Reason, error: TokenRequestError, *attempts: _Attempt) -> None:
        self._last_error = error
        self._life.failed(self._clock.now(), denied=error.denied, retry_after=error.retry_after)
        self._report(reason, *attempts)
        self._proceed()
        # An unauthorized request has a response to pass on; one without a token waits for the next attempt.
        disappointed = _emptied(self._unauthorized_waiters)
        if self._life.permanent:
            disappointed += _emptied(self._waiters)
        for waiter in disappointed:
            self._tell(waiter, self._unavailable())

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

    def _unavailable(self) -> TokenUnavailable:
        error = self._last_error
        return TokenUnavailable(
            "there is no valid token"
            if error is None
            else "there is no valid token: the last token request failed "
            f"({error.kind}{f': {error.detail}' if error.denied else ''})",
            retry_after=max(1.0, self._life.attempt_at - self._clock.now()),
            permanent=self._life.permanent and (error is None or error.blames_credentials),
        )


def _emptied(waiters: dict[TokenWaiter, None]) -> list[TokenWaiter]:
    """Take all waiters out, so that what they do on hearing can't disturb the round."""
    taken = list(waiters)
    waiters.clear()
    return taken
