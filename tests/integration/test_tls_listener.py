"""TLS with clients: who gets in, what passes, how it ends, and certificates that are renewed meanwhile."""

import asyncio
import contextlib
import io
import signal
import socket
import ssl
import warnings
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Self, TypeVar, cast

import aiohttp
import pytest
import trustme
from aiohttp import web
from cryptography.hazmat.primitives import serialization

from bits_auth_proxy.forward.downstream import ClientConnection
from bits_auth_proxy.settings.addresses import TcpAddress
from bits_auth_proxy.sidecar import Sidecar
from tests.support.bench import Bench, set_up
from tests.support.commands import Command, command, get, proxy_env, run
from tests.support.key_updates import REPLY, KeyUpdates
from tests.support.pki import Pki
from tests.support.rawclient import RawClient, raw_client
from tests.support.recorder import CUT, OK_ANSWER, recording
from tests.support.stand import APPLICATION, CREATE, emulating, sidecar_for, unix_address
from tests.support.tls_peer import TlsPeer, tls_peer
from tests.support.waiting import HANGS, at_rest, seen

GET = b"GET /v1/x HTTP/1.1\r\nHost: localhost\r\n\r\n"
LAST = b"GET /v1/x HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
UPGRADE = (
    b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
PIECE = bytes(range(256)) * 256
# What the kernel's buffers on loopback may hold on top of ours, on both connections.
KERNEL = 16 * 2**20
UPLOAD = b"POST /v1/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n"
T = TypeVar("T")


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki(tmp_path)


@pytest.fixture
async def secure(pki: Pki) -> AsyncIterator[Bench]:
    async with set_up(**pki.settings) as bench:
        yield bench


def place(sidecar: Sidecar) -> tuple[str, int]:
    address = sidecar.addresses[0]
    assert isinstance(address, TcpAddress)
    return address.host, address.port


def connect(bench: Bench, context: ssl.SSLContext) -> contextlib.AbstractAsyncContextManager[RawClient]:
    return raw_client(place(bench.sidecar), context)


async def blocking(bench: Bench, context: ssl.SSLContext, talk: Callable[[ssl.SSLSocket], T]) -> T:
    """Let a client of the standard library talk: one that tells close_notify from a mere FIN."""

    def call() -> T:
        with (
            socket.create_connection(place(bench.sidecar), timeout=HANGS) as plain,
            context.wrap_socket(plain, server_hostname="localhost", suppress_ragged_eofs=False) as sock,
        ):
            return talk(sock)

    return await asyncio.to_thread(call)


def read_all(sock: ssl.SSLSocket) -> bytes:
    """Read until close_notify; a FIN without it raises."""
    data = b""
    while piece := sock.recv(65_536):
        data += piece
    return data


def rejected(bench: Bench) -> float:
    """Count the handshakes that failed."""
    for line in bench.metrics().splitlines():
        if line.startswith('bits_proxy_rejected_requests_total{reason="tls_handshake"}'):
            return float(line.split()[1])
    return 0.0


# Who speaks to it.


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_requests_on_one_connection_and_a_close_that_is_told(
    pki: Pki, secure: Bench, version: ssl.TLSVersion
) -> None:
    context = pki.client()
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols(["h2", "http/1.1"])

    def talk(sock: ssl.SSLSocket) -> tuple[str | None, bytes]:
        sock.sendall(GET + GET)
        sock.sendall(LAST)
        return sock.selected_alpn_protocol(), read_all(sock)

    alpn, data = await blocking(secure, context, talk)
    assert alpn == "http/1.1"
    assert data.count(b"HTTP/1.1 200 OK\r\n") == data.count(b"\r\n\r\nok") == 3
    assert len(secure.upstream.requests) == 3
    assert rejected(secure) == 0
    assert secure.upstream.connections == 1


async def test_aiohttp(pki: Pki) -> None:
    async with emulating() as (_, api), sidecar_for(api, io.StringIO(), **pki.settings) as sidecar:
        origin = f"https://localhost:{place(sidecar)[1]}"
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=pki.client())) as session:
            for _ in range(3):
                async with session.post(origin + CREATE, json=APPLICATION) as answer:
                    assert answer.status == 200
                    assert (await answer.json())["id"].startswith("bits:application::")


async def test_a_request_may_come_byte_by_byte_in_records_of_its_own(pki: Pki, secure: Bench) -> None:
    async with connect(secure, pki.client()) as client:
        for byte in GET:
            await client.send(bytes([byte]))
        assert (await client.answer()).status == 200


async def test_a_request_that_comes_with_the_end_of_the_handshake_is_answered(
    pki: Pki, secure: Bench
) -> None:
    async with asyncio.timeout(HANGS), tls_peer(place(secure.sidecar), pki.client(), GET) as peer:
        await peer.until(b"\r\n\r\nok")


async def test_a_unix_socket_beside_it_stays_plain(pki: Pki, tmp_path: Path) -> None:
    listen, path = unix_address(tmp_path)
    async with set_up(**pki.settings, BITS_LISTEN=f"127.0.0.1:0,{listen}") as bench:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(LAST)
        assert (await reader.read()).endswith(b"\r\n\r\nok")
        writer.close()
        await writer.wait_closed()
        async with connect(bench, pki.client()) as client:
            await client.send(GET)
            assert (await client.answer()).status == 200


async def test_the_api_is_told_over_what_the_client_came(pki: Pki, tmp_path: Path) -> None:
    listen, path = unix_address(tmp_path)
    env = {**pki.settings, "BITS_LISTEN": f"127.0.0.1:0,{listen}", "BITS_FORWARDED_HEADERS": "true"}
    async with set_up(**env) as bench:
        async with connect(bench, pki.client()) as client:
            await client.send(GET)
            await client.answer()
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(LAST)
        await reader.read()
        writer.close()
        await writer.wait_closed()
    told = [
        head.partition(b"X-Forwarded-Proto: ")[2].partition(b"\r\n")[0] for head, _ in bench.upstream.requests
    ]
    assert told == [b"https", b"http"]


# Who does not get in.


async def test_tls_1_1_is_refused(pki: Pki, secure: Bench) -> None:
    context = pki.client()
    context.set_ciphers("DEFAULT@SECLEVEL=0")
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"):
        await blocking(secure, context, read_all)
    await secure.seen(lambda: rejected(secure) == 1)
    assert "UNSUPPORTED_PROTOCOL" in secure.log.getvalue()


async def test_a_client_that_speaks_plain_http_is_cut_and_counted(secure: Bench) -> None:
    async with secure.connect() as client:
        await client.send(GET)
        answer = await client.some()
        assert b"HTTP" not in answer
        assert await client.is_closed()
    assert rejected(secure) == 1
    assert (
        '"event": "tls_handshake_failed", "detail": "HTTP_REQUEST", "peer": "127.0.0.1"'
        in secure.log.getvalue()
    )
    assert secure.upstream.requests == []


async def test_with_a_client_authority_its_certificates_are_required(pki: Pki) -> None:
    async with set_up(**pki.mutual) as bench:

        def talk(sock: ssl.SSLSocket) -> bytes:
            sock.sendall(LAST)
            return read_all(sock)

        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            contexts = [
                pki.client(),
                pki.client(identity=trustme.CA()),
                pki.client(identity=pki.authority),
            ]
            for context in contexts:
                context.minimum_version = context.maximum_version = version
            for stranger in contexts[:2]:
                with pytest.raises((ssl.SSLError, ConnectionError)):
                    await blocking(bench, stranger, talk)
            assert (await blocking(bench, contexts[2], talk)).startswith(b"HTTP/1.1 200 OK\r\n")
        await bench.seen(lambda: rejected(bench) == 4)
        assert "PEER_DID_NOT_RETURN_A_CERTIFICATE" in bench.log.getvalue()
        assert len(bench.upstream.requests) == 2


async def test_a_handshake_that_does_not_come_to_an_end_is_cut_and_gives_its_place_back(pki: Pki) -> None:
    async with set_up(**pki.settings, BITS_LIMITS__MAX_CONNECTIONS="1") as bench:
        async with bench.connect() as client:
            await client.send(b"\x16\x03\x01\x02\x00")
            await bench.seen(lambda: not bench.sidecar._clients.gone.is_set())
            bench.clock.advance(10.5)
            assert await client.is_closed()
        await bench.seen(bench.sidecar._clients.gone.is_set)
        assert rejected(bench) == 1
        # Who says nothing at all, as a probe of the port does, is no failed handshake.
        async with bench.connect() as client:
            await bench.seen(lambda: not bench.sidecar._clients.gone.is_set())
            bench.clock.advance(10.5)
            assert await client.is_closed()
        async with bench.connect():
            pass
        async with connect(bench, pki.client()) as client:
            await client.send(GET)
            assert (await client.answer()).status == 200
        assert rejected(bench) == 1
        assert bench.in_flight() == 0


async def test_a_client_that_leaves_within_the_handshake_is_counted_once(secure: Bench) -> None:
    async with secure.connect() as client:
        await client.send(b"\x16\x03\x01\x02\x00")
        await secure.seen(lambda: not secure.sidecar._clients.gone.is_set())
        client.end()
        await secure.seen(secure.sidecar._clients.gone.is_set)
    assert rejected(secure) == 1


async def test_a_record_that_was_changed_on_the_way_cuts_the_connection(pki: Pki, secure: Bench) -> None:
    async with tls_peer(place(secure.sidecar), pki.client()) as peer:
        peer.send(GET)
        await peer.until(b"\r\n\r\nok")
        peer.writer.write(b"\x17\x03\x03\x00\x20" + b"x" * 32)
        with pytest.raises((EOFError, ConnectionError)):
            await peer.rest()
    await secure.seen(secure.sidecar._clients.gone.is_set)
    assert rejected(secure) == 0


# Bodies, and who is slow.


async def test_large_bodies_pass_both_ways(pki: Pki, secure: Bench) -> None:
    big = PIECE * 64
    secure.upstream.script = [(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(big), big)]
    head = b"POST /v1/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(big)
    async with connect(secure, pki.client()) as client:
        await client.send(head + big)
        assert (await client.answer()).body == big
    assert secure.upstream.requests[0][1] == big


async def test_a_client_that_does_not_read_stops_the_api_and_then_gets_it_all(pki: Pki) -> None:
    length = 1024 * len(PIECE)
    sent = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % length)
            while sent < length:
                writer.write(PIECE)
                await writer.drain()
                sent += len(PIECE)
            writer.close()
            await writer.wait_closed()
        writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, recording() as tokens:
        env = {"BITS_TOKEN_URL": f"http://{tokens.authority}/v1/oauth2/token", **pki.settings}
        api = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with (
            sidecar_for(api, io.StringIO(), **env) as sidecar,
            raw_client(place(sidecar), pki.client()) as client,
        ):
            await client.send(GET)
            await client.until(b"\r\n\r\n")
            assert await at_rest(lambda: sent) < KERNEL < length
            taken = b""
            total = 0
            while total < length:
                taken = await client.some()
                total += len(taken)
            assert total == length
            assert taken.endswith(PIECE[-100:])


async def test_an_api_that_does_not_read_stops_the_client(pki: Pki, secure: Bench) -> None:
    length = 1024 * len(PIECE)
    secure.upstream.read_bodies = False
    taken = 0

    async def feed(client: RawClient) -> None:
        nonlocal taken
        await client.send(b"POST /v1/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % length)
        while taken < length:
            await client.send(PIECE)
            taken += len(PIECE)

    async with connect(secure, pki.client()) as client:
        feeding = asyncio.ensure_future(feed(client))
        assert await at_rest(lambda: taken) < KERNEL < length
        secure.upstream.read_on(OK_ANSWER, length)
        async with asyncio.timeout(HANGS):
            await feeding
        assert (await client.answer()).status == 200


# How it ends.


async def test_a_client_that_leaves_takes_its_exchange_along(pki: Pki, secure: Bench) -> None:
    secure.upstream.script = [()]
    async with tls_peer(place(secure.sidecar), pki.client()) as peer:
        peer.send(GET)
        await secure.upstream.arrived.wait()
        peer.writer.write_eof()
        async with asyncio.timeout(HANGS):
            await secure.upstream.gone.wait()
        await secure.seen(secure.sidecar._clients.gone.is_set)
    assert "client_gone" in secure.log.getvalue()


@pytest.mark.parametrize("fin", [False, True])
async def test_a_request_with_close_notify_behind_it_is_answered(
    pki: Pki, secure: Bench, *, fin: bool
) -> None:
    async with tls_peer(place(secure.sidecar), pki.client()) as peer:
        peer.send(GET)
        peer.say_goodbye()
        if fin:
            peer.writer.write_eof()
        assert (await peer.rest()).endswith(b"\r\n\r\nok")
    await secure.seen(secure.sidecar._clients.gone.is_set)


async def test_what_follows_close_notify_is_nobodys(pki: Pki, secure: Bench) -> None:
    async with tls_peer(place(secure.sidecar), pki.client()) as peer:
        peer.send(GET)
        await peer.until(b"\r\n\r\nok")
        peer.say_goodbye()
        peer.writer.write(GET)
        assert await peer.rest() == b""
    await secure.seen(secure.sidecar._clients.gone.is_set)
    assert len(secure.upstream.requests) == 1


@pytest.mark.parametrize("old", [False, True])
async def test_an_answer_that_was_cut_is_cut_here_too(pki: Pki, secure: Bench, *, old: bool) -> None:
    secure.upstream.script = [(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", CUT)]
    async with tls_peer(place(secure.sidecar), pki.client()) as peer:
        # To an HTTP/1.0 client only close_notify tells a whole answer from a half one.
        peer.send(GET.replace(b"1.1", b"1.0") if old else GET)
        with pytest.raises((EOFError, ConnectionError)):
            await peer.rest()
    await secure.seen(secure.sidecar._clients.gone.is_set)


async def test_a_refusal_reaches_a_client_that_still_sends(pki: Pki, secure: Bench) -> None:
    def talk(sock: ssl.SSLSocket) -> bytes:
        sock.sendall(b"POST /v1/x HTTP/2.0\r\nHost: localhost\r\nContent-Length: 50000\r\n\r\n")
        sock.sendall(b"x" * 50_000)
        return read_all(sock)

    assert (await blocking(secure, pki.client(), talk)).startswith(b"HTTP/1.1 505 ")


async def test_shutdown_ends_what_is_in_flight_well_and_closes_the_rest(pki: Pki, secure: Bench) -> None:
    secure.upstream.script = [()]
    async with (
        connect(secure, pki.client()) as idle,
        connect(secure, pki.client()) as busy,
        secure.connect() as half,
    ):
        await half.send(b"\x16\x03\x01\x02\x00")
        await busy.send(GET)
        await secure.upstream.arrived.wait()
        await secure.seen(lambda: len(secure.sidecar._clients.open) == 3)
        ending = asyncio.ensure_future(secure.sidecar.wait())
        secure.sidecar.stop()
        assert await idle.is_closed()
        assert await half.is_closed()
        assert not ending.done()
        secure.upstream.push(OK_ANSWER)
        answer = await busy.answer()
        assert (answer.status, answer.body, answer.field(b"Connection")) == (200, b"ok", b"close")
        assert await busy.is_closed()
        assert await ending
    assert '"event": "stopped", "cut": 0' in secure.log.getvalue()


# WebSocket.


async def test_a_websocket_over_tls(pki: Pki) -> None:
    async def events(request: web.Request) -> web.WebSocketResponse:
        ws = web.WebSocketResponse(max_msg_size=0)
        await ws.prepare(request)
        async for message in ws:
            await ws.send_bytes(message.data[::-1])
        return ws

    app = web.Application()
    app.router.add_get("/v1/events", events)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with (
        recording() as tokens,
        sidecar_for(
            f"http://127.0.0.1:{runner.addresses[0][1]}",
            io.StringIO(),
            BITS_TOKEN_URL=f"http://{tokens.authority}/v1/oauth2/token",
            **pki.settings,
        ) as sidecar,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=pki.client())) as session,
        session.ws_connect(f"https://localhost:{place(sidecar)[1]}/v1/events", max_msg_size=0) as ws,
    ):
        for size in (1, 1000, 300_000, 2_000_000):
            message = (PIECE * 40)[:size]
            await ws.send_bytes(message)
            assert await ws.receive_bytes(timeout=HANGS) == message[::-1]
        assert await ws.close()
    await runner.cleanup()


@contextlib.asynccontextmanager
async def tunnel(pki: Pki, *, server_first: bool) -> AsyncIterator[tuple[TlsPeer, asyncio.Future[bytes]]]:
    """A client whose upgrade is answered, and what will have arrived at the server in the end."""
    arrived: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:  # the proxy's warm connection
            writer.close()
            return
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        if server_first:
            writer.write(b"bye")
            writer.write_eof()
        arrived.set_result(await reader.read())
        if not server_first:
            writer.write(b"bye")
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, recording() as tokens:
        env = {"BITS_TOKEN_URL": f"http://{tokens.authority}/v1/oauth2/token", **pki.settings}
        api = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with (
            sidecar_for(api, io.StringIO(), **env) as sidecar,
            tls_peer(place(sidecar), pki.client()) as peer,
        ):
            peer.send(UPGRADE)
            await peer.until(b"\r\n\r\n")
            yield peer, arrived
            await sidecar._clients.gone.wait()


@pytest.mark.parametrize("fin", [True, False])
async def test_a_tunnels_client_may_end_its_half_first(pki: Pki, *, fin: bool) -> None:
    async with asyncio.timeout(HANGS), tunnel(pki, server_first=False) as (peer, arrived):
        peer.send(b"hello")
        peer.say_goodbye()
        if fin:
            peer.writer.write_eof()
        assert await arrived == b"hello"
        assert await peer.rest() == b"bye"


async def test_a_tunnels_server_may_end_its_half_first(pki: Pki) -> None:
    async with asyncio.timeout(HANGS), tunnel(pki, server_first=True) as (peer, arrived):
        assert await peer.rest() == b"bye"
        peer.send(b"hello")
        peer.say_goodbye()
        assert await arrived == b"hello"


async def test_a_tunnels_client_that_is_cut_is_no_end(pki: Pki) -> None:
    async with asyncio.timeout(HANGS), tunnel(pki, server_first=False) as (peer, arrived):
        peer.send(b"hello")
        peer.writer.write_eof()
        # Not even what the server says in its turn.
        with pytest.raises(EOFError):
            await peer.rest()
        assert await arrived == b"hello"


# Certificates that change.


class Traffic:
    """Calls all the time: on one connection that stays, and on new ones."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        self.count = 0
        self._url = f"https://localhost:{port}{CREATE}"
        self._context = context
        self._stop = False

    async def __aenter__(self) -> Self:
        self._tasks = [asyncio.ensure_future(self._run(stay=stay)) for stay in (True, False)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop = True
        await asyncio.gather(*self._tasks)

    async def reaches(self, count: int) -> None:
        await seen(lambda: self.count >= count)

    async def _run(self, *, stay: bool) -> None:
        connector = aiohttp.TCPConnector(ssl=self._context, force_close=not stay, limit=1)
        async with aiohttp.ClientSession(connector=connector) as session:
            while not self._stop:
                async with session.post(self._url, json=APPLICATION) as answer:
                    assert answer.status == 200
                    await answer.read()
                    self.count += 1
                await asyncio.sleep(0.01)


async def serial_shown(port: int, context: ssl.SSLContext) -> str:
    """Return the serial number of the certificate that a new connection is shown."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=context, server_hostname="localhost"
    )
    serial: str = writer.get_extra_info("peercert")["serialNumber"]
    writer.close()
    await writer.wait_closed()
    assert await reader.read() == b""
    return serial


@contextlib.asynccontextmanager
async def served(pki: Pki) -> AsyncIterator[tuple[Command, int]]:
    """The command itself, and its port."""
    async with (
        emulating() as (_, api),
        command("run", env=proxy_env(api, **pki.settings)) as running,
    ):
        started = await running.event("started")
        assert started["tls"] is True
        await running.event("token_refreshed")
        yield running, int(started["listen"][0].rpartition(":")[2])


async def test_a_renewed_certificate_is_noticed_by_itself_and_no_call_fails(pki: Pki) -> None:
    async with served(pki) as (running, port), Traffic(port, pki.client()) as traffic:
        before = await serial_shown(port, pki.client())
        pki.renew()
        await running.event("listen_certificate_changed")
        count = traffic.count
        assert await serial_shown(port, pki.client()) != before
        await traffic.reaches(count + 20)


async def test_a_broken_pair_leaves_the_old_one_in_use_until_a_good_one_comes(pki: Pki) -> None:
    async with served(pki) as (running, port), Traffic(port, pki.client()):
        before = await serial_shown(port, pki.client())
        other = pki.authority.issue_cert("localhost")
        pki.mount(
            {
                "tls.crt": other.cert_chain_pems[0].bytes(),
                "tls.key": trustme.CA().issue_cert("localhost").private_key_pem.bytes(),
            }
        )
        for _ in range(2):
            running.send_signal(signal.SIGHUP)
        refused = await running.event("listen_certificate_refused")
        assert refused["level"] == "error"
        assert refused["detail"].startswith("BITS_LISTEN_TLS__KEY: ")
        assert refused["detail"].endswith("is not the key of the certificate")
        assert await serial_shown(port, pki.client()) == before
        pki.renew()
        running.send_signal(signal.SIGHUP)
        await running.event("listen_certificate_changed")
        assert await serial_shown(port, pki.client()) != before
        started = await running.event("started")
        _, metrics = await get(f"http://{started['admin'][0]}/metrics")
    assert 'listen_certificate_reloads_total{outcome="failure"} 1.0' in metrics
    assert 'listen_certificate_reloads_total{outcome="success"} 1.0' in metrics
    assert "PRIVATE KEY" not in running.output


async def test_a_client_authority_that_changes_is_heeded(pki: Pki, tmp_path: Path) -> None:
    other = trustme.CA()
    async with set_up(**pki.mutual) as bench:
        async with connect(bench, pki.client(identity=pki.authority)) as client:
            await client.send(GET)
            assert (await client.answer()).status == 200
            other.cert_pem.write_to_path(pki.ca_file)
            bench.sidecar.reload()
            await bench.seen(lambda: not bench.sidecar._watcher.looking)
            # Who was in must come again.
            assert await client.is_closed()
        context = ssl.create_default_context(cadata=pki.authority.cert_pem.bytes().decode())
        other.issue_cert("a-client").configure_cert(context)
        async with connect(bench, context) as client:
            await client.send(GET)
            assert (await client.answer()).status == 200


# Settings that can't be used.


@pytest.mark.parametrize(
    ("wrong", "variable", "said"),
    [
        ({"tls.key": None}, "BITS_LISTEN_TLS__KEY", "there is no file"),
        ({"tls.crt": None}, "BITS_LISTEN_TLS__CERT", "there is no file"),
        ({"tls.crt": b"nothing"}, "BITS_LISTEN_TLS__CERT", "no certificate in PEM format"),
        ({"tls.key": b"nothing"}, "BITS_LISTEN_TLS__KEY", "no usable private key in PEM format"),
        ({"tls.key": "encrypted"}, "BITS_LISTEN_TLS__KEY", "is encrypted"),
        ({"tls.key": "another"}, "BITS_LISTEN_TLS__KEY", "is not the key of the certificate"),
        ({"ca.pem": b""}, "BITS_LISTEN_TLS__CLIENT_CA", "no certificate in PEM format"),
    ],
)
async def test_files_that_can_not_be_used_end_the_start(
    pki: Pki, wrong: dict[str, bytes | str | None], variable: str, said: str
) -> None:
    contents = {
        "encrypted": serialization.load_pem_private_key(
            (pki.directory / "tls.key").read_bytes(), None
        ).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.BestAvailableEncryption(b"word"),
        ),
        "another": trustme.CA().issue_cert("localhost").private_key_pem.bytes(),
    }
    for name, content in wrong.items():
        path = pki.directory / name
        path.unlink()
        if content is not None:
            path.write_bytes(contents[content] if isinstance(content, str) else content)
    for verb in ("run", "check"):
        code, _, stderr = await run(verb, env=proxy_env("http://127.0.0.1:1", **pki.mutual))
        assert code == 64
        assert f"{variable}: " in stderr
        assert said in stderr
        assert "Traceback" not in stderr


@pytest.mark.parametrize(
    ("given", "variable"),
    [
        (["BITS_LISTEN_TLS__CERT"], "BITS_LISTEN_TLS__CERT: has no effect without BITS_LISTEN_TLS__KEY"),
        (["BITS_LISTEN_TLS__KEY"], "BITS_LISTEN_TLS__KEY: has no effect without BITS_LISTEN_TLS__CERT"),
        (
            ["BITS_LISTEN_TLS__CLIENT_CA"],
            "BITS_LISTEN_TLS__CLIENT_CA: has no effect without BITS_LISTEN_TLS__CERT",
        ),
    ],
)
async def test_settings_that_need_each_other_are_asked_for(pki: Pki, given: list[str], variable: str) -> None:
    some = {name: value for name, value in pki.mutual.items() if name in given}
    code, _, stderr = await run("run", env=proxy_env("http://127.0.0.1:1", **some))
    assert code == 64
    assert variable in stderr


# Key updates.


async def forger(pki: Pki, bench: Bench, stack: contextlib.AsyncExitStack) -> tuple[TlsPeer, KeyUpdates]:
    """Connect; return the client, and what it sends in place of its own records."""
    keylog = pki.directory / "keys"
    context = pki.client()
    context.keylog_filename = str(keylog)
    peer = await stack.enter_async_context(tls_peer(place(bench.sidecar), context))
    return peer, KeyUpdates(peer.session, keylog, "CLIENT")


async def test_a_client_may_change_its_keys_often(pki: Pki, secure: Bench) -> None:
    async with contextlib.AsyncExitStack() as stack:
        peer, updates = await forger(pki, secure, stack)
        for _ in range(3):
            peer.writer.write(updates.request(1000) + updates.data(GET) + updates.request())
            assert b"HTTP/1.1 200 " in await peer.until(b"\r\n\r\nok")


async def test_replies_to_key_updates_reach_a_client_that_sends_nothing_else(pki: Pki, secure: Bench) -> None:
    async with contextlib.AsyncExitStack() as stack:
        peer, updates = await forger(pki, secure, stack)
        peer.writer.write(updates.request(1000))
        async with asyncio.timeout(HANGS):
            # The session tickets come first.
            await peer.reader.readexactly(999 * REPLY)


@pytest.mark.parametrize("data", [b"", GET[:-4], UPLOAD], ids=["idle", "head", "body"])
async def test_a_client_that_asks_for_key_updates_and_reads_nothing_is_cut(
    pki: Pki, secure: Bench, data: bytes
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        peer, updates = await forger(pki, secure, stack)
        if data:
            peer.writer.write(updates.data(data))
        clients = secure.sidecar._clients.open
        await seen(lambda: any(isinstance(each, ClientConnection) for each in clients))
        (served,) = clients
        assert isinstance(served, ClientConnection)
        transport = served._transport
        assert transport is not None
        # Small buffers in the kernel, so that the test need not fill megabytes.
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        peer.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        cast("asyncio.Transport", peer.writer.transport).pause_reading()
        most = 0
        async with asyncio.timeout(HANGS):
            while clients:
                peer.writer.write(updates.request(100) + (updates.data(b"x") if data else b""))
                await asyncio.sleep(0)
                most = max(most, transport.get_write_buffer_size())
        assert 64 * 1024 < most < 128 * 1024
