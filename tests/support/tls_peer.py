"""A TLS client that sends and hears every step apart: records, close_notify, FIN."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator

from tests.support.waiting import HANGS


class TlsPeer:
    """One connection to the proxy."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, context: ssl.SSLContext
    ) -> None:
        self.reader = reader
        self.writer = writer
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self.session = context.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")

    async def handshake(self, first: bytes = b"") -> None:
        """Complete the handshake; its end and `first` go in one piece. Raises ssl.SSLError."""
        while True:
            try:
                self.session.do_handshake()
            except ssl.SSLWantReadError:
                await self._exchange()
            else:
                if first:
                    self.session.write(first)
                self._write()
                return

    def send(self, data: bytes) -> None:
        """Send plaintext."""
        self.session.write(data)
        self._write()

    def say_goodbye(self) -> None:
        """Send close_notify, and no FIN."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.session.unwrap()
        self._write()

    async def until(self, mark: bytes) -> bytes:
        """Read plaintext up to `mark`."""
        data = b""
        while not data.endswith(mark):
            data += await self._read(1)
        return data

    async def rest(self) -> bytes:
        """Read plaintext up to close_notify. Raises EOFError at a FIN without it."""
        data = b""
        while piece := await self.read():
            data += piece
        return data

    async def read(self) -> bytes:
        """Read what comes next: nothing at close_notify. Raises EOFError at a FIN without it."""
        return await self._read(65_536)

    async def _read(self, size: int) -> bytes:
        while True:
            try:
                return self.session.read(size)
            except ssl.SSLWantReadError:
                await self._exchange()
            except ssl.SSLZeroReturnError:  # After a close_notify of our own.
                return b""

    def _write(self) -> None:
        if data := self._outgoing.read():
            self.writer.write(data)

    async def _exchange(self) -> None:
        self._write()
        async with asyncio.timeout(HANGS):
            data = await self.reader.read(65_536)
        if not data:
            raise EOFError
        self._incoming.write(data)


@contextlib.asynccontextmanager
async def tls_peer(
    address: tuple[str, int], context: ssl.SSLContext, first: bytes = b""
) -> AsyncIterator[TlsPeer]:
    """Connect to the proxy and complete the handshake, `first` with it."""
    reader, writer = await asyncio.open_connection(*address)
    try:
        peer = TlsPeer(reader, writer, context)
        await peer.handshake(first)
        yield peer
    finally:
        writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
