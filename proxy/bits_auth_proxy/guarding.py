"""Limits on the connections of an HTTP server that has none of its own, such as aiohttp's."""

import asyncio
from collections.abc import Callable
from typing import Final, cast, final


@final
class ConnectionGuard:
    """Keeps the number of connections below a limit, and closes those that never send a byte.

    At the limit, a new connection takes the place of the oldest one. So whoever holds connections open can't
    keep a probe out.
    """

    __slots__ = ("_first_byte_timeout", "_limit", "_open")

    def __init__(self, *, limit: int, first_byte_timeout: float) -> None:
        """Allow `limit` connections. The first byte must come within `first_byte_timeout` seconds."""
        self._limit: Final = limit
        self._first_byte_timeout: Final = first_byte_timeout
        self._open: dict[_GuardedConnection, None] = {}

    def factory(self, make: Callable[[], asyncio.Protocol]) -> Callable[[], asyncio.Protocol]:
        """Return a factory for the protocols that `make` makes, with the limits around them."""
        return lambda: _GuardedConnection(self, make())

    def opened(self, connection: "_GuardedConnection") -> asyncio.TimerHandle:
        """Add a connection, for which the oldest one may have to go. Returns the timer of its first byte."""
        if len(self._open) >= self._limit:
            oldest = next(iter(self._open))
            del self._open[oldest]
            oldest.abort()
        self._open[connection] = None
        return asyncio.get_running_loop().call_later(self._first_byte_timeout, connection.abort)

    def closed(self, connection: "_GuardedConnection") -> None:
        """Remove a connection."""
        self._open.pop(connection, None)


@final
class _GuardedConnection(asyncio.Protocol):
    """Passes everything on to the protocol of the server."""

    __slots__ = ("_first_byte", "_guard", "_inner", "_transport")

    def __init__(self, guard: ConnectionGuard, inner: asyncio.Protocol) -> None:
        self._guard = guard
        self._inner = inner
        self._transport: asyncio.Transport | None = None
        self._first_byte: asyncio.TimerHandle | None = None

    def abort(self) -> None:
        """Cut the connection."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._first_byte = self._guard.opened(self)
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        self._end_wait()
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_wait()
        self._guard.closed(self)
        self._transport = None
        self._inner.connection_lost(exc)

    def _end_wait(self) -> None:
        if self._first_byte is not None:
            self._first_byte.cancel()
            self._first_byte = None
