"""The access token as a value, its states, and the port through which requests get it.

Nothing here does I/O or knows where tokens come from.
"""

import hashlib
from enum import Enum
from typing import Final, Protocol, final


class TokenState(Enum):
    """Health of the token in hand. FRESH, STALE and SUSPECT serve requests; the others can't."""

    ABSENT = "absent"
    """No token has been obtained yet."""
    FRESH = "fresh"
    """Valid, and not yet due for refresh."""
    STALE = "stale"
    """Due for refresh, still valid."""
    SUSPECT = "suspect"
    """The API has answered 401 to it; still valid by the clock."""
    EXPIRED = "expired"
    """No longer valid; never sent."""


@final
class AccessToken:
    """A Bearer token (RFC 6750) with its life span. Never shows its value: see `fingerprint`.

    All instants are seconds of `Clock.now()`, except `issued_wall`, which is in seconds since the Unix epoch.
    """

    __slots__ = (
        "_value",
        "expires_at",
        "fingerprint",
        "header_line",
        "issued_at",
        "issued_wall",
        "lifetime",
        "scope",
    )

    def __init__(
        self,
        value: str,
        *,
        issued_at: float,
        issued_wall: float,
        lifetime: float,
        margin: float = 0.0,
        scope: str | None = None,
    ) -> None:
        """Take a token, requested at `issued_at`, that lives for `lifetime` seconds according to the server.

        It expires `margin` seconds earlier than that, so that no token expires on its way to the API.
        Raises ValueError, without the value, if the token can't be part of a header field.
        """
        if not value or not all("!" <= character <= "~" for character in value):
            raise ValueError("the access token contains characters that are not allowed in a header field")
        self._value: Final = value
        self.header_line: Final = b"Authorization: Bearer " + value.encode("ascii") + b"\r\n"
        self.fingerprint: Final = hashlib.sha256(value.encode("ascii")).hexdigest()[:8]
        self.issued_at: Final = issued_at
        self.issued_wall: Final = issued_wall
        self.lifetime: Final = lifetime
        self.expires_at: Final = issued_at + lifetime - margin
        self.scope: Final = scope

    def __repr__(self) -> str:
        return (
            f"AccessToken(fingerprint={self.fingerprint!r}, scope={self.scope!r}, lifetime={self.lifetime:g})"
        )

    def __reduce__(self) -> str | tuple[object, ...]:
        raise TypeError("an access token can't be pickled")

    def reveal(self) -> str:
        """Return the token itself. Only for building requests, and for the log's redactor."""
        return self._value


@final
class TokenUnavailable:
    """Why there is no token now. `detail` is safe to show; `retry_after` is in seconds."""

    __slots__ = ("detail", "permanent", "retry_after")

    def __init__(self, detail: str, *, retry_after: float, permanent: bool = False) -> None:
        self.detail: Final = detail
        self.retry_after: Final = retry_after
        self.permanent: Final = permanent


class TokenWaiter(Protocol):
    """Waits for a token. Exactly one of the two methods is called, once."""

    def token_ready(self, token: AccessToken) -> None:
        """Take the token; it is valid now."""
        ...

    def token_unavailable(self, reason: TokenUnavailable) -> None:
        """Take the reason why waiting any longer would not help."""
        ...


class TokenSource(Protocol):
    """The source of the data path's token. All calls are synchronous and cheap."""

    def current(self, now: float) -> AccessToken | None:
        """Return the token to send at `now`, or None if there is no valid one."""
        ...

    def acquire(self, waiter: TokenWaiter) -> None:
        """Notify `waiter` once there is a valid token, or if none will come. This may be before returning.

        The caller limits the wait and ends it with `forget`.
        """
        ...

    def unauthorized(self, token: AccessToken, waiter: TokenWaiter) -> None:
        """Report that the API answered 401 to `token`.

        `waiter` gets a valid token other than `token`, immediately or after the refresh that this may start,
        or is notified that there is none.
        """
        ...

    def forget(self, waiter: TokenWaiter) -> None:
        """End the wait of `waiter`, which has left or has waited long enough. Unknown waiters are ignored."""
        ...
