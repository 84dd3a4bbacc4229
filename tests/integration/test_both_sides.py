"""Both sides of an event: two sockets become readable in either order, and an end is not always a departure."""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
import trustme
import uvloop

from bits_auth_proxy.forward.dialing import Dialer
from tests.support.held_api import HeldApi, HeldConnection, holding, received

pytestmark = pytest.mark.usefixtures("brisk")

HEAD = b" HTTP/1.1\r\nHost: localhost\r\n"
GET = b"GET /v1/x" + HEAD + b"\r\n"
CREATE = b"POST /v1/applications.create" + HEAD + b"Content-Length: 2\r\n\r\n{}"
SMALL_READ = 256
RECORD_OVERHEAD = 22
"""Bytes that a record of TLS 1.3 adds to its content."""
LEFTOVER = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret"
TIMED_OUT = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 4\r\n\r\nlate"

Tls = tuple[str, ssl.SSLContext] | None
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
