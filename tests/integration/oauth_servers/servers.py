"""Authorization servers that others wrote, each in a process of its own, and an API that asks them."""

import asyncio
import base64
import contextlib
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import aiohttp
from aiohttp import web

from bits_auth_proxy.sidecar import Sidecar
from tests.support.clock import FakeClock
from tests.support.credentials import mount
from tests.support.stand import sidecar_for
from tests.support.waiting import HANGS, seen

HERE: Final = Path(__file__).parent
LIFETIME: Final = 600


class OAuthServer:
    """A running server with one client; `secret` is what it registered last."""

    def __init__(self, process: asyncio.subprocess.Process, client_id: str, secret: str) -> None:
        self._process = process
        self.client_id = client_id
        self.secret = secret
        self._endpoints: dict[str, str] = {}

    async def answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        async with asyncio.timeout(HANGS):
            line = await self._process.stdout.readline()
        assert line, "the authorization server has ended; what it said stands above"
        found: dict[str, Any] = json.loads(line)
        return found

    async def ready(self) -> None:
        told = await self.answer()
        origin = told.pop("origin")
        self._endpoints = {name: origin + path for name, path in told.items()}

    def url(self, endpoint: str) -> str:
        """Return the URL of `token`, `introspection` or `revocation`."""
        return self._endpoints[endpoint]

    async def register(self, secret: str | None) -> None:
        """Change the client's secret, or remove the client."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"secret": secret}).encode() + b"\n")
        assert await self.answer() == {}
        self.secret = secret or self.secret

    async def is_active(self, token: str) -> bool:
        """Ask whether a token is valid (RFC 7662)."""
        answer = await self._ask("introspection", token, "resource-server", "resource-server-secret")
        return bool(json.loads(answer)["active"])

    async def revoke(self, token: str) -> None:
        """Take a token back (RFC 7009)."""
        await self._ask("revocation", token, self.client_id, self.secret)

    async def _ask(self, endpoint: str, token: str, client_id: str, secret: str) -> bytes:
        pair = base64.b64encode(f"{client_id}:{secret}".encode()).decode()
        async with (
            aiohttp.ClientSession(headers={"Authorization": f"Basic {pair}"}) as session,
            session.post(self.url(endpoint), data={"token": token}) as answer,
        ):
            assert answer.status == 200
            return await answer.read()


@contextlib.asynccontextmanager
async def serving(program: tuple[Path, str], client_id: str, secret: str) -> AsyncIterator[OAuthServer]:
    """Run a server until the end of the block."""
    interpreter, script = program
    process = await asyncio.create_subprocess_exec(
        interpreter,
        HERE / script,
        client_id,
        secret,
        str(LIFETIME),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        server = OAuthServer(process, client_id, secret)
        await server.ready()
        yield server
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


class Api:
    """An API that accepts the tokens of an authorization server, as that says; it notes what it was sent."""

    def __init__(self, server: OAuthServer) -> None:
        self._server = server
        self.tokens: list[str] = []

    async def serve(self, request: web.Request) -> web.Response:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        self.tokens.append(token)
        accepted = scheme == "Bearer" and await self._server.is_active(token)
        return web.Response(status=200 if accepted else 401, text=await request.text())


class Proxied:
    """The sidecar between a caller and the API."""

    def __init__(self, sidecar: Sidecar, api: Api, log: io.StringIO, clock: FakeClock, files: Path) -> None:
        self.sidecar = sidecar
        self.api = api
        self.log = log
        self.clock = clock
        self.files = files

    async def call(self) -> int:
        """Call the API; return the status."""
        async with (
            asyncio.timeout(HANGS),
            aiohttp.ClientSession() as session,
            session.post(f"http://{self.sidecar.addresses[0]}/v1/x", data=b"body") as answer,
        ):
            assert answer.status != 200 or await answer.read() == b"body"
            return answer.status

    async def call_without_token(self) -> int:
        """Call the API, and let time pass until the wait for a token is over."""
        call = asyncio.ensure_future(self.call())
        while not (await asyncio.wait([call], timeout=0.05))[0]:
            self.clock.advance(1)
        return await call

    def events(self, name: str) -> list[dict[str, Any]]:
        lines = (json.loads(line) for line in self.log.getvalue().splitlines())
        return [event for event in lines if event["event"] == name]

    async def event(self, name: str, times: int = 1) -> dict[str, Any]:
        """Wait until `name` has been logged so often."""
        await seen(lambda: len(self.events(name)) >= times)
        return self.events(name)[-1]

    async def new_pair(self, secret: str, client_id: str) -> None:
        """Put other credentials into the files, and have them read."""
        mount(self.files, secret, client_id)
        self.sidecar.reload()


@contextlib.asynccontextmanager
async def proxied(server: OAuthServer, files: Path, **env: str) -> AsyncIterator[Proxied]:
    """Serve the API and the sidecar before it, which has its credentials from `files`."""
    api = Api(server)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", api.serve)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    files.mkdir()
    mount(files, server.secret, server.client_id)
    env = {"BITS_TOKEN_URL": server.url("token"), "BITS_CREDENTIALS_DIR": str(files), **env}
    log, clock = io.StringIO(), FakeClock()
    origin = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        async with sidecar_for(origin, log, clock, **env) as sidecar:
            yield Proxied(sidecar, api, log, clock, files)
    finally:
        await runner.cleanup()
