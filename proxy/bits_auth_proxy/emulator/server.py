"""The emulator as a server: one web application on one socket."""

import asyncio
import ipaddress
import socket
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from bits_auth_proxy.clock import Clock
from bits_auth_proxy.emulator.api import Api
from bits_auth_proxy.emulator.applications import Applications
from bits_auth_proxy.emulator.controls import Controls
from bits_auth_proxy.emulator.faults import Faults
from bits_auth_proxy.emulator.oauth import OAuth
from bits_auth_proxy.emulator.responses import json_response
from bits_auth_proxy.emulator.tokens import Tokens
from bits_auth_proxy.guarding import ConnectionGuard

CONTROLS: Final = "/_emulator/"
MAX_CONNECTIONS: Final = 512
"""The maximum number of connections to an emulator."""
_FIRST_BYTE_TIMEOUT: Final = 60.0
"""Longer than the proxy keeps a connection ready without a request."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Emulator:
    """The Bits API emulator. `app` is its web application, which another server may serve too."""

    def __init__(
        self,
        *,
        client_id: str,
        client_secret: str,
        token_lifetime: float = 3600.0,
        token_delay: float = 0.0,
        latency: float = 0.0,
        clock: Clock,
    ) -> None:
        """Accept one client. Durations are in seconds."""
        self._closing = asyncio.Event()
        self._runner: web.AppRunner | None = None
        self._server: asyncio.Server | None = None
        self._guard = ConnectionGuard(limit=MAX_CONNECTIONS, first_byte_timeout=_FIRST_BYTE_TIMEOUT)
        self._loopback_only = True
        faults = Faults(token_lifetime=token_lifetime, token_delay=token_delay, latency=latency)
        counters: Counter[str] = Counter()
        tokens = Tokens(clock=clock)
        customer = f"bits:customer::{uuid.uuid4()}"
        oauth = OAuth(
            client_id=client_id,
            client_secret=client_secret,
            tokens=tokens,
            faults=faults,
            counters=counters,
            pause=self._pause,
        )
        api = Api(
            customer=customer,
            tokens=tokens,
            applications=Applications(),
            faults=faults,
            counters=counters,
            pause=self._pause,
        )
        controls = Controls(oauth=oauth, tokens=tokens, faults=faults, counters=counters)
        self.app = web.Application(middlewares=[self._guard_controls], client_max_size=64 * 2**20)
        self.app.router.add_post("/v1/oauth2/token", oauth.token)
        self.app.router.add_get("/oauth2/userinfo", api.userinfo)
        self.app.router.add_post("/v1/applications.create", api.create)
        self.app.router.add_post("/v1/applications.get", api.get)
        self.app.router.add_post("/v1/applications.organization.get", api.organization)
        self.app.router.add_get(CONTROLS + "state", controls.state)
        self.app.router.add_post(CONTROLS + "faults", controls.change_faults)
        self.app.router.add_post(CONTROLS + "revoke", controls.revoke)
        self.app.router.add_post(CONTROLS + "rotate", controls.rotate)
        self.app.router.add_post(CONTROLS + "reset", controls.reset)

    async def start(self, sock: socket.socket) -> None:
        """Serve on a listening socket."""
        self._loopback_only = ipaddress.ip_address(sock.getsockname()[0]).is_loopback
        self._runner = web.AppRunner(self.app, access_log=None, handle_signals=False, shutdown_timeout=0.5)
        await self._runner.setup()
        assert self._runner.server is not None  # noqa: S101 - set up
        factory = self._guard.factory(self._runner.server)
        self._server = await asyncio.get_running_loop().create_server(factory, sock=sock)

    async def close(self) -> None:
        """Stop serving, and end the requests that hang."""
        self._closing.set()
        if self._server is not None:
            self._server.close()
        if self._runner is not None:
            await self._runner.cleanup()

    async def _pause(self, seconds: float | None) -> None:
        """Wait for `seconds`, or until the emulator is closed if that is None."""
        if seconds == 0:
            return
        try:
            async with asyncio.timeout(seconds):
                await self._closing.wait()
        except TimeoutError:
            pass

    @web.middleware
    async def _guard_controls(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Reject web pages of other sites, and let only this machine use the controls."""
        control = request.path.startswith("/_emulator")
        if control and (not _is_loopback(request.remote or "") or "Via" in request.headers):
            return _rejection(
                403, "The controls are available only from this machine and not through a proxy."
            )
        if (control or self._loopback_only) and not _is_loopback(_host(request)):
            return _rejection(421, "The requested host is not served here.")
        origin = request.headers.get("Origin")
        foreign = origin is not None and origin != f"{request.scheme}://{request.host}"
        if foreign or request.headers.get("Sec-Fetch-Site") in ("cross-site", "same-site"):
            return _rejection(403, "Requests from web pages of other sites are rejected.")
        return await handler(request)


def _host(request: web.Request) -> str:
    try:
        return request.url.host or ""
    except ValueError:  # the Host is not a valid authority
        return ""


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _rejection(status: int, text: str) -> web.Response:
    return json_response({"error": text}, status=status)
