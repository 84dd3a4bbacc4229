"""Keeps a valid token in hand: the I/O around `lifecycle`, and the `TokenSource` of the data path.

It holds the waiting requests and runs the flight. A flight that takes too long counts as failed and is left
to itself: another may begin, and a token that it brings late is still welcome. It looks at the clock at least
once a second, because the event loop's timers stand still while the machine sleeps.

The module is longer than others because the flight, the requests that wait for it and the clock change the
same state.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Final, NamedTuple, final

from bits_auth_proxy.auth import schedule
from bits_auth_proxy.auth.bits_oauth import TOTAL_TIMEOUT, ClientCredentials, TokenRequestError
from bits_auth_proxy.auth.customers import CustomerCheck
from bits_auth_proxy.auth.lifecycle import WORTH_WAITING, Lifecycle, Reason, Replacement
from bits_auth_proxy.auth.ports import CandidateStatus, RefresherStatus, RefreshObserver, TokenEndpoint
from bits_auth_proxy.auth.tokens import AccessToken, TokenState, TokenUnavailable, TokenWaiter
from bits_auth_proxy.clock import Clock
from bits_auth_proxy.tasks import TaskOwner

TICK: Final = 1.0
"""Seconds between looks at the clock, at most."""
EARLY_DEATHS: Final = 3
"""So many tokens in a row that the API refuses before their time are no accident."""
OVERDUE_LIMIT: Final = TOTAL_TIMEOUT + 1.0
"""Seconds after which a flight is cancelled that goes on although its endpoint should have given up."""
_SOONEST: Final = 0.01


class _Attempt(NamedTuple):
    """A token request that has ended, with a token or with an error."""

    duration: float
    token: AccessToken | None = None
    lifetime_assumed: bool = False
    error: TokenRequestError | None = None


@final
class _Candidate:
    """Credentials that have not brought a token yet. `since` is in seconds since the Unix epoch."""

    __slots__ = ("credentials", "error", "since")

    def __init__(self, credentials: ClientCredentials, since: float) -> None:
        self.credentials: Final = credentials
        self.since: Final = since
        self.error: TokenRequestError | None = None


@final
class _Flight:
    """An attempt to get a token, with the candidate if there is one."""

    __slots__ = ("candidate", "credentials", "limit", "reason", "started", "task")

    def __init__(
        self,
        reason: Reason,
        *,
        credentials: ClientCredentials,
        candidate: _Candidate | None,
        started: float,
        limit: float,
    ) -> None:
        self.reason: Final = reason
        self.credentials: Final = credentials
        self.candidate: Final = candidate
        self.started: Final = started
        self.limit: Final = limit
        self.task: asyncio.Task[None] | None = None


class Refresher:
    """The token of one client, always valid as far as the token endpoint allows."""

    __slots__ = (
        "_again",
        "_call_later",
        "_candidate",
        "_clock",
        "_closed",
        "_conceal",
        "_credentials",
        "_customers",
        "_doubted",
        "_endpoint",
        "_flight",
        "_last_error",
        "_life",
        "_look",
        "_looked_at",
        "_observer",
        "_overdue",
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
        look: Callable[[], None],
        observer: RefreshObserver,
        expected_customer: str | None = None,
        allow_customer_change: bool = False,
    ) -> None:
        """Take the endpoint and the pair for it; nothing happens before `start`.

        `patience` is how many seconds a request waits for a token. `conceal` gets every new token before
        anything else does, so that no log line can show it. `look` has the credential files read at once: a
        denial may mean that they hold another pair by now; it must return at once. `CustomerCheck` says what
        the last two mean.
        """
        self._endpoint = endpoint
        self._credentials = credentials
        self._candidate: _Candidate | None = None
        self._clock = clock
        self._tasks = tasks
        self._call_later = call_later
        self._patience = patience
        self._conceal = conceal
        self._look = look
        self._observer = observer
        self._customers = CustomerCheck(
            fetch=endpoint.fetch_customer_id,
            sleep=self._sleep,
            expected=expected_customer,
            allow_change=allow_customer_change,
        )
        self._life = Lifecycle(now=clock.now(), rng=rng)
        # Without a frame of Python code in between: every request asks.
        self.current = self._life.current
        self.steady = self._life.steady
        # Ordered: who waits longest hears first.
        self._waiters: dict[TokenWaiter, None] = {}
        self._unauthorized_waiters: dict[TokenWaiter, None] = {}
        self._again: dict[TokenWaiter, None] = {}
        """Those whose token the API may not know yet."""
        self._doubted: tuple[str, AccessToken] | None = None
        """The operation whose 401 forced the last flight, and the token, which the 401 may not concern."""
        self._flight: _Flight | None = None
        self._overdue: set[_Flight] = set()
        self._looked_at = float("-inf")
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
        for waiter in self._all_waiters():
            self._tell(waiter, self.explain())

    def change_credentials(self, credentials: ClientCredentials) -> None:
        """Try other credentials at once. They replace the present ones when they have brought a token."""
        now = self._clock.now()
        if credentials.authorization == self._credentials.authorization:
            self._candidate = None
            self._life.candidate_withdrawn(now)
        else:
            self._candidate = _Candidate(credentials, self._clock.wall())
            self._life.credentials_changed(now)
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
        token, candidate = self._life.token, self._candidate
        return RefresherStatus(
            state=self._life.state(now, wall),
            token=token,
            expires=None if token is None else token.issued_wall + (token.expires_at - token.issued_at),
            next_refresh=wall + max(0.0, self._life.next_at(wanted=False) - now),
            in_flight=self._life.in_flight,
            consecutive_failures=self._life.failures,
            permanent=self._life.permanent,
            last_error=_detail(self._last_error),
            client_id=self._credentials.client_id,
            candidate=candidate
            and CandidateStatus(candidate.credentials.client_id, candidate.since, _detail(candidate.error)),
        )

    # The TokenSource.

    def acquire(self, waiter: TokenWaiter) -> None:
        """Tell `waiter` as soon as a valid token is there, or that none will come in time; maybe at once."""
        # A flight may have outlived its time while the machine slept.
        self._proceed()
        now, life = self._clock.now(), self._life
        token = self.current(now)
        if token is not None:
            waiter.token_ready(token)
            return
        hopeless = not life.in_flight and life.next_at(wanted=True) - now > self._patience
        if self._closed or life.permanent or hopeless:
            life.wanted(now)
            waiter.token_unavailable(self.explain())
        else:
            self._waiters[waiter] = None
        self._proceed()

    def accept(self, token: AccessToken, operation: str) -> None:
        """Take note that the API accepted `token`; those whose request it refused before try again."""
        self._life.accepted(token, operation)
        if self._doubted is not None and self._doubted[0] == operation and self._doubted[1] is not token:
            # Another token is accepted for the same operation, so the 401 did concern the token.
            self._observer.token_unauthorized(self._doubted[1])
            self._doubted = None
        if self._again:
            current = self.current(self._clock.now())
            for waiter in _emptied(self._again):
                self._tell(waiter, current or self.explain())

    def unauthorized(
        self, token: AccessToken, operation: str, waiter: TokenWaiter, *, repeated: bool = False
    ) -> None:
        """Report that the API answered 401 to `token`; `waiter` hears what it can have instead."""
        now, wall, life = self._clock.now(), self._clock.wall(), self._life
        trusted, deaths = life.state(now, wall) is not TokenState.SUSPECT, life.early_deaths
        replacement = life.unauthorized(token, operation, now, repeated=repeated)
        if trusted and life.state(now, wall) is TokenState.SUSPECT:
            self._observer.token_unauthorized(token)
            self._look_soon(now)
        elif replacement is Replacement.COMING and trusted and token is life.token:
            self._doubted = operation, token
        if EARLY_DEATHS <= life.early_deaths > deaths:
            self._observer.tokens_die_early(life.early_deaths)
        alternative = life.alternative(token, now)
        if replacement is Replacement.AT_HAND and alternative is not None:
            waiter.token_ready(alternative)
        elif self._closed or replacement is Replacement.NONE:
            waiter.token_unavailable(self.explain())
        elif self.current(now) is None:
            self.acquire(waiter)
            return
        elif replacement is Replacement.AGAIN:
            self._again[waiter] = None
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
        if self._closed:
            return TokenUnavailable("the proxy is shutting down", retry_after=1.0)
        error, life = self._last_error, self._life
        if error is None and self._candidate is not None:
            error = self._candidate.error
        wait = 0.0 if life.in_flight else life.next_at(wanted=not life.permanent) - self._clock.now()
        return TokenUnavailable(
            "there is no valid token"
            if error is None
            else f"there is no valid token: the last token request failed ({error.kind}: {error.detail})",
            retry_after=max(1.0, wait),
            permanent=life.permanent and (error is None or error.blames_credentials),
        )

    # The clock.

    def _proceed(self) -> None:
        """Begin a flight if one is due, end one that takes too long, and set the next look at the clock."""
        if self._closed:
            return
        now, life = self._clock.now(), self._life
        self._end_overdue(now)
        reason = life.flight_due(now, self._clock.wall(), wanted=bool(self._waiters))
        if reason is not None:
            self._begin(reason, now)
        if self._again and now >= life.try_at:
            # One tries; if it is accepted, the others follow.
            waiter = next(iter(self._again))
            del self._again[waiter]
            self._tell(waiter, self.current(now) or self.explain())
        flight = self._flight
        if flight is None:
            next_at = life.next_at(wanted=bool(self._waiters))
        else:
            next_at = flight.started + flight.limit
        if self._again:
            next_at = min(next_at, life.try_at)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._call_later(min(TICK, max(_SOONEST, next_at - now)), self._proceed)

    def _end_overdue(self, now: float) -> None:
        flight = self._flight
        if flight is not None and now - flight.started >= flight.limit:
            self._leave(flight)
            self._failed(flight, _no_response(flight.limit), overdue=True)
        for flight in [each for each in self._overdue if now - each.started >= OVERDUE_LIMIT]:
            self._fail_late(flight, _Attempt(now - flight.started, error=_no_response(OVERDUE_LIMIT)))
            if flight.task is not None:
                flight.task.cancel()

    def _look_soon(self, now: float) -> None:
        """Have the credential files read, but not more than once a second."""
        if now - self._looked_at >= TICK:
            self._looked_at = now
            self._look()

    async def _sleep(self, seconds: float) -> None:
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        timer = self._call_later(seconds, partial(_finish, over))
        try:
            await over
        finally:
            timer.cancel()

    # The flight.

    def _begin(self, reason: Reason, now: float) -> None:
        candidate = self._candidate if reason is Reason.CREDENTIALS else None
        flight = self._flight = _Flight(
            reason,
            credentials=self._credentials if candidate is None else candidate.credentials,
            candidate=candidate,
            started=now,
            limit=self._life.flight_started(now, reason),
        )
        flight.task = self._tasks.start(self._fly(flight), name="token-refresh")

    def _leave(self, flight: _Flight) -> None:
        """Leave `flight` to itself."""
        self._flight = None
        self._overdue.add(flight)

    async def _fly(self, flight: _Flight) -> None:
        try:
            attempt = await self._request(flight)
            if attempt.token is not None:
                self._obtained(flight, attempt.token, attempt)
            elif attempt.error is not None and flight is self._flight:
                self._failed(flight, attempt.error, attempt)
            elif flight in self._overdue:
                self._fail_late(flight, attempt)
        except asyncio.CancelledError:
            if flight is self._flight and not self._closed:
                self._failed(flight, TokenRequestError("internal", "the attempt was cancelled"))
            raise
        except Exception as error:  # noqa: BLE001 - whatever happens, the token's life must go on
            self._observer.crashed(error)
            if flight is self._flight:
                self._failed(flight, TokenRequestError("internal", "an internal error occurred; see the log"))
        finally:
            self._overdue.discard(flight)

    async def _request(self, flight: _Flight) -> _Attempt:
        # The lifetime counts from before the request is sent: the server can't have begun earlier.
        issued_at, issued_wall = self._clock.now(), self._clock.wall()
        try:
            grant = await self._endpoint.fetch_token(flight.credentials)
            self._conceal(grant.value)
            token = AccessToken(
                grant.value,
                issued_at=issued_at,
                issued_wall=issued_wall,
                lifetime=grant.lifetime,
                margin=schedule.safety_margin(grant.lifetime),
                scope=grant.scope,
            )
            if flight.candidate is None:
                await self._customers.check_in_use(token)
            else:
                await self._customers.check_candidate(token, self.current(self._clock.now()))
        except TokenRequestError as error:
            return _Attempt(self._clock.now() - issued_at, error=error)
        return _Attempt(self._clock.now() - issued_at, token=token, lifetime_assumed=grant.lifetime_assumed)

    def _obtained(self, flight: _Flight, token: AccessToken, attempt: _Attempt) -> None:
        life, candidate = self._life, flight.candidate
        late = flight is not self._flight
        if late and life.token is not None and life.token.issued_at >= token.issued_at:
            return
        taken = candidate is not None and candidate is self._candidate
        if late and not taken and flight.credentials is not self._credentials:
            # Meanwhile another pair has come into use.
            return
        if late and self._flight is not None:
            self._leave(self._flight)
        self._flight = None
        self._credentials = flight.credentials
        if taken:
            self._candidate = None
        self._last_error = None
        life.obtained(token, self._clock.now(), candidate_taken=taken)
        self._report(flight, attempt)
        for waiter in self._all_waiters():
            # The machine may have slept since the request was sent, and what the other waiters do takes time
            # too: a waiter whose turn comes after the token's end waits for the next one.
            current = self.current(self._clock.now())
            if current is None:
                self._waiters[waiter] = None
            else:
                self._tell(waiter, current)
        self._proceed()

    def _failed(
        self,
        flight: _Flight,
        error: TokenRequestError,
        attempt: _Attempt | None = None,
        *,
        overdue: bool = False,
    ) -> None:
        life, now, candidate = self._life, self._clock.now(), flight.candidate
        self._flight = None
        # Why it is overdue may be known from the one before.
        if candidate is None:
            life.failed(now, denied=error.denied, retry_after=error.retry_after)
            self._last_error = (self._last_error if overdue else None) or error
        else:
            life.candidate_failed(now, denied=error.denied, retry_after=error.retry_after)
            candidate.error = (candidate.error if overdue else None) or error
        if attempt is not None:
            self._report(flight, attempt)
        if error.denied:
            self._look_soon(now)
        # An unauthorized request has a response to pass on; one without a token waits for the next attempt.
        disappointed = []
        if life.permanent or life.next_at(wanted=False) > now + WORTH_WAITING:
            disappointed += _emptied(self._unauthorized_waiters)
        if life.permanent or life.next_at(wanted=True) > now + self._patience:
            disappointed += _emptied(self._waiters)
        self._proceed()
        for waiter in disappointed:
            self._tell(waiter, self.explain())

    def _fail_late(self, flight: _Flight, attempt: _Attempt) -> None:
        """Learn why a flight failed that has counted as failed for a while."""
        self._overdue.discard(flight)
        if flight.candidate is not None:
            flight.candidate.error = attempt.error
        elif self._life.failures:
            self._last_error = attempt.error
        self._report(flight, attempt)

    def _all_waiters(self) -> list[TokenWaiter]:
        return [*_emptied(self._waiters), *_emptied(self._unauthorized_waiters), *_emptied(self._again)]

    def _report(self, flight: _Flight, attempt: _Attempt) -> None:
        """Let the observer hear of an attempt after the lifecycle did. Its trouble costs no token."""
        client_id, reason, duration = flight.credentials.client_id, flight.reason, attempt.duration
        try:
            if attempt.token is not None:
                self._observer.token_obtained(
                    attempt.token, reason, duration, assumed=attempt.lifetime_assumed, client_id=client_id
                )
                if flight.candidate is not None:
                    self._observer.credentials_adopted(client_id)
            elif attempt.error is not None:
                candidate = flight.candidate is not None
                self._observer.token_failed(
                    attempt.error,
                    reason,
                    duration,
                    state=self._life.state(self._clock.now(), self._clock.wall()),
                    failures=self._life.candidate_failures if candidate else self._life.failures,
                    client_id=client_id,
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


def _finish(wait: asyncio.Future[None]) -> None:
    if not wait.done():
        wait.set_result(None)


def _no_response(limit: float) -> TokenRequestError:
    return TokenRequestError("timeout", f"there was no complete response within {limit:g} s")


def _detail(error: TokenRequestError | None) -> str | None:
    return None if error is None else error.detail


def _emptied(waiters: dict[TokenWaiter, None]) -> list[TokenWaiter]:
    """Take all waiters out, so that what they do on hearing can't disturb the round."""
    taken = list(waiters)
    waiters.clear()
    return taken
