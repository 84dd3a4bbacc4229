"""Either side cut, reset or stalled at every phase: then nothing is left, and the next request works."""

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trustme
import uvloop

from bits_auth_proxy.forward.dialing import Dialer
from tests.support.bench import Bench, set_up
from tests.support.leftovers import leftovers, open_descriptors
from tests.support.rawclient import reset_on_close
from tests.support.recorder import OK_ANSWER, recording
from tests.support.waiting import HANGS, seen

pytestmark = pytest.mark.usefixtures("brisk")

HEAD = b"POST /v1/applications.create HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n"
BODY = b"0123456789"
LARGE_HEAD = HEAD.replace(b": 10", b": 100000")
CHUNKED_HEAD = HEAD.replace(b"Content-Length: 10", b"Transfer-Encoding: chunked")
GET = b"GET /v1/x HTTP/1.1\r\nHost: localhost\r\n\r\n"
WEBSOCKET = b"GET /v1/x HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
UNREAD = CHUNKED + b"1000000\r\n01" + bytes(2**24)
REFUSAL = b"HTTP/1.1 401 No\r\nContent-Length: 10\r\n\r\n"


class Fault(Enum):
    FIN = "cut"
    RST = "reset"
    STALL = "stall"


Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Run on either event loop: their transports differ, and production has uvloop's where there is one."""

    def run(coroutine: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(coroutine)

    return run


def end(writer: asyncio.StreamWriter, fault: Fault) -> None:
    """Do the fault: nothing of TLS's own end, no last bytes."""
    if fault is Fault.FIN:
        with socket.socket(fileno=os.dup(writer.get_extra_info("socket").fileno())) as beneath:
            beneath.shutdown(socket.SHUT_WR)
    elif fault is Fault.RST:
        reset_on_close(writer)
        writer.transport.abort()


class Phase(NamedTuple):
    """Up to where the API goes before the fault: it reads `reads`, then writes `writes`, once per piece."""

    name: str
    reads: int
    writes: bytes
    request: bytes = HEAD + BODY


# The head that comes up is longer than the client's; its last bytes are the body.
_ALL = -1
_BUT_FIVE = -2
UPSTREAM_PHASES = [
    Phase("before the request", 0, b""),
    Phase("in the request's head", 10, b""),
    Phase("in the request's body", _BUT_FIVE, b""),
    Phase("before the answer", _ALL, b""),
    Phase("behind an interim answer", _ALL, b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    Phase("in the answer's head", _ALL, b"HTTP/1.1 200 OK\r\nContent-"),
    Phase("in a body with a length", _ALL, b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234"),
    Phase("in a chunk's size", _ALL, CHUNKED + b"5\r\n01234\r\n1"),
    Phase("in a chunk", _ALL, CHUNKED + b"5\r\n012"),
    Phase("in the trailers", _ALL, CHUNKED + b"5\r\n01234\r\n0\r\nX-Tra"),
    Phase("in the body of a 401", _ALL, REFUSAL + b"01234"),
    Phase("in a tunnel", _ALL, SWITCH + b"hello", WEBSOCKET),
]


class Api:
    """Goes through `phase`, then does `fault`; once `healthy`, answers as it should."""

    def __init__(self, phase: Phase, fault: Fault) -> None:
        self.phase = phase
        self.fault = fault
        self.healthy = False
        self.begun = asyncio.Event()
        """Set when a request's head has come."""
        self.reached = asyncio.Event()
        self.released = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        self.released.set()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self.healthy:
                await self._answer(reader, writer)
            else:
                await self._fail(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(OK_ANSWER)

    async def _fail(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reads, fault = self.phase.reads, self.fault
        if reads < 0:
            await reader.readuntil(b"\r\n\r\n")
            self.begun.set()
            if self.phase.request.endswith(BODY):
                await reader.readexactly(len(BODY) if reads == _ALL else 5)
        else:
            await reader.readexactly(reads)
        if self.phase.writes:
            writer.write(self.phase.writes)
            await writer.drain()
        self.reached.set()
        end(writer, fault)
        if fault is not Fault.RST:
            await self.released.wait()


class Tls(NamedTuple):
    """An authority's file, and servers' settings with its certificate."""

    ca_file: Path
    server: ssl.SSLContext


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    authority = trustme.CA()
    ca_file = tmp_path_factory.mktemp("tls") / "ca.pem"
    authority.cert_pem.write_to_path(ca_file)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    return Tls(ca_file, context)


@contextlib.asynccontextmanager
async def serving(api: Api, tls: Tls | None) -> AsyncIterator[int]:
    """Serve `api`; yield its port."""
    context = None if tls is None else tls.server
    server = await asyncio.start_server(api.accept, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        await api.close()
        server.close()
        await server.wait_closed()


@contextlib.asynccontextmanager
async def before(port: int, tls: Tls | None, **more: str) -> AsyncIterator[Bench]:
    """The sidecar before an API, without a warm connection; the token comes from elsewhere."""
    async with recording() as tokens:
        env = {
            "BITS_API_URL": f"http://127.0.0.1:{port}" if tls is None else f"https://localhost:{port}",
            "BITS_TOKEN_URL": f"http://{tokens.authority}/v1/oauth2/token",
            "BITS_UPSTREAM__WARM_CONNECTIONS": "0",
            **({} if tls is None else {"BITS_UPSTREAM__CA_FILE": str(tls.ca_file)}),
            **more,
        }
        async with set_up(**env) as bench:
            yield bench


async def settled(bench: Bench, descriptors: int) -> None:
    """Wait until nothing is left."""

    def left() -> dict[str, int]:
        return {what: count for what, count in leftovers(bench.sidecar, descriptors).items() if count}

    await seen(lambda: not left(), lambda: f"the end of {left()}")


async def outlast(bench: Bench, condition: asyncio.Future[bytes]) -> None:
    """Let time pass, beyond any deadline, until `condition` is done."""
    for _ in range(4):
        await bench.pass_time(80)
        if (await asyncio.wait([condition], timeout=0.05))[0]:
            break


async def normal(bench: Bench) -> None:
    """The next request works."""
    async with bench.connect() as client:
        await client.send(GET)
        assert (await client.answer()).body == b"ok"


async def all_that_comes(reader: asyncio.StreamReader) -> bytes:
    """Read to the end, which may be a reset."""
    data = b""
    with contextlib.suppress(ConnectionError):
        while piece := await reader.read(65_536):
            data += piece
    return data


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
@pytest.mark.parametrize("fault", Fault, ids=lambda fault: fault.value)
@pytest.mark.parametrize("phase", UPSTREAM_PHASES, ids=lambda phase: phase.name)
def test_the_api_fails(run: Run, phase: Phase, fault: Fault, secure: bool, tls: Tls) -> None:
    run(the_api_fails(phase, fault, tls if secure else None))


async def the_api_fails(phase: Phase, fault: Fault, tls: Tls | None) -> None:
    api = Api(phase, fault)
    async with serving(api, tls) as port, before(port, tls) as bench:
        descriptors = open_descriptors()
        address = bench.sidecar.addresses[0]
        reader, writer = await asyncio.open_connection(address.host, address.port)  # type: ignore[union-attr] # TCP
        writer.write(phase.request)
        received = asyncio.ensure_future(all_that_comes(reader))
        async with asyncio.timeout(HANGS):
            await api.reached.wait()
        if fault is Fault.STALL or phase.request == WEBSOCKET or phase.writes.startswith(REFUSAL):
            # A 401 to a new token is worth another try a little later.
            await outlast(bench, received)
        else:
            await bench.seen(lambda: bench.in_flight() == 0)
            await asyncio.wait([received], timeout=0.05)
        # Whoever has an answer, and it was not the API's, may go on with the next request.
        api.healthy = True
        api.released.set()
        writer.close()
        async with asyncio.timeout(HANGS):
            data = await received
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
        assert (
            data.startswith((b"HTTP/1.1 50", b"HTTP/1.1 101", b"HTTP/1.1 103", phase.writes[:13])) or not data
        )
        assert b"0\r\n\r\n" not in data, "a clean end"
        await settled(bench, descriptors)
        await normal(bench)
        await settled(bench, descriptors)


@pytest.mark.parametrize("fault", Fault, ids=lambda fault: fault.value)
@pytest.mark.parametrize("reads", [0, 1, 100], ids=["before", "at the first byte of", "in"])
def test_the_api_fails_in_the_handshake(run: Run, reads: int, fault: Fault, tls: Tls) -> None:
    run(no_connection(reads, fault, tls))


@pytest.mark.parametrize("fault", [Fault.RST, Fault.STALL], ids=["refuses", "does not accept"])
def test_the_api_can_not_be_connected_to(run: Run, fault: Fault, tls: Tls) -> None:
    run(no_connection(None, fault, tls))


async def no_connection(reads: int | None, fault: Fault, tls: Tls) -> None:
    """The API fails before there is a connection: before TCP's (`reads` is None) or behind so many bytes."""
    api = Api(Phase("", 0 if reads is None else reads, b""), fault)
    failing: asyncio.Server | None = None
    with contextlib.ExitStack() as stack:
        sock = stack.enter_context(socket.socket())
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        if reads is not None:
            failing = await asyncio.start_server(api.accept, sock=sock.dup())
        elif fault is Fault.STALL:
            # One waits to be accepted, and nobody else may: the kernel lets them try again and again.
            sock.listen(0)
            stack.enter_context(socket.create_connection(sock.getsockname()))
        patience = 0.2 if fault is Fault.STALL else HANGS
        async with before(port, tls, BITS_UPSTREAM__CONNECT_TIMEOUT=str(patience)) as bench:
            async with bench.connect() as client:
                await client.send(HEAD + BODY)
                answer = await client.answer()
                assert answer.status == (504 if fault is Fault.STALL else 502)
            if failing is not None:
                failing.close()
            await api.close()
            stack.close()
            api.healthy = True
            dialer = bench.sidecar._pool._connector
            assert isinstance(dialer, Dialer)
            dialer._timeout = HANGS
            server = await asyncio.start_server(api.accept, "127.0.0.1", port, ssl=tls.server)
            async with server:
                descriptors = open_descriptors()
                await settled(bench, descriptors)
                await normal(bench)
                await settled(bench, descriptors)
                await api.close()


class Sent(NamedTuple):
    """What the client has sent when its fault comes, and what it has received by then."""

    name: str
    sends: bytes
    receives: bytes = b""
    api: Phase = Phase("stalls", _ALL, b"")


CLIENT_PHASES = [
    Sent("before its request", b""),
    Sent("in the request line", b"POST /v1/appl"),
    Sent("in the head", HEAD[:-4]),
    Sent("in a small body", HEAD + BODY[:5]),
    Sent("in a large body", LARGE_HEAD + BODY),
    Sent("in a chunk's size", CHUNKED_HEAD + b"5\r\n01234\r\n1"),
    Sent("before the answer", HEAD + BODY),
    Sent("with another request behind", HEAD + BODY + GET + GET),
    Sent("in the answer", HEAD + BODY, b"01", Phase("", _ALL, CHUNKED + b"2\r\n01\r\n")),
    Sent("with an answer unread", HEAD + BODY, b"01", Phase("", _ALL, UNREAD)),
    Sent("in a tunnel", WEBSOCKET, b"hello", Phase("", _ALL, SWITCH + b"hello", WEBSOCKET)),
    Sent("behind a refusal", b"BREW / HTTP/1.1\r\nHost: localhost\r\n\r\n", b"501"),
]  # fmt: skip


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "TLS"])
@pytest.mark.parametrize("fault", Fault, ids=lambda fault: fault.value)
@pytest.mark.parametrize("phase", CLIENT_PHASES, ids=lambda phase: phase.name)
def test_the_client_fails(run: Run, phase: Sent, fault: Fault, secure: bool, tls: Tls) -> None:
    run(the_client_fails(phase, fault, tls if secure else None))


async def the_client_fails(phase: Sent, fault: Fault, tls: Tls | None) -> None:
    api = Api(phase.api, Fault.STALL)
    async with serving(api, tls) as port, before(port, tls) as bench:
        descriptors = open_descriptors()
        address = bench.sidecar.addresses[0]
        # A bound on what it takes unread.
        reader, writer = await asyncio.open_connection(address.host, address.port, limit=1024)  # type: ignore[union-attr] # TCP
        writer.write(phase.sends)
        if phase.receives:
            async with asyncio.timeout(HANGS):
                await reader.readuntil(phase.receives)
        elif phase.sends.startswith((HEAD + BODY, LARGE_HEAD)):
            await bench.seen(api.begun.is_set)
        elif phase.sends.startswith(HEAD):
            await bench.seen(lambda: bench.in_flight() == 1)
        end(writer, fault)
        # Behind a whole request a FIN is no departure: like a client that stalls, it ends by a deadline.
        whole = phase.sends.startswith((WEBSOCKET, HEAD + BODY))
        waits = fault is Fault.STALL or (fault is Fault.FIN and whole)
        async with asyncio.timeout(HANGS):
            while bench.in_flight() or any(bench.sidecar._pool.counts().values()):
                if waits:
                    bench.clock.advance(80)
                await asyncio.sleep(0.02)
        api.healthy = True
        api.released.set()
        writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        await settled(bench, descriptors)
        await normal(bench)
        await settled(bench, descriptors)
