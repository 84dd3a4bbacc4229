"""A token endpoint under the test's control, and a waiter and an observer that remember."""

import asyncio

from bits_auth_proxy.auth.bits_oauth import ClientCredentials, FailureKind, TokenGrant, TokenRequestError
from bits_auth_proxy.auth.lifecycle import Reason
from bits_auth_proxy.auth.tokens import AccessToken, TokenState, TokenUnavailable


class FakeEndpoint:
    """Implements `bits_auth_proxy.auth.refresher.TokenEndpoint`: every request waits to be answered."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        """The client ids of all requests."""
        self.pending: list[asyncio.Future[TokenGrant]] = []
        self.automatic: float | None = None
        """A lifetime with which to answer at once, instead of waiting."""
        self.issued = 0
        self.customer: str | TokenRequestError = "bits:customer::1"
        self.customers: dict[str, str | TokenRequestError] = {}
        """Whom tokens belong to, or why that is not told, where it differs from `customer`."""
        self.customers_asked: list[str] = []

    async def fetch_token(self, credentials: ClientCredentials) -> TokenGrant:
        self.asked.append(credentials.client_id)
        if self.automatic is not None:
            return self._grant(self.automatic)
        future: asyncio.Future[TokenGrant] = asyncio.get_running_loop().create_future()
        self.pending.append(future)
        try:
            return await future
        finally:
            if future in self.pending:  # The caller has given up.
                self.pending.remove(future)

    async def fetch_customer_id(self, token: AccessToken) -> str:
        self.customers_asked.append(token.reveal())
        answer = self.customers.get(token.reveal(), self.customer)
        if isinstance(answer, TokenRequestError):
            raise answer
        return answer

    def grant(self, lifetime: float = 3600.0) -> None:
        """Answer the oldest request with a token."""
        self.pending.pop(0).set_result(self._grant(lifetime))

    def fail(
        self, kind: FailureKind = "server_error", *, code: str = "", retry_after: float | None = None
    ) -> None:
        """Answer the oldest request with a failure."""
        error = TokenRequestError(
            kind, f"emulated: {kind} {code}".rstrip(), code=code, retry_after=retry_after
        )
        self.pending.pop(0).set_exception(error)

    def crash(self, error: Exception) -> None:
        """Let the oldest request raise what it should not."""
        self.pending.pop(0).set_exception(error)

    def _grant(self, lifetime: float) -> TokenGrant:
        self.issued += 1
        return TokenGrant(
            f"token-{self.issued}", lifetime, lifetime_assumed=False, scope="application", date=None
        )


class Waiter:
    """Implements `TokenWaiter`."""

    def __init__(self) -> None:
        self.token: AccessToken | None = None
        self.unavailable: TokenUnavailable | None = None
        self.calls = 0

    def token_ready(self, token: AccessToken) -> None:
        self.token = token
        self.calls += 1

    def token_unavailable(self, reason: TokenUnavailable) -> None:
        self.unavailable = reason
        self.calls += 1


class RefreshLog:
    """Implements `RefreshObserver`."""

    def __init__(self) -> None:
        self.obtained: list[str] = []
        self.failed: list[tuple[str, str]] = []
        self.seen: list[tuple[TokenState, int]] = []
        """The token's state and the failures in a row that came with each failure."""
        self.durations: list[float] = []
        self.concealed: list[str] = []
        self.unauthorized = 0
        self.early_deaths: list[int] = []
        self.adopted: list[str] = []
        self.pairs: list[str] = []
        """The client ids of the attempts that were reported."""
        self.crashes: list[BaseException] = []

    def token_obtained(
        self, token: AccessToken, reason: Reason, duration: float, *, assumed: bool, client_id: str
    ) -> None:
        assert token.reveal() in self.concealed
        self.pairs.append(client_id)
        self.obtained.append(reason.value)
        self.durations.append(duration)

    def token_failed(
        self,
        error: TokenRequestError,
        reason: Reason,
        duration: float,
        *,
        state: TokenState,
        failures: int,
        client_id: str,
    ) -> None:
        self.pairs.append(client_id)
        self.failed.append((error.kind, reason.value))
        self.seen.append((state, failures))
        self.durations.append(duration)

    def token_unauthorized(self, token: AccessToken) -> None:
        self.unauthorized += 1

    def tokens_die_early(self, count: int) -> None:
        self.early_deaths.append(count)

    def credentials_adopted(self, client_id: str) -> None:
        self.adopted.append(client_id)

    def crashed(self, error: BaseException) -> None:
        self.crashes.append(error)
