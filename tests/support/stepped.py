"""The whole sidecar on a clock that the test moves, between a token endpoint and an API that do as told.

Timers follow the clock, so hours pass at once and nothing depends on how fast the machine is; the sockets
are real, and so are the bytes on them.
"""

import asyncio
import contextlib
import functools
import inspect
import io
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, Final

import aiohttp
from aiohttp import web

from bits_auth_proxy.auth.refresher import RefresherStatus
from tests.support.clock import FakeClock
from tests.support.stand import sidecar_for
from tests.support.waiting import HANGS

if TYPE_CHECKING:
    from bits_auth_proxy.sidecar import Sidecar


class SteppedLoop(asyncio.SelectorEventLoop):
    """An event loop whose timers go off when a test moves the clock."""

    def __init__(self) -> None:
        self.clock: Final = FakeClock()
        self._slept = 0.0
        super().__init__()

    def time(self) -> float:
        return self.clock.now() - self._slept

    def sleep_away(self, seconds: float) -> None:
        """The machine is suspended: both clocks go on, timers don't."""
        self.clock.advance(seconds)
        self._slept += seconds


def stepped(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test in a `SteppedLoop`, and give it a `Stage` as its first argument."""

    async def play(*args: Any, **kwargs: Any) -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert isinstance(loop, SteppedLoop)
        assert task is not None
        # On a clock that stands still no timeout ends a wait.
        watchdog = threading.Timer(
            HANGS, loop.call_soon_threadsafe, (task.cancel, "nothing happens any more")
        )
        watchdog.start()
        try:
            async with staging(loop) as stage:
                await test(stage, *args, **kwargs)
        finally:
            watchdog.cancel()

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        with asyncio.Runner(loop_factory=SteppedLoop) as runner:
            runner.run(play(*args, **kwargs))

    # Here pytest looks for what to pass: all but the stage.
    signature = inspect.signature(test)
    run.__signature__ = signature.replace(parameters=list(signature.parameters.values())[1:])  # type: ignore[attr-defined] # of PEP 362
    del run.__wrapped__
    return run


Reply = tuple[bytes, str]
"""What is written, and what follows: "close", "reset" or "hang"."""


def reply(head: str, body: str = "", then: str = "close") -> Reply:
    """Return a whole answer; `head` is the status and further fields, separated by CRLF."""
    return f"HTTP/1.1 {head}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode(), then


class TokenDoor:
    """A token endpoint on a real socket: grants tokens, or answers `trouble`, or listens not at all."""

    def __init__(self, clock: FakeClock) -> None:
        self.trouble: Reply | None = None
        self.lifetime: float | None = 3600.0
        """What it says, None for nothing."""
        self.asked = 0
        self.hanging = 0
        self.ends: dict[str, float] = {}
        """When the tokens die, in the order in which they were issued."""
        self._clock = clock
        self._server: asyncio.Server | None = None
        self._port = 0
        self._release = asyncio.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/token"

    async def open(self) -> None:
        """Listen, on the same port every time."""
        self._release.clear()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    async def shut(self) -> None:
        """Listen no more: connections are refused."""
        self._release.set()
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"grant_type=client_credentials")
            answer, then = self._granted() if self.trouble is None else self.trouble
            writer.write(answer)
            await writer.drain()
            if then == "hang":
                self.hanging += 1
                # Until the other side gives up.
                await reader.read()
                self.hanging -= 1
            elif then == "reset":
                writer.transport.abort()
        writer.close()

    def _granted(self) -> Reply:
        token = f"token-{len(self.ends) + 1}"
        self.ends[token] = self._clock.now() + (self.lifetime or 3600)
        members = {
            "type": "Bearer",
            "access_token": token,
            "expires_in": self.lifetime,
            "scope": "application",
        }
        date = formatdate(self._clock.wall(), usegmt=True)
        return reply(f"200 OK\r\nDate: {date}", json.dumps(members))


class Api:
    """An API that takes the tokens of the door, and none that is over or revoked."""

    def __init__(self, door: TokenDoor, clock: FakeClock) -> None:
        self.seen: list[str] = []
        """The token of every call."""
        self.revoked: set[str] = set()
        self.before_401: Callable[[], Awaitable[None]] | None = None
        """What is waited for before a 401 is answered."""
        self._door = door
        self._clock = clock

    async def serve(self, request: web.Request) -> web.Response:
        token = request.headers["Authorization"].removeprefix("Bearer ")
        self.seen.append(token)
        body = await request.read()
        assert self._clock.now() < self._door.ends[token], "a token was sent after its end"
        if token in self.revoked:
            if self.before_401 is not None:
                await self.before_401()
            return web.Response(status=401)
        return web.Response(body=body)


class Stage:
    """The sidecar and all around it."""

    def __init__(self, loop: SteppedLoop, stack: contextlib.AsyncExitStack) -> None:
        self.clock: Final = loop.clock
        self.door = TokenDoor(loop.clock)
        self.api = Api(self.door, loop.clock)
        self.log = io.StringIO()
        self._loop = loop
        self._stack = stack

    async def begin(self, **env: str) -> None:
        """Serve; return when the first token request is over, or hangs."""
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self.api.serve)
        runner = web.AppRunner(app)
        await runner.setup()
        self._stack.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        env = {"BITS_TOKEN_URL": self.door.url, **env}
        origin = f"http://127.0.0.1:{runner.addresses[0][1]}"
        self.sidecar: Sidecar = await self._stack.enter_async_context(
            sidecar_for(origin, self.log, self.clock, **env)
        )
        self.session = await self._stack.enter_async_context(
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        )
        await self.settle()

    @property
    def token(self) -> RefresherStatus:
        """How the token does."""
        return self.sidecar._refresher.status()

    async def settle(self) -> None:
        """Let everything run until nothing connects, reads files or asks for a token, unless that hangs."""
        for _ in range(5):
            await asyncio.sleep(0)
        while self._busy():  # noqa: ASYNC110 - sockets set no event
            await asyncio.sleep(0)

    def _busy(self) -> bool:
        asking = self.token.in_flight and not self.door.hanging
        connecting = self.sidecar._pool.counts()["connecting"] > 0
        return asking or connecting or self.sidecar._watcher.looking

    async def pass_time(self, seconds: float, step: float = 1.0) -> None:
        """Let time pass in steps, and everything run in between."""
        end = self.clock.now() + seconds
        while (left := end - self.clock.now()) > 1e-9:
            self.clock.advance(min(step, left))
            await self.settle()

    def suspend(self, seconds: float) -> None:
        """Let the machine sleep."""
        self._loop.sleep_away(seconds)

    async def call(self, body: bytes = b"body") -> int:
        """Call the API through the sidecar; return the status."""
        async with self.session.post(f"http://{self.sidecar.addresses[0]}/v1/x", data=body) as answer:
            content = await answer.read()
            assert answer.status != 200 or content == body
            assert answer.status != 503 or int(answer.headers["Retry-After"]) >= 1
            return answer.status

    def calling(self) -> asyncio.Future[int]:
        """Begin a call."""
        return asyncio.ensure_future(self.call())

    async def call_without_token(self) -> int:
        """Call, and let time pass for as long as that waits."""
        call = self.calling()
        while not call.done():
            await self.pass_time(0.5, step=0.5)
        return await call

    async def get(self, path: str) -> tuple[int, str]:
        """Fetch a page of the admin listener."""
        async with self.session.get(f"http://{self.sidecar.admin_addresses[0]}{path}") as answer:
            return answer.status, await answer.text()

    def events(self, name: str) -> list[dict[str, Any]]:
        lines = (json.loads(line) for line in self.log.getvalue().splitlines())
        return [event for event in lines if event["event"] == name]


@contextlib.asynccontextmanager
async def staging(loop: SteppedLoop) -> AsyncIterator[Stage]:
    """Make a stage whose door is open; the sidecar does not run yet."""
    async with contextlib.AsyncExitStack() as stack:
        stage = Stage(loop, stack)
        await stage.door.open()
        stack.push_async_callback(stage.door.shut)
        yield stage
