"""Both sides of an event: sockets become readable in either order, and an end is not always a departure."""

import asyncio
import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
import uvloop

from bits_auth_proxy.forward.dialing import Dialer
from bits_auth_proxy.forward.downstream import ClientConnection
from bits_auth_proxy.settings.addresses import TcpAddress
from tests.support.bench import set_up
from tests.support.held_api import HeldApi, HeldConnection, Tls, holding, received, settings_for
from tests.support.pki import Pki
from tests.support.recorder import recording
from tests.support.tls_peer import tls_peer
from tests.support.waiting import HANGS

pytestmark = pytest.mark.usefixtures("brisk")

HEAD = b" HTTP/1.1\r\nHost: localhost\r\n"
GET = b"GET /v1/x" + HEAD + b"\r\n"
CREATE = b"POST /v1/applications.create" + HEAD + b"Content-Length: 2\r\n\r\n{}"
UPLOADS = 5
SMALL_READ = 256
RECORD_OVERHEAD = 22
"""Bytes that a record of TLS 1.3 adds to its content."""
LEFTOVER = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret"
TIMED_OUT = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 4\r\n\r\nlate"

Run = Callable[[Coroutine[Any, Any, None]], None]


def answer(body: bytes, status: bytes = b"200 OK") -> bytes:
    return b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ssl.SSLContext]:
    authority = trustme.CA()
    ca_file = tmp_path_factory.mktemp("tls") / "ca.pem"
    authority.cert_pem.write_to_path(ca_file)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    return str(ca_file), context


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki(tmp_path)


@pytest.fixture(params=["plain", "TLS"])
def tls(request: pytest.FixtureRequest, authority: tuple[str, ssl.SSLContext]) -> Tls:
    return authority if request.param == "TLS" else None


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Run on either event loop: their transports differ, and production has uvloop's where there is one."""

    def run(coroutine: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(coroutine)

    return run


@contextlib.contextmanager
def closing(*socks: socket.socket) -> Iterator[None]:
    try:
        yield
    finally:
        for sock in socks:
            sock.close()


async def pooled(api: HeldApi, client: socket.socket) -> HeldConnection:
    """Have `client` served; return the API's connection, which is idle now."""
    client.sendall(GET)
    connection = await api.accept()
    await connection.until(b"\r\n\r\n")
    connection.send(answer(b"first"))
    assert (await received(client, b"first")).startswith(b"HTTP/1.1 200")
    await api.bench.seen(lambda: api.bench.sidecar._pool.counts()["idle"] == 1)
    return connection


LEFTOVERS: dict[str, Callable[[HeldConnection], None]] = {
    "an answer": lambda api: api.send(LEFTOVER),
    "a timeout": lambda api: api.send(TIMED_OUT),
    "a byte": lambda api: api.send(b"H"),
    "a FIN": HeldConnection.end,
    "a timeout and a FIN": lambda api: (api.send(TIMED_OUT), api.end()),  # type: ignore[dict-item,func-returns-value] # in turn
    "half an answer": lambda api: api.send_raw(api.sealed(LEFTOVER)[:20]),
    "a reset": HeldConnection.reset,
}


@pytest.mark.parametrize("first", ["client", "API"])
@pytest.mark.parametrize("leftover", LEFTOVERS)
def test_what_lies_unread_on_a_pooled_connection_reaches_nobody(
    run: Run, tls: Tls, leftover: str, first: str
) -> None:
    run(unread(tls, LEFTOVERS[leftover], first))


async def unread(tls: Tls, leave: Callable[[HeldConnection], None], first: str) -> None:
    async with holding(tls) as api:
        one, other = await api.client(), await api.client()
        with closing(one, other):
            connection = await pooled(api, one)
            if first == "API":
                leave(connection)
            other.sendall(CREATE)
            if first == "client":
                leave(connection)
            fresh = await api.accept()
            assert (await fresh.until(b"{}")).startswith(b"POST /v1/applications.create")
            fresh.send(answer(b"theirs"))
            got = await received(other, b"theirs")
            assert got.startswith(b"HTTP/1.1 200 OK")
            assert b"secret" not in got


@pytest.mark.parametrize("leftover", ["an answer", "a FIN", "half an answer"])
def test_what_lies_behind_an_answer_does_not_reach_who_waits_for_the_connection(
    run: Run, tls: Tls, leftover: str
) -> None:
    run(unread_behind(tls, LEFTOVERS[leftover]))


async def unread_behind(tls: Tls, leave: Callable[[HeldConnection], None]) -> None:
    async with holding(tls, BITS_UPSTREAM__MAX_CONNECTIONS="1") as api:
        dialer = api.bench.sidecar._pool._connector
        assert isinstance(dialer, Dialer)
        dialer._read_buffer = memoryview(bytearray(SMALL_READ))
        one, other = await api.client(), await api.client()
        with closing(one, other):
            one.sendall(GET)
            connection = await api.accept()
            await connection.until(b"\r\n\r\n")
            other.sendall(CREATE)
            await api.bench.seen(lambda: api.bench.sidecar._pool.queued == 1)
            # The answer fills one read of the proxy exactly, so the leftover is not in that read.
            size = SMALL_READ if tls is None else SMALL_READ - RECORD_OVERHEAD
            connection.send(answer(bytes(size - len(answer(b"")) - 2)))
            leave(connection)
            fresh = await api.accept()
            await fresh.until(b"{}")
            fresh.send(answer(b"theirs"))
            got = await received(other, b"theirs")
            assert got.startswith(b"HTTP/1.1 200 OK")
            assert b"secret" not in got
            one.close()


def test_a_spare_connection_with_nothing_but_session_tickets_unread_serves(
    run: Run, authority: tuple[str, ssl.SSLContext]
) -> None:
    run(unread_tickets(authority))


async def unread_tickets(authority: tuple[str, ssl.SSLContext]) -> None:
    async with holding(authority, BITS_UPSTREAM__WARM_CONNECTIONS="1") as api:
        client = await api.client()
        with closing(client):
            spare = await api.accept(hold=True)
            await api.bench.seen(lambda: api.bench.sidecar._pool.counts()["idle"] == 1)
            assert spare.held
            client.sendall(CREATE)
            spare.send_raw(spare.held)
            await spare.until(b"{}")
            spare.send(answer(b"theirs"))
            assert (await received(client, b"theirs")).startswith(b"HTTP/1.1 200 OK")


REFUSALS = [b"413 Content Too Large", b"401 Unauthorized", b"403 Forbidden"]


@pytest.mark.parametrize("status", REFUSALS, ids=lambda status: status[:3].decode())
@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("first", ["client", "API"])
def test_an_answer_that_came_before_a_write_failed_is_delivered(
    run: Run, tls: Tls, first: str, framing: str, status: bytes
) -> None:
    run(refused_early(tls, first, framing, status))


async def refused_early(tls: Tls, first: str, framing: str, status: bytes) -> None:
    piece = b"x" * 1000
    if framing == "length":
        head, pieces = b"Content-Length: 100000\r\n\r\n", [piece] * 100
    else:
        head, pieces = b"Transfer-Encoding: chunked\r\n\r\n", [b"3e8\r\n%b\r\n" % piece] * 100
    async with holding(tls) as api:
        client = await api.client()
        with closing(client):
            client.sendall(b"POST /v1/applications.create" + HEAD + head)
            connection = await api.accept()
            await connection.until(b"\r\n\r\n")
            # What lies unread makes the API's close a reset.
            client.sendall(b"".join(pieces[:70]))
            await connection.has_more()
            if first == "client":
                client.sendall(pieces[70])
            connection.send(answer(b"too much", status))
            connection.close()
            if first == "API":
                client.sendall(pieces[70])
            client.sendall(b"".join(pieces[71:]))
            got = await received(client, b"too much")
            assert got.startswith(b"HTTP/1.1 " + status)
            assert got.endswith(b"too much")


def test_an_answer_that_lasts_until_the_end_has_none_after_a_reset(run: Run) -> None:
    run(reset_without_length())


async def reset_without_length() -> None:
    async with holding(None) as api:
        client = await api.client()
        with closing(client):
            client.sendall(b"POST /v1/x" + HEAD + b"Content-Length: 100000\r\n\r\nxx")
            connection = await api.accept()
            await connection.until(b"\r\n\r\n")
            await connection.has_more()
            connection.send(b"HTTP/1.1 200 OK\r\n\r\nhalf")
            connection.close()
            got = await received(client, b"")
            assert got.startswith(b"HTTP/1.1 200 OK")
            assert not got.endswith(b"0\r\n\r\n"), "a clean end"


def refuse(sock: socket.socket, context: ssl.SSLContext | None) -> None:
    """Answer each request from its head, and close with the rest unread."""
    while True:
        try:
            connection, _ = sock.accept()
        except OSError:
            return
        with connection, contextlib.suppress(OSError):
            connection.settimeout(HANGS)
            # The answer must leave before the reset, whatever else is not acknowledged yet.
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if context is not None:
                connection = context.wrap_socket(connection, server_side=True)
            head = b""
            while b"\r\n\r\n" not in head:
                piece = connection.recv(4096)
                if not piece:
                    break
                head += piece
            else:
                connection.sendall(answer(b"too much", b"413 Content Too Large"))
            connection.close()


def upload(address: tuple[str, int], size: int, framing: str) -> bytes:
    """Send a whole request, then read the answer, like clients that know nothing of early answers."""
    body = b"x" * size
    if framing == "length":
        message = b"Content-Length: %d\r\n\r\n%b" % (size, body)
    else:
        message = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (size, body)
    with socket.create_connection(address, timeout=HANGS) as sock:
        with contextlib.suppress(OSError):
            sock.sendall(b"POST /v1/applications.create" + HEAD + message)
        got = b""
        with contextlib.suppress(OSError):
            while not got.endswith(b"too much") and (piece := sock.recv(65_536)):
                got += piece
        return got


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("size", [60_000, 200_000])
def test_an_api_that_refuses_a_body_unread_is_heard(run: Run, tls: Tls, size: int, framing: str) -> None:
    run(refused_unread(tls, size, framing))


async def refused_unread(tls: Tls, size: int, framing: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        server = threading.Thread(target=refuse, args=(sock, None if tls is None else tls[1]))
        server.start()
        try:
            async with recording() as tokens, set_up(**settings_for(port, tokens, tls)) as bench:
                address = bench.sidecar.addresses[0]
                assert isinstance(address, TcpAddress)
                for _ in range(UPLOADS):
                    got = await asyncio.to_thread(upload, (address.host, address.port), size, framing)
                    assert got.startswith(b"HTTP/1.1 413 Content Too Large\r\n")
                    assert got.endswith(b"too much")
        finally:
            sock.shutdown(socket.SHUT_RDWR)
            server.join()


POST = b"POST /v1/applications.create" + HEAD + b"Content-Length: 4\r\n\r\nbody"
LARGE = POST.replace(b": 4", b": 100000")
"""The beginning of a request whose body is streamed."""
CHUNKED = b"POST /v1/x" + HEAD + b"Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    "requests", [[GET], [POST], [CHUNKED], [GET, POST, CHUNKED]], ids=["GET", "length", "chunked", "several"]
)
@pytest.mark.parametrize("apart", [False, True], ids=["at once", "apart"])
def test_whole_requests_with_a_fin_behind_them_are_answered(
    run: Run, tls: Tls, requests: list[bytes], *, apart: bool
) -> None:
    run(half_closed(tls, requests, apart=apart))


async def half_closed(tls: Tls, requests: list[bytes], *, apart: bool) -> None:
    async with holding(tls) as api:
        client = await api.client()
        with closing(client):
            client.sendall(b"".join(requests))
            if not apart:
                client.shutdown(socket.SHUT_WR)
            connection = await api.accept()
            for number, request in enumerate(requests):
                await connection.until(request[-4:])
                if apart and not number:
                    client.shutdown(socket.SHUT_WR)
                connection.send(answer(b"answer %d" % number))
            got = await received(client, b"")
            assert got.count(b"HTTP/1.1 200 OK") == len(requests)
            assert got.endswith(b"answer %d" % (len(requests) - 1))
            assert api.bench.in_flight() == 0


@pytest.mark.parametrize("first", ["client", "API"])
def test_a_fin_that_becomes_readable_with_the_answer_costs_no_answer(run: Run, tls: Tls, first: str) -> None:
    run(ended_at_the_answer(tls, first))


async def ended_at_the_answer(tls: Tls, first: str) -> None:
    async with holding(tls) as api:
        client = await api.client()
        with closing(client):
            client.sendall(GET)
            connection = await api.accept()
            await connection.until(b"\r\n\r\n")
            if first == "client":
                client.shutdown(socket.SHUT_WR)
            connection.send(answer(b"answer"))
            if first == "API":
                client.shutdown(socket.SHUT_WR)
            assert (await received(client, b"")).endswith(b"answer")


@pytest.mark.parametrize("first", ["client", "API"])
def test_a_close_notify_that_becomes_readable_with_the_answer_costs_no_answer(
    run: Run, pki: Pki, first: str
) -> None:
    run(notified_at_the_answer(pki, first))


async def notified_at_the_answer(pki: Pki, first: str) -> None:
    async with holding(None, **pki.settings) as api:
        address = api.bench.sidecar.addresses[0]
        assert isinstance(address, TcpAddress)
        async with tls_peer((address.host, address.port), pki.client()) as peer:
            peer.send(GET)
            connection = await api.accept()
            await connection.until(b"\r\n\r\n")
            if first == "client":
                peer.say_goodbye()
            connection.send(answer(b"answer"))
            if first == "API":
                peer.say_goodbye()
            assert (await peer.rest()).endswith(b"answer")


@pytest.mark.parametrize(
    "sent",
    [LARGE, CHUNKED[:-2], POST + GET[:-1], POST + LARGE],
    ids=["length", "chunked", "half a head behind", "half a body behind"],
)
def test_what_a_fin_leaves_unfinished_is_not_answered(run: Run, tls: Tls, sent: bytes) -> None:
    run(cut_by_a_fin(tls, sent))


async def cut_by_a_fin(tls: Tls, sent: bytes) -> None:
    async with holding(tls) as api:
        client = await api.client()
        with closing(client):
            client.sendall(sent)
            connection = await api.accept()
            if sent.startswith(POST):
                await connection.until(b"body")
                connection.send(answer(b"answer"))
                await received(client, b"answer")
            else:
                await connection.until(b"\r\n\r\n")
            client.shutdown(socket.SHUT_WR)
            assert await received(client, b"") == b""
            if not sent.endswith(GET[:-1]):
                assert await connection.ended()
            assert api.bench.in_flight() == 0


def test_a_reset_behind_a_fin_is_a_departure(run: Run, tls: Tls) -> None:
    run(reset_behind_a_fin(tls))


async def reset_behind_a_fin(tls: Tls) -> None:
    async with holding(tls) as api:
        client = await api.client()
        client.sendall(POST)
        connection = await api.accept()
        await connection.until(b"body")
        client.shutdown(socket.SHUT_WR)
        (proxied,) = api.bench.sidecar._clients.open
        assert isinstance(proxied, ClientConnection)
        await api.bench.seen(lambda: proxied._ended)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        assert await connection.ended()
        await api.bench.seen(lambda: api.bench.in_flight() == 0)
