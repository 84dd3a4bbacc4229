"""Starts and stops the admin listeners."""

import socket

from aiohttp import web


class AdminServer:
    """Serves applications on sockets that are already bound."""

    __slots__ = ("_runners",)

    def __init__(self) -> None:
        self._runners: list[web.AppRunner] = []

    async def serve(self, sock: socket.socket, app: web.Application) -> None:
        """Serve `app` on a listening socket."""
        runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
        self._runners.append(runner)
        await runner.setup()
        await web.SockSite(runner, sock).start()

    async def close(self) -> None:
        """Stop serving and close the sockets."""
        runners, self._runners = self._runners, []
        for runner in runners:
            await runner.cleanup()
