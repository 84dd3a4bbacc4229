"""Tokens, as the API issues and checks them. Pure, apart from their random values."""

import secrets
from dataclasses import dataclass, field
from typing import Final

from bits_auth_proxy.clock import Clock

APPLICATION: Final = "application"
APPLICATION_READ: Final = "application.read"
APPLICATION_SESSION: Final = "application.session"
SESSION_LIFETIME: Final = 3600.0
_MAX_TOKENS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Grant:
    """What a token allows. A sessionToken is for one application, `application_id`."""

    scope: str
    known_at: float = field(repr=False)
    expires_at: float = field(repr=False)
    application_id: str | None = None


class Tokens:
    """The tokens that are valid at present."""

    def __init__(self, *, clock: Clock) -> None:
        """Begin without a token."""
        self.issued = 0
        self._clock = clock
        # These are separate, so that many sessions don't displace a client's token.
        self._clients: dict[str, Grant] = {}
        self._sessions: dict[str, Grant] = {}

    def issue(self, scope: str, *, lag: float, lifetime: float) -> str:
        """Return a new token for a client, valid from `lag` to `lifetime` seconds after now."""
        self.issued += 1
        now = self._clock.now()
        return _keep(self._clients, Grant(scope, now + lag, now + lifetime))

    def issue_session(self, application_id: str) -> str:
        """Return a new sessionToken, for one application."""
        now = self._clock.now()
        grant = Grant(APPLICATION_SESSION, now, now + SESSION_LIFETIME, application_id)
        return _keep(self._sessions, grant)

    def look_up(self, value: str) -> Grant | None:
        """Return what `value` allows, or None if it is not a token, or is not valid now."""
        grant = self._clients.get(value) or self._sessions.get(value)
        return grant if grant is not None and grant.known_at <= self._clock.now() < grant.expires_at else None

    def revoke_all(self) -> int:
        """Make all tokens invalid; return how many there were."""
        count = len(self._clients) + len(self._sessions)
        self._clients.clear()
        self._sessions.clear()
        return count


def _keep(grants: dict[str, Grant], grant: Grant) -> str:
    if len(grants) >= _MAX_TOKENS:
        del grants[next(iter(grants))]
    value = secrets.token_urlsafe(32)
    grants[value] = grant
    return value
