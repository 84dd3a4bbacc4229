"""Slow peers: none makes the proxy hold more than it should, nor for longer."""

import asyncio
import contextlib
import gc
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bits_auth_proxy.forward.downstream import ClientConnection
from bits_auth_proxy.forward.exchange import MIN_RATE
from bits_auth_proxy.settings.addresses import TcpAddress
from tests.support.bench import Bench, set_up
from tests.support.leftovers import leftovers, open_descriptors
from tests.support.recorder import recording
from tests.support.serving import serving
from tests.support.waiting import HANGS, at_rest

pytestmark = pytest.mark.usefixtures("brisk")

HEAD = b" HTTP/1.1\r\nHost: localhost\r\n"
GET = b"GET /v1/x" + HEAD + b"\r\n"
MIB = 2**20


def resident() -> int:
    """Bytes of this process in memory, garbage aside."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def where(bench: Bench) -> tuple[str, int]:
    address = bench.sidecar.addresses[0]
    assert isinstance(address, TcpAddress)
    return address.host, address.port


async def connected(bench: Bench) -> socket.socket:
    """A client that is nothing but a socket."""
    sock = socket.socket()
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, where(bench))
    return sock


async def test_a_head_that_trickles_in_has_its_ten_seconds_all_the_same(bench: Bench) -> None:
    async with bench.connect() as client:
        for byte in b"GET /":
            await client.send(bytes([byte]))
            await bench.pass_time(1.9)
        await client.send(b"v1")
        await bench.pass_time(1)
        assert (await client.answer()).status == 408
        assert await client.is_closed()


@pytest.mark.parametrize("length", [b"Content-Length: 90", b"Content-Length: 90000"])
async def test_a_body_that_trickles_in_has_the_idle_time_in_all(bench: Bench, length: bytes) -> None:
    async with bench.connect() as client:
        await client.send(b"POST /v1/x" + HEAD + length + b"\r\n\r\n")
        await bench.seen(lambda: bench.in_flight() == 1)
        for _ in range(3):
            await bench.pass_time(19)
            await client.send(b"x")
            await bench.seen(lambda: bench.in_flight() == 1)
        await bench.pass_time(5)
        assert (await client.answer()).status == 408
    await bench.seen(lambda: bench.sidecar._pool.counts()["active"] == 0)


async def test_a_body_that_keeps_to_the_least_rate_is_taken(bench: Bench) -> None:
    piece = bytes(MIN_RATE * 50)
    async with bench.connect() as client:
        await client.send(b"POST /v1/x" + HEAD + b"Content-Length: %d\r\n\r\n" % (5 * len(piece)))
        await bench.seen(lambda: bench.in_flight() == 1)
        (exchange,) = (each._exchange for each in bench.sidecar._clients.open)  # type: ignore[attr-defined] # plain
        assert exchange is not None
        for number in range(5):
            await bench.pass_time(50)
            await client.send(piece)
            await bench.seen(lambda: exchange.record.request_bytes == (number + 1) * len(piece))  # noqa: B023 - waits
        assert (await client.answer()).status == 200


async def test_an_answer_that_trickles_in_is_passed_on(bench: Bench) -> None:
    bench.upstream.script = [(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",)]
    async with bench.connect() as client:
        await client.send(GET)
        await client.until(b"\r\n\r\n")
        for byte in b"01234":
            await bench.pass_time(50)
            bench.upstream.push(bytes([byte]))
            assert await client.some() == bytes([byte])


@contextlib.asynccontextmanager
async def generous() -> AsyncIterator[tuple[str, list[int]]]:
    """An API whose answers are of 16 MiB, as fast as they are taken; yields its origin, and what it sent."""
    sent = [0]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        piece = bytes(0x8000)
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (16 * MIB))
            for _ in range(16 * MIB // len(piece)):
                writer.write(piece)
                await writer.drain()
                sent[0] += len(piece)
            await reader.read()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.transport.abort()

    async with serving(serve) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", sent


async def test_clients_that_do_not_read_long_answers_cost_little_and_are_cut() -> None:
    async with generous() as (api, sent), recording() as tokens:
        env = {"BITS_API_URL": api, "BITS_TOKEN_URL": f"http://{tokens.authority}/v1/oauth2/token"}
        async with set_up(**env) as bench:
            descriptors = open_descriptors()
            before = resident()
            clients = [await connected(bench) for _ in range(40)]
            for client in clients:
                await asyncio.get_running_loop().sock_sendall(client, GET)
            await bench.seen(lambda: bench.in_flight() == 40)
            # Both sides' buffers are full and nothing moves.
            assert await at_rest(lambda: sent[0]) < 40 * 16 * MIB
            assert resident() - before < 32 * MIB
            # They take nothing: cut, each of them.
            await bench.pass_time(61)
            await bench.pass_time(61)
            await bench.seen(lambda: bench.in_flight() == 0)
            for client in clients:
                client.close()
            await bench.seen(lambda: not any(leftovers(bench.sidecar, descriptors).values()))


async def test_who_reads_no_answers_is_served_no_more_until_it_does(bench: Bench) -> None:
    loop = asyncio.get_running_loop()
    size, most = 50_000, 400
    bench.upstream.script = [(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + bytes(size),)]
    client = await connected(bench)
    await bench.seen(lambda: len(bench.sidecar._clients.open) == 1)
    (connection,) = bench.sidecar._clients.open
    assert isinstance(connection, ClientConnection)
    asked = 0

    def arrived() -> int:
        return len(bench.upstream.requests)

    def over() -> bool:
        return connection.blocked or (arrived() == asked and not bench.in_flight())

    while asked < most:
        # One by one: each comes when the one before is over.
        await loop.sock_sendall(client, GET)
        asked += 1
        await bench.seen(over)
        # The kernel may take some more in a moment.
        if connection.blocked and await at_rest(arrived) < asked:
            break
    assert arrived() == asked - 1 < most - 1
    assert bench.in_flight() == 0
    # What was sent meanwhile is served as soon as there is room for its answer.
    got = 0
    async with asyncio.timeout(HANGS):
        while got < asked * size:
            got += len(await loop.sock_recv(client, MIB))
    assert arrived() == asked
    client.close()
