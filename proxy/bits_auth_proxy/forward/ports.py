"""What the data path tells about itself. Telemetry implements it; nothing here knows metrics or logs."""

from typing import Protocol

from bits_auth_proxy.http1.messages import RequestHead


class ExchangeRecord(Protocol):
    """What is known of an exchange at its end. Instants are seconds of `Clock.now()`, 0.0 where unset."""

    operation: str
    """The RPC's name as in the path, e.g. `applications.create`, or `other`."""
    method: bytes
    status: int
    """The status sent to the client; 499 when it left before there was one."""
    problem: str
    """The code of the problem answered by the proxy or met on the way, else empty."""
    request_id: bytes
    started: float
    token_at: float
    """When a valid token was in hand, or was waited for no longer; equals `started` when it was at once."""
    sent: float
    """When the request's head went to the API (for the last time, if it was sent again)."""
    answered: float
    """When the API's final head had arrived."""
    ended: float
    request_bytes: int
    response_bytes: int
    head: RequestHead


class TrafficObserver(Protocol):
    """Hears of the data path's events. Called in the hot path: every method returns quickly, none raises."""

    def exchange_started(self) -> None:
        """A request was accepted for forwarding."""
        ...

    def exchange_ended(self, record: ExchangeRecord) -> None:
        """A request accepted for forwarding has come to its end, whatever that was."""
        ...

    def request_rejected(self, reason: str, peer: str, request_id: bytes) -> None:
        """A request was refused before forwarding; `reason` is a problem's code."""
        ...

    def handshake_failed(self, detail: str, peer: str) -> None:
        """A client's TLS handshake came to no end, so there was no request."""
        ...

    def retried(self, reason: str) -> None:
        """A request is sent again; `reason` is `token_refused` or `connection_lost`."""
        ...

    def upstream_connected(self, outcome: str, detail: str, duration: float) -> None:
        """A connection attempt to the API ended: `ok` or a problem's code, after `duration` seconds.

        `detail` says more about a failure, for the operator.
        """
        ...

    def crashed(self, error: BaseException) -> None:
        """An exception escaped where none should."""
        ...
