"""Starts and stops the admin listeners."""

import asyncio
import socket
from typing import Final

from aiohttp import web

from bits_auth_proxy.guarding import ConnectionGuard

MAX_CONNECTIONS: Final = 64
"""The maximum number of connections over all admin listeners."""
_FIRST_BYTE_TIMEOUT: Final = 10.0


class AdminServer:
    """Serves applications on sockets that are already bound."""

    __slots__ = ("_guard", "_runners", "_servers")

    def __init__(
        self, *, max_connections: int = MAX_CONNECTIONS, first_byte_timeout: float = _FIRST_BYTE_TIMEOUT
    ) -> None:
        """Set the limits; see `ConnectionGuard`."""
        self._guard = ConnectionGuard(limit=max_connections, first_byte_timeout=first_byte_timeout)
        self._runners: list[web.AppRunner] = []
        self._servers: list[asyncio.Server] = []

    async def serve(self, sock: socket.socket, app: web.Application) -> None:
        """Serve `app` on a listening socket."""
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        self._runners.append(runner)
        await runner.setup()
        assert runner.server is not None  # noqa: S101 - set up
        factory = self._guard.factory(runner.server)
        self._servers.append(await asyncio.get_running_loop().create_server(factory, sock=sock))

    async def close(self) -> None:
        """Stop serving and close the sockets."""
        servers, self._servers = self._servers, []
        for server in servers:
            server.close()
        runners, self._runners = self._runners, []
        for runner in runners:
            await runner.cleanup()
