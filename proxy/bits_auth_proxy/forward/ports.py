"""Every port of the data path: the protocols through which its parts meet each other and their observers.

No method of a port raises, unless its docstring says so.
"""

from typing import TYPE_CHECKING, Final, Protocol

from bits_auth_proxy.forward.problems import Problem
from bits_auth_proxy.forward.record import RequestRecord
from bits_auth_proxy.http1.messages import Field, ResponseHead

if TYPE_CHECKING:
    from bits_auth_proxy.forward.upstream import UpstreamConnection


# The ports of a client's connection.

UNIX_PEER: Final = "unix"
"""The peer of a connection to a Unix socket, which has no address."""


class Sender(Protocol):
    """The sender of a request."""

    peer: str
    """The client's address without its port, or UNIX_PEER."""

    @property
    def scheme(self) -> bytes:
        """The scheme that the client uses: http or https."""
        ...


class Client(Sender, Protocol):
    """The client's connection, as its current exchange sees it."""

    blocked: bool
    """Whether the client does not take bytes fast enough."""

    @property
    def draining(self) -> bool:
        """Whether the proxy is shutting down, so that no connection should be kept."""
        ...

    def send(self, data: bytes) -> None:
        """Write bytes of the response."""
        ...

    def unsent(self) -> int:
        """Return the number of bytes that the client has not taken yet."""
        ...

    def resume_request(self) -> None:
        """Continue with the request's content, because the exchange takes more of it again."""
        ...

    def open_tunnel(self) -> None:
        """Treat all bytes from now on as the tunnel's. The request lasts until the client ends its half."""
        ...

    def send_eof(self) -> None:
        """End the half of the tunnel that leads to the client."""
        ...

    def exchange_over(self, *, keep_alive: bool) -> None:
        """The response has been sent; with `keep_alive` the connection is free for the next request."""
        ...

    def abort(self) -> None:
        """Cut the connection in a way that can't be taken for a clean end."""
        ...


class OpenConnection(Protocol):
    """A client's connection, as the ticker and the shutdown see it."""

    def check(self, now: float) -> None:
        """End whatever has taken too long."""
        ...

    def close_if_idle(self) -> None:
        """Close the connection unless a request is under way."""
        ...

    def retire(self) -> None:
        """Serve no further request if the client came in with a certificate, which must be verified anew."""
        ...

    def abort(self) -> None:
        """Cut the connection."""
        ...


# The ports of a connection to the API.


class ResponseSink(Protocol):
    """The exchange that a connection to the API serves."""

    def response_interim(self, head: ResponseHead) -> None:
        """Take a 1xx response."""
        ...

    def response_head(self, head: ResponseHead, length: int) -> None:
        """Take the final head; `length` is `ResponseHead.length`, corrected for a response to HEAD."""
        ...

    def response_body(self, content: bytes) -> None:
        """Take content, without its framing."""
        ...

    def response_end(self, trailers: list[Field]) -> None:
        """Take the end of the response."""
        ...

    def response_flush(self) -> None:
        """Act on what one read has yielded, all of which has been reported now."""
        ...

    def upstream_lost(self, problem: Problem, *, answered: bool) -> None:
        """The connection can't be used any more; `answered` says whether any byte of a response came."""
        ...

    def upstream_writable(self) -> None:
        """The API takes bytes again, after it was blocked."""
        ...


class ConnectionKeeper(Protocol):
    """The pool, as a connection to the API sees it."""

    def release(self, connection: "UpstreamConnection") -> None:
        """Take back a connection that can serve again."""
        ...

    def lost(self, connection: "UpstreamConnection") -> None:
        """Remove a connection that has closed."""
        ...


class Connector(Protocol):
    """Makes connections to the API; see `dialing.Dialer`."""

    async def connect(self, keeper: ConnectionKeeper) -> "UpstreamConnection":
        """Return a connection that is ready for a request. Raises DialError."""
        ...


class PoolWaiter(Protocol):
    """An exchange that waits for a connection.

    The pool calls one of the two methods, once, and never before `Pool.wait` has returned.
    """

    def connection_ready(self, connection: "UpstreamConnection") -> None:
        """Take the connection, which now belongs to the waiter."""
        ...

    def connection_failed(self, problem: Problem) -> None:
        """No connection could be made."""
        ...


# The ports of observers.


class TrafficObserver(Protocol):
    """Is notified of the data path's events. Its methods are on the hot path, so they return quickly."""

    def exchange_started(self) -> None:
        """A request was admitted and is in flight now."""
        ...

    def exchange_ended(self, record: RequestRecord) -> None:
        """A request that had been admitted has ended, in whatever way."""
        ...

    def request_rejected(self, reason: str, peer: str, request_id: bytes, detail: str | None = None) -> None:
        """A request was rejected before it was admitted; `reason` is a problem's code.

        `detail` is what the client is told beside it.
        """
        ...

    def handshake_failed(self, detail: str, peer: str) -> None:
        """A client's TLS handshake failed, so there was no request."""
        ...

    def retried(self, reason: str) -> None:
        """A request is sent again; `reason` is `token_refused` or `connection_lost`."""
        ...

    def token_forbidden(self) -> None:
        """The API answered 403 to a token that it had not accepted before."""
        ...

    def upstream_connected(self, outcome: str, detail: str, duration: float) -> None:
        """An attempt to connect to the API ended after `duration` seconds.

        `outcome` is `ok` or a problem's code; `detail` says more about a failure, for the operator.
        """
        ...

    def crashed(self, error: BaseException) -> None:
        """An exception escaped where none should."""
        ...
