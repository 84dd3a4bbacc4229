"""The JSON documents of `/status` and `/activity`. They hold no secrets; a fingerprint names the token."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

from bits_auth_proxy import __version__
from bits_auth_proxy.admin.health import Health
from bits_auth_proxy.auth.refresher import RefresherStatus
from bits_auth_proxy.clock import Clock

Document = dict[str, Any]


class ConnectionCounts(Protocol):
    """How many connections there are, with clients and to the API."""

    @property
    def clients(self) -> int:
        """Connections of clients."""
        ...

    @property
    def upstream_connections(self) -> Mapping[str, int]:
        """Connections to the API, by state."""
        ...


class Numbers(Protocol):
    """What is counted."""

    def numbers(self) -> Mapping[str, Any]:
        """Return all metrics."""
        ...

    def totals(self) -> Mapping[str, int]:
        """Return a few sums, for people."""
        ...


class History(Protocol):
    """What happened lately. All lists are JSON-ready and begin with the newest entry."""

    def exchanges(self) -> Sequence[Mapping[str, Any]]:
        """Return the last requests that were forwarded."""
        ...

    def rejections(self) -> Sequence[Mapping[str, Any]]:
        """Return the last requests that were rejected."""
        ...

    def refreshes(self) -> Sequence[Mapping[str, Any]]:
        """Return the last token requests."""
        ...


class Listening(Protocol):
    """Where the proxy listens; empty before it does."""

    @property
    def addresses(self) -> Sequence[object]:
        """For clients."""
        ...

    @property
    def admin_addresses(self) -> Sequence[object]:
        """For probes, metrics and the admin page."""
        ...


class Status:
    """Builds the documents from the present state. Durations are seconds, instants are Unix time."""

    __slots__ = (
        "_api_url",
        "_clock",
        "_health",
        "_history",
        "_inspecting",
        "_listening",
        "_load",
        "_log_level",
        "_numbers",
        "_token",
    )

    def __init__(
        self,
        *,
        api_url: str,
        clock: Clock,
        health: Health,
        token: Callable[[], RefresherStatus],
        load: Callable[[], ConnectionCounts],
        listening: Listening,
        numbers: Numbers,
        history: History,
        log_level: Callable[[], str],
        inspecting: bool,
    ) -> None:
        """Take where to read; `inspecting` tells whether headers and bodies are kept."""
        self._api_url: Final = api_url
        self._clock: Final = clock
        self._health: Final = health
        self._token: Final = token
        self._load: Final = load
        self._listening: Final = listening
        self._numbers: Final = numbers
        self._history: Final = history
        self._log_level: Final = log_level
        self._inspecting: Final = inspecting

    def status(self) -> Document:
        """Return the document of `/status`: the token's health and every metric."""
        return {**self._state(), "metrics": self._numbers.numbers()}

    def activity(self) -> Document:
        """Return the document of `/activity`: the present state and what happened lately."""
        return {
            "timestamp_seconds": self._clock.wall(),
            "listen": [str(address) for address in self._listening.addresses],
            "admin": [str(address) for address in self._listening.admin_addresses],
            **self._state(),
            "log_level": self._log_level(),
            "inspecting": self._inspecting,
            "totals": self._numbers.totals(),
            "exchanges": self._history.exchanges(),
            "rejections": self._history.rejections(),
            "refreshes": self._history.refreshes(),
        }

    def _state(self) -> Document:
        load = self._load()
        return {
            "version": __version__,
            "ready": self._health.readiness()._asdict(),
            "api": self._api_url,
            "token": _token_state(self._token()),
            "clients": load.clients,
            "upstream_connections": load.upstream_connections,
        }


def _token_state(status: RefresherStatus) -> Document:
    token = status.token
    return {
        "state": status.state.value,
        "fingerprint": token.fingerprint if token else None,
        "scope": token.scope if token else None,
        "lifetime_seconds": token.lifetime if token else None,
        "issued_timestamp_seconds": token.issued_wall if token else None,
        "expires_timestamp_seconds": status.expires,
        "next_refresh_timestamp_seconds": status.next_refresh,
        "refresh_in_flight": status.in_flight,
        "consecutive_failures": status.consecutive_failures,
        "credentials_refused": status.permanent,
        "last_error": status.last_error,
    }
