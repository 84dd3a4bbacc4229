"""A server that completes TLS handshakes or refuses them with an alert; servers of event loops just close."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator


@contextlib.asynccontextmanager
async def handshaking(context: ssl.SSLContext) -> AsyncIterator[int]:
    """Take connections one by one, do the handshake, read once, and close; yield the port of localhost."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        serving = asyncio.ensure_future(asyncio.to_thread(_serve, sock, context))
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
