"""A client whose half of a connection can end before the other half, over TLS too."""

import asyncio
import contextlib
import ssl
from typing import Self

from bits_auth_proxy.settings.addresses import TcpAddress
from tests.support.rawclient import reset_on_close
from tests.support.tls_peer import TlsPeer


class Client:
    """One connection to the proxy."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: TlsPeer | None
    ) -> None:
        """Use `peer`, whose handshake is done, if the connection is over TLS."""
        self._reader = reader
        self._writer = writer
        self._peer = peer

    @classmethod
    async def connect(cls, address: TcpAddress, context: ssl.SSLContext | None) -> Self:
        """Connect, over TLS if a context is given."""
        reader, writer = await asyncio.open_connection(address.host, address.port)
        if context is None:
            return cls(reader, writer, None)
        peer = TlsPeer(reader, writer, context)
        await peer.handshake()
        return cls(reader, writer, peer)

    def send(self, data: bytes) -> None:
        if self._peer is None:
            self._writer.write(data)
        else:
            self._peer.send(data)

    def end_half(self) -> None:
        """Send a FIN, or close_notify over TLS, and go on reading."""
        if self._writer.transport.is_closing():
            return
        if self._peer is None:
            self._writer.write_eof()
        else:
            # OpenSSL refuses while a response lies unread, but has sent the notice by then.
            with contextlib.suppress(ssl.SSLError):
                self._peer.say_goodbye()

    def abort(self) -> None:
        """Send a RST."""
        if not self._writer.transport.is_closing():
            reset_on_close(self._writer)
            self._writer.transport.abort()

    async def read(self) -> bytes:
        """Return bytes, or nothing at the end."""
        if self._peer is None:
            return await self._reader.read(65_536)
        try:
            return await self._peer.read()
        except EOFError:
            return b""

    async def close(self, *, reset: bool = False) -> None:
        """Close the connection, with a RST if wanted."""
        if reset:
            self.abort()
        self._writer.close()
        with contextlib.suppress(OSError):  # raised if it was closed before
            await self._writer.wait_closed()
