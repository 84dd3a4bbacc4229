"""An API whose bytes and ends a test sends itself, with no turn of the event loop in between.

So a test decides what lies unread in which socket when the proxy next looks at its sockets, and in which
order these became readable.
"""

import asyncio
import contextlib
import select
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from typing import Self

from tests.support.bench import Bench, set_up
from tests.support.recorder import Recorder, recording
from tests.support.waiting import HANGS, seen


class HeldConnection:
    """One connection of the proxy to the API."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext | None) -> None:
        self._sock = sock
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._session: ssl.SSLObject | None = None
        if context is not None:
            self._session = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self.held = b""
        """What TLS has to send behind the handshake (session tickets), if it is held back."""

    async def open(self, *, hold: bool = False) -> Self:
        """Complete the handshake; with `hold`, what follows it is not sent."""
        if self._session is not None:
            while True:
                try:
                    self._session.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    self._sock.sendall(self._outgoing.read())
                    self._incoming.write(await self._read())
            self.held = self._outgoing.read()
            if not hold:
                self._sock.sendall(self.held)
        return self

    async def until(self, mark: bytes) -> bytes:
        """Read up to `mark`, and no byte more where there is no TLS."""
        data = b""
        while not data.endswith(mark):
            data += await self._some(1)
        return data

    async def has_more(self) -> None:
        """Wait until more bytes have arrived, and leave them unread."""
        await seen(lambda: select.select([self._sock], [], [], 0)[0])

    def send(self, data: bytes) -> None:
        """Send plaintext at once."""
        self.send_raw(self.sealed(data))

    def sealed(self, data: bytes) -> bytes:
        """Return what `data` is on the wire."""
        if self._session is None:
            return data
        self._session.write(data)
        return self._outgoing.read()

    def send_raw(self, data: bytes) -> None:
        """Send bytes at once, as they are."""
        self._sock.sendall(data)

    def end(self) -> None:
        """Send a FIN, over TLS behind a close_notify."""
        if self._session is not None:
            with contextlib.suppress(ssl.SSLError):
                self._session.unwrap()
            self._sock.sendall(self._outgoing.read())
        self._sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close, with a reset if bytes are unread."""
        self._sock.close()

    def reset(self) -> None:
        """Close with a reset."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._sock.close()

    async def ended(self) -> bool:
        """Read until the proxy has closed the connection."""
        with contextlib.suppress(ConnectionError):
            while await self._read():
                pass
        return True

    async def _some(self, size: int) -> bytes:
        if self._session is None:
            return await self._read(size)
        while True:
            try:
                return self._session.read(size)
            except ssl.SSLWantReadError:
                self._incoming.write(await self._read())

    async def _read(self, size: int = 65_536) -> bytes:
        async with asyncio.timeout(HANGS):
            return await asyncio.get_running_loop().sock_recv(self._sock, size)


class HeldApi:
    """A listening socket, and a sidecar before it."""

    def __init__(self, sock: socket.socket, bench: Bench, context: ssl.SSLContext | None) -> None:
        self._sock = sock
        self._context = context
        self._open: list[HeldConnection] = []
        self.bench = bench

    async def accept(self, *, hold: bool = False) -> HeldConnection:
        """Return the proxy's next connection; see `HeldConnection.open` for `hold`."""
        async with asyncio.timeout(HANGS):
            sock, _ = await asyncio.get_running_loop().sock_accept(self._sock)
        sock.setblocking(False)
        connection = HeldConnection(sock, self._context)
        self._open.append(connection)
        return await connection.open(hold=hold)

    async def client(self) -> socket.socket:
        """Return the socket of a client that the proxy has accepted."""
        known = len(self.bench.sidecar._clients.open)
        sock = socket.socket()
        sock.setblocking(False)
        address = self.bench.sidecar.addresses[0]
        await asyncio.get_running_loop().sock_connect(sock, (address.host, address.port))  # type: ignore[union-attr] # TCP
        await self.bench.seen(lambda: len(self.bench.sidecar._clients.open) > known)
        return sock

    def close(self) -> None:
        for connection in self._open:
            connection.close()
        self._open.clear()


Tls = tuple[str, ssl.SSLContext] | None
"""An authority's file, and the API's context with a certificate of it."""


def settings_for(port: int, tokens: Recorder, tls: Tls) -> dict[str, str]:
    """Return the settings of a sidecar before an API on `port`, without a warm connection."""
    return {
        "BITS_API_URL": f"http://127.0.0.1:{port}" if tls is None else f"https://localhost:{port}",
        "BITS_TOKEN_URL": f"http://{tokens.authority}/v1/oauth2/token",
        "BITS_UPSTREAM__WARM_CONNECTIONS": "0",
        **({} if tls is None else {"BITS_UPSTREAM__CA_FILE": tls[0]}),
    }


@contextlib.asynccontextmanager
async def holding(tls: Tls, **env: str) -> AsyncIterator[HeldApi]:
    """Serve. There is no warm connection by default."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        sock.setblocking(False)
        port = sock.getsockname()[1]
        async with (
            recording() as tokens,
            set_up(**{**settings_for(port, tokens, tls), **env}) as bench,
        ):
            api = HeldApi(sock, bench, None if tls is None else tls[1])
            try:
                yield api
            finally:
                api.close()


async def received(sock: socket.socket, mark: bytes) -> bytes:
    """Read from a client's socket up to `mark`; without one, up to the end, which may be a reset."""
    data = b""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(HANGS):
        with contextlib.suppress(ConnectionError):
            while not mark or not data.endswith(mark):
                piece = await loop.sock_recv(sock, 65_536)
                if not piece:
                    break
                data += piece
    return data
