"""Many clients: what the idle ones cost, and that those who have gone leave nothing behind."""

import asyncio
import contextlib
import gc
import resource
import socket
import ssl
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from bits_auth_proxy.forward.downstream import ClientConnection
from bits_auth_proxy.forward.exchange import Exchange
from bits_auth_proxy.settings.addresses import TcpAddress
from tests.support.bench import Bench, set_up
from tests.support.commands import Command, command, proxy_env
from tests.support.pki import Pki
from tests.support.recorder import OK_ANSWER, recording
from tests.support.waiting import HANGS, at_rest, seen

GET = b"GET /v1/x HTTP/1.1\r\nHost: localhost\r\n\r\n"
IDLE_CLIENTS = 1000
UPLOADING_CLIENTS = 999
API_CONNECTIONS = 100
CONNECTS = 10_000
KIB = 2**10
MIB = 2**20
HELD_BODIES = 16 * MIB


@pytest.fixture(autouse=True)
def descriptors_for_all() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    enough = 4096 if hard == resource.RLIM_INFINITY else min(4096, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, enough), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def resident(running: Command) -> int:
    """Return the bytes of memory that the process has."""
    status = Path(f"/proc/{running.process.pid}/status").read_text("utf-8")
    (line,) = (each for each in status.splitlines() if each.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


def call(sock: socket.socket) -> None:
    sock.sendall(GET)
    answer = b""
    while not answer.endswith(b"\r\n\r\nok"):
        piece = sock.recv(4096)
        assert piece
        answer += piece


def stay(port: int, count: int, context: ssl.SSLContext | None) -> list[socket.socket]:
    """Connect `count` clients, each of which makes a call and stays."""
    clients = []
    for _ in range(count):
        sock: socket.socket = socket.create_connection(("127.0.0.1", port), timeout=HANGS)
        if context is not None:
            sock = context.wrap_socket(sock, server_hostname="localhost")
        call(sock)
        clients.append(sock)
    return clients


@pytest.mark.parametrize("tls", [False, True])
async def test_a_thousand_idle_clients_fit_into_32_mib_and_are_all_served(
    tmp_path: Path, *, tls: bool
) -> None:
    pki = Pki(tmp_path) if tls else None
    context = pki.client() if pki else None
    async with recording() as upstream:
        env = proxy_env(f"http://{upstream.authority}", **(pki.settings if pki else {}))
        async with command("run", env=env) as running:
            started = await running.event("started")
            await running.event("token_refreshed")
            port = int(started["listen"][0].rpartition(":")[2])
            before = resident(running)
            clients = await asyncio.to_thread(stay, port, IDLE_CLIENTS, context)
            growth = resident(running) - before
            for client in clients:
                await asyncio.to_thread(call, client)
                client.close()
    print(f"{IDLE_CLIENTS} idle clients, TLS {tls}: {growth / MIB:.1f} MiB")
    assert len(upstream.requests) == 2 * IDLE_CLIENTS
    assert growth < 32 * MIB


def upload(port: int, count: int, context: ssl.SSLContext | None) -> list[socket.socket]:
    """Connect `count` clients, each of which sends as much of a large body as is taken, up to 160 kB."""
    clients = []
    for _ in range(count):
        sock: socket.socket = socket.create_connection(("127.0.0.1", port), timeout=HANGS)
        if context is not None:
            sock = context.wrap_socket(sock, server_hostname="localhost")
        sock.sendall(b"POST /v1/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n")
        sock.setblocking(False)
        clients.append(sock)
    piece = bytes(16_000)
    for _ in range(10):
        for sock in clients:
            with contextlib.suppress(BlockingIOError, ssl.SSLWantWriteError):
                sock.send(piece)
    return clients


@pytest.mark.parametrize("tls", [False, True])
async def test_uploads_of_all_clients_to_an_api_that_stalls_fit_into_the_charts_limit(
    tmp_path: Path, *, tls: bool
) -> None:
    chart = yaml.safe_load(Path("helm/bits-auth-proxy/values.yaml").read_text("utf-8"))
    limit = int(chart["resources"]["limits"]["memory"].removesuffix("Mi")) * MIB
    pki = Pki(tmp_path) if tls else None
    context = pki.client() if pki else None
    async with recording() as upstream:
        upstream.read_bodies = False
        env = proxy_env(f"http://{upstream.authority}", **(pki.settings if pki else {}))
        async with command("run", env=env) as running:
            started = await running.event("started")
            await running.event("token_refreshed")
            port = int(started["listen"][0].rpartition(":")[2])
            clients = await asyncio.to_thread(upload, port, UPLOADING_CLIENTS, context)
            await at_rest(lambda: resident(running))
            most = resident(running)
        # Only now: otherwise, others would get the connections of those that leave.
        for client in clients:
            client.close()
        assert len(upstream.requests) == API_CONNECTIONS
    print(f"{UPLOADING_CLIENTS} uploads, TLS {tls}: {most / MIB:.1f} MiB")
    # See docs/operations.md.
    per_client = 96 * KIB if tls else 48 * KIB
    bound = 60 * MIB + UPLOADING_CLIENTS * per_client + HELD_BODIES + API_CONNECTIONS * 96 * KIB
    assert most < bound < limit


def come_and_go(port: int, count: int) -> None:
    """Connect again and again: one after a call, one in the middle of it, one without a word."""
    abrupt = struct.pack("ii", 1, 0)
    for number in range(count):
        with socket.create_connection(("127.0.0.1", port), timeout=HANGS) as sock:
            way = number % 4
            if way < 2:
                call(sock)
            elif way == 2:
                sock.sendall(GET if number % 8 == 2 else GET[:20])
            if way % 2:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, abrupt)


def descriptors() -> int:
    return len(list(Path("/dev/fd").iterdir()))


def alive(kind: type) -> int:
    gc.collect()
    return sum(isinstance(each, kind) for each in gc.get_objects())


async def test_ten_thousand_connects_in_a_row_leave_nothing_behind() -> None:
    # Behind a whole request a client that has closed is served to the end. So that as many connections to the
    # API are left as before, there is only one.
    async with set_up(BITS_UPSTREAM__MAX_CONNECTIONS="1") as bench:
        await connects_in_a_row(bench)


async def connects_in_a_row(bench: Bench) -> None:
    async with bench.connect() as client:
        await client.send(GET)
        assert (await client.answer()).body == OK_ANSWER[-2:]
    clients = bench.sidecar._clients
    await bench.seen(clients.gone.is_set)
    address = bench.sidecar.addresses[0]
    assert isinstance(address, TcpAddress)
    upstream = bench.sidecar._pool.counts()
    before = (
        descriptors(),
        len(asyncio.all_tasks()),
        len(bench.sidecar._traffic_tasks._tasks),
        clients.limit._free,
    )
    await asyncio.to_thread(come_and_go, address.port, CONNECTS)
    await bench.seen(clients.gone.is_set)
    await bench.seen(lambda: bench.in_flight() == 0 and bench.sidecar._pool.counts() == upstream)
    await bench.seen(lambda: len(asyncio.all_tasks()) <= before[1])
    after = (
        descriptors(),
        len(asyncio.all_tasks()),
        len(bench.sidecar._traffic_tasks._tasks),
        clients.limit._free,
    )
    assert after == before
    assert (alive(ClientConnection), alive(Exchange)) == (0, 0)


async def test_nor_do_they_in_the_process_itself() -> None:
    async with recording() as upstream:
        env = proxy_env(f"http://{upstream.authority}", BITS_ALLOW_DEBUGGERS="true")
        async with command("run", env=env) as running:
            started = await running.event("started")
            await running.event("token_refreshed")
            port = int(started["listen"][0].rpartition(":")[2])
            opened = Path(f"/proc/{running.process.pid}/fd")
            await asyncio.to_thread(come_and_go, port, 500)
            before = resident(running)
            await asyncio.to_thread(come_and_go, port, CONNECTS)
            growth = resident(running) - before
            # Listeners, the event loop's own, the log, and at most the connections to the API.
            await seen(lambda: len(list(opened.iterdir())) <= 30)
    print(f"{CONNECTS} connects: {growth / MIB:.1f} MiB")
    assert growth < 4 * MIB
