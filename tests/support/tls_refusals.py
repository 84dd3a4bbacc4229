"""A server that completes TLS handshakes or refuses them with an alert; servers of event loops just close."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator
from typing import Final


@contextlib.asynccontextmanager
async def handshaking(context: ssl.SSLContext, *, distant: bool = False) -> AsyncIterator[int]:
    """Take connections one by one, do the handshake, read once, and close; yield the port of localhost.

    A `distant` server's alert comes when the client has sent its request behind the handshake of TLS 1.3.
    """
    with socket.create_server(("127.0.0.1", 0)) as sock:
        serve = _serve_from_afar if distant else _serve
        serving = asyncio.ensure_future(asyncio.to_thread(serve, sock, context))
        try:
            yield sock.getsockname()[1]
        finally:
            sock.shutdown(socket.SHUT_RDWR)
            await serving


def _serve(sock: socket.socket, context: ssl.SSLContext) -> None:
    with contextlib.suppress(OSError):
        while True:
            plain, _ = sock.accept()
            with plain, contextlib.suppress(OSError):
                plain.settimeout(1)
                with context.wrap_socket(plain, server_side=True) as connection:
                    connection.recv(1)


_HANDSHAKE: Final = 200
"""The end of a handshake without a client certificate has fewer bytes, a token request has more."""


def _serve_from_afar(sock: socket.socket, context: ssl.SSLContext) -> None:
    with contextlib.suppress(OSError):
        while True:
            plain, _ = sock.accept()
            with plain, contextlib.suppress(OSError):
                incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
                session = context.wrap_bio(incoming, outgoing, server_side=True)
                incoming.write(plain.recv(65_536))
                with contextlib.suppress(ssl.SSLWantReadError):
                    session.do_handshake()
                plain.sendall(outgoing.read())
                rest = b""
                while len(rest) < _HANDSHAKE and (piece := plain.recv(65_536)):
                    rest += piece
                incoming.write(rest)
                with contextlib.suppress(ssl.SSLError):
                    session.do_handshake()
                plain.sendall(outgoing.read())
                plain.recv(1)
