"""WebSocket: the upgrade goes up with the token, then bytes pass both ways until both sides have ended."""

import asyncio
import contextlib
import io
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest
import trustme
from aiohttp import web

from bits_auth_proxy.settings.addresses import TcpAddress
from tests.support.bench import Bench, set_up
from tests.support.clock import FakeClock
from tests.support.rawclient import RawClient, raw_client
from tests.support.recorder import OK_ANSWER, TOKEN, recording
from tests.support.stand import sidecar_for
from tests.support.waiting import HANGS, at_rest

UPGRADE = (
    b"GET /v1/events?since=1 HTTP/1.1\r\nHost: localhost\r\n"
    b"connection: keep-alive, upgrade\r\nUpgrade: WebSocket\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)
# As the proxy writes it.
SWITCH_SENT = SWITCH.replace(
    b"Upgrade: websocket\r\nConnection: Upgrade", b"Connection: Upgrade\r\nUpgrade: websocket"
)
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def proxied(
    serve: Serve, context: ssl.SSLContext | None = None, **env: str
) -> AsyncIterator[tuple[RawClient, io.StringIO]]:
    """A client of a proxy whose API is `serve`."""
    log = io.StringIO()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # The proxy's warm connection ends without a request. Before 3.11.5 asyncio leaves it open then.
        try:
            await serve(reader, writer)
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context)
    origin = f"{'http' if context is None else 'https'}://localhost:{server.sockets[0].getsockname()[1]}"
    async with server, recording() as tokens:
        env = {"BITS_TOKEN_URL": f"http://{tokens.authority}/v1/oauth2/token", **env}
        async with sidecar_for(origin, log, FakeClock(), **env) as sidecar:
            address = sidecar.addresses[0]
            assert isinstance(address, TcpAddress)
            async with raw_client((address.host, address.port)) as client:
                yield client, log


async def close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


async def test_a_real_client_and_server_talk_and_close_in_order() -> None:
    seen: list[str | None] = []
    closed: list[int | None] = []

    async def events(request: web.Request) -> web.WebSocketResponse:
        seen.append(request.headers.get("Authorization"))
        ws = web.WebSocketResponse(protocols=["bits.v1"], max_msg_size=0)
        await ws.prepare(request)
        async for message in ws:
            if message.type is aiohttp.WSMsgType.TEXT:
                await ws.send_str(message.data.upper())
            else:
                await ws.send_bytes(message.data[::-1])
        closed.append(ws.close_code)
        return ws

    app = web.Application()
    app.router.add_get("/v1/events", events)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    binary = bytes(range(256)) * 8192
    async with (
        recording() as tokens,
        sidecar_for(
            f"http://127.0.0.1:{port}",
            io.StringIO(),
            BITS_TOKEN_URL=f"http://{tokens.authority}/v1/oauth2/token",
        ) as sidecar,
        aiohttp.ClientSession() as session,
        session.ws_connect(
            f"http://{sidecar.addresses[0]}/v1/events", protocols=["bits.v1"], max_msg_size=0
        ) as ws,
    ):
        assert ws.protocol == "bits.v1"
        for i in range(50):
            await ws.send_str(f"message {i}")
            assert await ws.receive_str(timeout=HANGS) == f"MESSAGE {i}"
        await ws.send_bytes(binary)
        assert await ws.receive_bytes(timeout=HANGS) == binary[::-1]
        assert await ws.close(code=4001)
    await runner.cleanup()
    assert seen == [f"Bearer {TOKEN}"]
    assert closed == [4001]


async def test_the_head_of_an_upgrade_both_ways() -> None:
    heads: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(SWITCH)
        await close(writer)

    async with proxied(serve) as (client, _):
        await client.send(UPGRADE)
        head = await client.until(b"\r\n\r\n")
    lines = heads[0].split(b"\r\n")
    assert lines[0] == b"GET /v1/events?since=1 HTTP/1.1"
    assert lines.count(b"Connection: Upgrade") == lines.count(b"Upgrade: websocket") == 1
    assert b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==" in lines
    assert not [line for line in lines if line.startswith(b"connection:")]
    assert head == SWITCH_SENT


async def test_bytes_behind_both_heads_come_first_and_none_goes_up_before_the_101() -> None:
    early: list[bytes] = []
    got: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.2):
                early.append(await reader.read(100))
        writer.write(SWITCH + b"hello")
        got.append(await reader.readexactly(10))
        writer.write(b"bye")
        await close(writer)

    async with proxied(serve) as (client, _):
        await client.send(UPGRADE + b"01234")
        await client.send(b"56789")
        assert await client.until(b"bye") == SWITCH_SENT + b"hellobye"
    assert early == []
    assert got == [b"0123456789"]


def tls_server(tmp_path: Path) -> tuple[ssl.SSLContext, dict[str, str]]:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    return context, {"BITS_UPSTREAM__CA_FILE": str(tmp_path / "ca.pem")}


@pytest.mark.parametrize("over_tls", [False, True])
async def test_the_client_may_end_its_half_first(tmp_path: Path, over_tls: bool) -> None:
    got: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(SWITCH)
        got.append(await reader.read())
        # The standard library's TLS can't go on after the peer's end.
        if not over_tls:
            writer.write(b"still here")
        await close(writer)

    context, env = tls_server(tmp_path) if over_tls else (None, {})
    env |= {"BITS_ACCESS_LOG": "all"}
    async with proxied(serve, context, **env) as (client, log):
        await client.send(UPGRADE)
        await client.until(b"\r\n\r\n")
        await client.send(b"x" * 200_000)
        client.end()
        if not over_tls:
            assert await client.until(b"still here") == b"still here"
        assert await client.is_closed()
    assert got == [b"x" * 200_000]
    assert '"status": 101' in log.getvalue()


@pytest.mark.parametrize("over_tls", [False, True])
async def test_the_api_may_end_its_half_first(tmp_path: Path, over_tls: bool) -> None:
    got: list[bytes] = []
    done = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(SWITCH + b"last")
        if over_tls:
            await close(writer)
            return
        writer.write_eof()
        got.append(await reader.read())
        done.set()
        await close(writer)

    context, env = tls_server(tmp_path) if over_tls else (None, {})
    async with proxied(serve, context, **env) as (client, _):
        await client.send(UPGRADE)
        assert (await client.until(b"last")).endswith(b"last")
        assert await client.is_closed()
        if not over_tls:
            await client.send(b"y" * 100_000)
            client.end()
            async with asyncio.timeout(HANGS):
                await done.wait()
    assert got == ([] if over_tls else [b"y" * 100_000])


async def test_a_tunnel_in_which_nothing_moves_is_cut(bench: Bench) -> None:
    bench.upstream.script = [(SWITCH,)]
    async with bench.connect() as client:
        await client.send(UPGRADE)
        await client.until(b"\r\n\r\n")
        await bench.pass_time(50)
        bench.upstream.push(b"ping")
        await client.until(b"ping")
        await bench.pass_time(50)
        await client.send(b"ping")
        bench.upstream.push(b"pong")
        await client.until(b"pong")
        bench.clock.advance(61)
        assert await client.is_closed()
    await bench.seen(lambda: bench.in_flight() == 0)


async def test_either_side_that_breaks_off_takes_the_other_along(bench: Bench) -> None:
    bench.upstream.script = [(SWITCH,)]
    async with bench.connect() as client:
        await client.send(UPGRADE)
        await client.until(b"\r\n\r\n")
        client.leave()
        async with asyncio.timeout(HANGS):
            await bench.upstream.gone.wait()
    await bench.seen(lambda: bench.in_flight() == 0)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(SWITCH)
        await reader.readexactly(3)
        sock = writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()

    async with proxied(serve) as (client, _):
        await client.send(UPGRADE)
        await client.until(b"\r\n\r\n")
        await client.send(b"end")
        with pytest.raises(ConnectionResetError):
            await client.some()


async def test_a_refused_upgrade_is_an_answer_like_any_other(bench: Bench) -> None:
    bench.upstream.script = [(b"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 2\r\n\r\nno",), (OK_ANSWER,)]
    async with bench.connect() as client:
        await client.send(UPGRADE)
        answer = await client.answer()
        assert (answer.status, answer.body) == (426, b"no")
        await client.send(b"GET /v1/x HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await client.answer()).status == 200
    assert bench.upstream.connections == 1


@pytest.mark.parametrize(
    "request_",
    [
        UPGRADE.replace(b"GET", b"POST"),
        UPGRADE.replace(b"HTTP/1.1", b"HTTP/1.0"),
        UPGRADE.replace(b"Upgrade: WebSocket", b"Upgrade: h2c"),
        UPGRADE.replace(b"Upgrade: WebSocket", b"Upgrade: websocket, h2c"),
        UPGRADE.replace(b"keep-alive, upgrade", b"keep-alive"),
        UPGRADE[:-2] + b"Content-Length: 3\r\n\r\nabc",
        UPGRADE[:-2] + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
)
async def test_what_is_no_upgrade_to_websocket_goes_without(bench: Bench, request_: bytes) -> None:
    async with bench.connect() as client:
        await client.send(request_)
        assert (await client.answer()).status == 200
        head = bench.upstream.requests[0][0].lower()
        assert b"\r\nupgrade:" not in head
        assert b"\r\nconnection:" not in head
    # And a 101 that nobody asked for is no answer.
    bench.upstream.script = [(SWITCH,)]
    async with bench.connect() as client:
        await client.send(request_)
        answer = await client.answer()
        assert answer.status == 502
        assert b"upgrade_failed" in answer.body


async def test_who_does_not_read_slows_the_other_side_down() -> None:
    piece = b"z" * 65_536
    total = 512 * len(piece)
    sent = [0]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(SWITCH)
        while sent[0] < total:
            writer.write(piece)
            await writer.drain()
            sent[0] += len(piece)
        assert await reader.read() == b""
        await close(writer)

    async with proxied(serve) as (client, _):
        await client.send(UPGRADE)
        await client.until(b"\r\n\r\n")
        assert await at_rest(lambda: sent[0]) < total // 2
        taken = 0
        while taken < total:
            taken += len(await client.some())
        assert taken == total
        client.end()
        assert await client.is_closed()


async def test_a_tunnel_is_cut_when_the_drain_ends() -> None:
    async with set_up(BITS_DRAIN_TIMEOUT="0.2") as bench, bench.connect() as client:
        bench.upstream.script = [(SWITCH,)]
        await client.send(UPGRADE)
        await client.until(b"\r\n\r\n")
        bench.sidecar.stop()
        assert await bench.sidecar.wait()
        assert await client.is_closed()
        assert '"event": "stopped", "cut": 1' in bench.log.getvalue()
