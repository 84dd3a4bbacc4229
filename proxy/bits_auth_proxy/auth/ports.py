"""What the token's life needs of the outside, and what it tells the outside."""

from typing import NamedTuple, Protocol

from bits_auth_proxy.auth.bits_oauth import ClientCredentials, TokenGrant, TokenRequestError
from bits_auth_proxy.auth.lifecycle import Reason
from bits_auth_proxy.auth.tokens import AccessToken, TokenState


class TokenEndpoint(Protocol):
    """Where tokens come from."""

    async def fetch_token(self, credentials: ClientCredentials) -> TokenGrant:
        """Return a new token. Raises TokenRequestError."""
        ...

    async def fetch_customer_id(self, token: AccessToken) -> str:
        """Return the customer that `token` belongs to. Raises TokenRequestError."""
        ...


class RefreshObserver(Protocol):
    """Hears of the token's life, always after the lifecycle did. Durations in seconds; no method raises.

    `client_id` tells which pair of credentials was used.
    """

    def token_obtained(
        self, token: AccessToken, reason: Reason, duration: float, *, assumed: bool, client_id: str
    ) -> None:
        """An attempt brought a token; `assumed`: the response did not say how long it lives."""
        ...

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
        """An attempt failed. `state` is that of the token now; `failures` counts failed flights in a row."""
        ...

    def token_unauthorized(self, token: AccessToken) -> None:
        """The API answered 401 to the token in hand."""
        ...

    def tokens_die_early(self, count: int) -> None:
        """The API has refused `count` tokens in a row that it had accepted, before they were due."""
        ...

    def credentials_adopted(self, client_id: str) -> None:
        """The candidate has brought a token, so it is the pair in use from now on."""
        ...

    def crashed(self, error: BaseException) -> None:
        """An exception escaped where none should."""
        ...


class CandidateStatus(NamedTuple):
    """Credentials that are to replace those in use. `since` is in seconds since the Unix epoch."""

    client_id: str
    since: float
    last_error: str | None
    """Why the last attempt with them failed, None before there was one."""


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
    """Why the last attempt with the pair in use failed, None if it succeeded."""
    client_id: str | None = None
    """Of the pair in use, None while there is none."""
    candidate: CandidateStatus | None = None
    """The pair that is to replace it, while that has not brought a token."""
