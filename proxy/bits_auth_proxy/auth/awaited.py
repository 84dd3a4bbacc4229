"""What stands in for the `Refresher` while the client's credentials are not there yet: it has no token."""

from bits_auth_proxy.auth.refresher import RefresherStatus
from bits_auth_proxy.auth.tokens import AccessToken, TokenState, TokenUnavailable, TokenWaiter
from bits_auth_proxy.clock import Clock

_DETAIL = "there is no valid token: the proxy is waiting for its credential files"
_SOON = 1.0


class AwaitedCredentials:
    """A `TokenSource` that answers everything at once: there is no token, and there can't be any yet."""

    __slots__ = ("_clock", "reason")

    def __init__(self, *, clock: Clock, reason: str) -> None:
        """Take the reason why the credentials can't be read, for the status."""
        self._clock = clock
        self.reason = reason

    def start(self) -> None:
        """Do nothing: there is nothing to ask with."""

    def close(self) -> None:
        """Do nothing: nobody waits here."""

    def refresh(self) -> float:
        """Return in how many seconds it is worthwhile to ask again."""
        return _SOON

    def status(self) -> RefresherStatus:
        """Return that there is no token."""
        return RefresherStatus(
            state=TokenState.ABSENT,
            token=None,
            expires=None,
            next_refresh=self._clock.wall() + _SOON,
            in_flight=False,
            consecutive_failures=0,
            permanent=False,
            last_error=f"waiting for the credential files: {self.reason}",
        )

    def current(self, now: float) -> AccessToken | None:  # noqa: ARG002 - as in TokenSource
        """Return no token."""
        return None

    def acquire(self, waiter: TokenWaiter) -> None:
        """Tell `waiter` that none will come soon."""
        waiter.token_unavailable(TokenUnavailable(_DETAIL, retry_after=_SOON))

    def unauthorized(self, token: AccessToken, waiter: TokenWaiter) -> None:  # noqa: ARG002
        """Tell `waiter` that there is no other token."""
        self.acquire(waiter)

    def forget(self, waiter: TokenWaiter) -> None:
        """Do nothing: nobody waits here."""
