"""What client connections share: the rules and limits of their listener, and the list of open connections."""

import asyncio
import itertools
from collections.abc import Iterator
from typing import Final, final

from bits_auth_proxy.forward.admission import Admission
from bits_auth_proxy.forward.context import ForwardContext
from bits_auth_proxy.forward.limits import ClientShares, ConnectionLimit
from bits_auth_proxy.forward.ports import OpenConnection


def request_ids(prefix: str) -> Iterator[bytes]:
    """Return an endless iterator of request ids: a prefix that identifies this process, and a count."""
    return map((prefix.encode("ascii") + b"-%08x").__mod__, itertools.count(1))


@final
class Clients:
    """The client connections that are open, over all listeners."""

    __slots__ = ("gone", "limit", "open")

    def __init__(self, limit: ConnectionLimit) -> None:
        """Take the limit. Each open connection holds one of its places."""
        self.limit: Final = limit
        self.open: Final[set[OpenConnection]] = set()
        self.gone: Final = asyncio.Event()
        """Set while no connection is open."""
        self.gone.set()

    def opened(self, connection: OpenConnection) -> None:
        """Add a connection."""
        self.open.add(connection)
        self.gone.clear()

    def closed(self, connection: OpenConnection) -> None:
        """Remove a connection and free its place."""
        self.open.discard(connection)
        self.limit.give()
        if not self.open:
            self.gone.set()


@final
class ListenerContext:
    """What all client connections of a listener share. Sizes are in bytes, durations in seconds."""

    __slots__ = (
        "admission",
        "clients",
        "context",
        "draining",
        "head_timeout",
        "keepalive_timeout",
        "max_fields",
        "max_head",
        "max_line",
        "read_buffer",
        "request_ids",
        "scheme",
        "shares",
    )

    def __init__(
        self,
        *,
        context: ForwardContext,
        scheme: bytes,
        admission: Admission,
        request_ids: Iterator[bytes],
        clients: Clients,
        shares: ClientShares | None,
        read_buffer: memoryview,
        max_line: int,
        max_head: int,
        max_fields: int,
        head_timeout: float,
        keepalive_timeout: float,
    ) -> None:
        self.context: Final = context
        self.scheme: Final = scheme
        self.admission: Final = admission
        self.request_ids: Final = request_ids
        self.clients: Final = clients
        self.shares: Final = shares
        """What each client address may take, if that is limited."""
        self.read_buffer: Final = read_buffer
        self.max_line: Final = max_line
        self.max_head: Final = max_head
        self.max_fields: Final = max_fields
        self.head_timeout: Final = head_timeout
        self.keepalive_timeout: Final = keepalive_timeout
        self.draining = False
