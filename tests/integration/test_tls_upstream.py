"""TLS with the API: who is trusted, and that a stream which was cut is never taken for whole."""

import asyncio
import contextlib
import hashlib
import io
import json
import ssl
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import trustme

from bits_auth_proxy.settings.addresses import TcpAddress
from tests.support import pythons
from tests.support.clock import FakeClock
from tests.support.rawclient import Answer, RawClient, raw_client
from tests.support.recorder import OK_ANSWER, Recorder, recording
from tests.support.secure_api import create
from tests.support.stand import emulating, sidecar_for
from tests.support.tls_refusals import handshaking
from tests.support.waiting import HANGS, at_rest, seen

PIECE = bytes(range(256)) * 256
GET = b"GET /v1/x HTTP/1.1\r\nHost: localhost\r\n\r\n"
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Tls:
    """An authority, and servers with its certificates."""

    def __init__(self, directory: Path) -> None:
        self.authority = trustme.CA()
        self.ca_file = directory / "ca.pem"
        self.authority.cert_pem.write_to_path(self.ca_file)

    def context(
        self,
        *names: str,
        least: ssl.TLSVersion | None = None,
        most: ssl.TLSVersion | None = None,
        suites: str = "",
    ) -> ssl.SSLContext:
        """Return a server's settings; with `suites`, which are those of TLS 1.2, it speaks nothing newer."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if suites:
            most = ssl.TLSVersion.TLSv1_2
            context.set_ciphers(suites)
        key_type = trustme.KeyType.RSA if suites else trustme.KeyType.ECDSA
        self.authority.issue_cert(*names, key_type=key_type).configure_cert(context)
        if least is not None:
            context.minimum_version = least
        if most is not None:
            context.maximum_version = most
        return context


@pytest.fixture
def tls(tmp_path: Path) -> Tls:
    return Tls(tmp_path)


@contextlib.asynccontextmanager
async def proxied(
    tls: Tls, context: ssl.SSLContext, serve: Serve, **env: str
) -> AsyncIterator[tuple[RawClient, io.StringIO]]:
    """A client of a proxy whose API is `serve` over TLS; the token comes over plain http."""
    log = io.StringIO()
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    async with server, recording() as tokens:
        env = {
            "BITS_TOKEN_URL": f"http://{tokens.authority}/v1/oauth2/token",
            "BITS_UPSTREAM__CA_FILE": str(tls.ca_file),
            **env,
        }
        async with sidecar_for(f"https://localhost:{port}", log, **env) as sidecar:
            address = sidecar.addresses[0]
            assert isinstance(address, TcpAddress)
            async with raw_client((address.host, address.port)) as client:
                yield client, log


def answering(pieces: bytes, *, clean: bool) -> Serve:
    """Answer with `pieces`; then end the stream with close_notify if `clean`, else cut it underneath TLS."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(pieces)
            await writer.drain()
            if clean:
                writer.close()
                await writer.wait_closed()
        # The socket's own end, as if a cable had been cut: no close_notify.
        writer.transport.abort()

    return serve


async def test_a_request_over_tls(tls: Tls) -> None:
    recorder = Recorder()
    async with proxied(tls, tls.context("localhost"), recorder.serve) as (client, _):
        for _ in range(3):
            await client.send(GET)
            assert (await client.answer()).body == b"ok"
    assert len(recorder.requests) == 3
    assert recorder.connections == 1


async def refused(tls: Tls, context: ssl.SSLContext) -> tuple[Answer, str]:
    """Call an API that does the handshake and then closes; the token comes over plain http."""
    log = io.StringIO()
    async with handshaking(context) as port, recording() as tokens:
        env = {
            "BITS_TOKEN_URL": f"http://{tokens.authority}/v1/oauth2/token",
            "BITS_UPSTREAM__CA_FILE": str(tls.ca_file),
        }
        async with sidecar_for(f"https://localhost:{port}", log, **env) as sidecar:
            address = sidecar.addresses[0]
            assert isinstance(address, TcpAddress)
            async with raw_client((address.host, address.port)) as client:
                await client.send(GET)
                return await client.answer(), log.getvalue()


async def test_tls_1_1_is_refused(tls: Tls) -> None:
    context = tls.context("localhost")
    context.set_ciphers("DEFAULT@SECLEVEL=0")
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    answer, log = await refused(tls, context)
    assert (answer.status, json.loads(answer.body)["code"]) == (502, "tls_error")
    assert "PROTOCOL_VERSION" in log


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_tls_1_2_and_1_3(tls: Tls, version: ssl.TLSVersion) -> None:
    context = tls.context("localhost", least=version, most=version)
    async with proxied(tls, context, Recorder().serve) as (client, _):
        await client.send(GET)
        assert (await client.answer()).status == 200


async def test_a_suite_without_forward_secrecy_is_refused(tls: Tls, monkeypatch: pytest.MonkeyPatch) -> None:
    pythons.suites_of_openssl(monkeypatch)
    answer, log = await refused(tls, tls.context("localhost", suites="AES128-SHA"))
    assert (answer.status, json.loads(answer.body)["code"]) == (502, "tls_error")
    assert "HANDSHAKE_FAILURE" in log


async def test_a_suite_with_forward_secrecy_and_aead_is_used(tls: Tls) -> None:
    context = tls.context("localhost", suites="ECDHE-RSA-AES128-GCM-SHA256")
    async with proxied(tls, context, Recorder().serve) as (client, _):
        await client.send(GET)
        assert (await client.answer()).status == 200


async def failed(tls: Tls, context: ssl.SSLContext, **env: str) -> tuple[Answer, str]:
    async with proxied(tls, context, Recorder().serve, **env) as (client, log):
        await client.send(GET)
        answer = await client.answer()
        return answer, log.getvalue()


async def test_another_name_in_the_certificate_is_refused(tls: Tls) -> None:
    answer, log = await failed(tls, tls.context("other.example"))
    assert answer.status == 502
    assert json.loads(answer.body)["code"] == "tls_certificate"
    assert answer.field(b"Proxy-Status") == b"bits-auth-proxy; error=tls_certificate_error"
    assert "ostname mismatch" in log


async def test_another_authority_is_refused(tls: Tls, tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(other)
    answer, _ = await failed(tls, tls.context("localhost"), BITS_UPSTREAM__CA_FILE=str(other))
    assert json.loads(answer.body)["code"] == "tls_certificate"


async def test_a_server_that_speaks_no_tls_is_a_502() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while await reader.read(65_536):
                pass
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, recording() as tokens:
        env = {"BITS_TOKEN_URL": f"http://{tokens.authority}/v1/oauth2/token"}
        origin = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with sidecar_for(origin, io.StringIO(), **env) as sidecar:
            address = sidecar.addresses[0]
            assert isinstance(address, TcpAddress)
            async with raw_client((address.host, address.port)) as client:
                await client.send(GET)
                answer = await client.answer()
    assert (answer.status, json.loads(answer.body)["code"]) == (502, "tls_error")


async def test_a_close_delimited_answer_is_whole_only_after_close_notify(tls: Tls) -> None:
    pieces = b"HTTP/1.1 200 OK\r\n\r\nhalf or whole"
    for clean in (True, False):
        async with proxied(tls, tls.context("localhost"), answering(pieces, clean=clean)) as (client, _):
            await client.send(GET)
            answer = await client.answer()
            assert answer.status in (200, 502)
            assert (answer.status == 200 and answer.whole) is clean


@pytest.mark.parametrize(
    "pieces",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\n",
    ],
)
@pytest.mark.parametrize("clean", [True, False])
async def test_an_answer_that_ends_early_is_cut_even_after_close_notify(
    tls: Tls, pieces: bytes, *, clean: bool
) -> None:
    async with proxied(tls, tls.context("localhost"), answering(pieces, clean=clean)) as (client, _):
        await client.send(GET)
        answer = await client.answer()
        # An abort may overtake what was sent before it: then the client is told so in an answer of ours.
        assert not answer.whole or answer.status == 502


async def test_an_api_that_does_not_read_stops_the_client_and_then_gets_it_all(tls: Tls) -> None:
    length = 1024 * len(PIECE)
    go_on = asyncio.Event()
    got = hashlib.sha256()
    taken = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await go_on.wait()
        left = length
        while left:
            piece = await reader.read(min(left, 2**20))
            got.update(piece)
            left -= len(piece)
        writer.write(OK_ANSWER)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def feed(client: RawClient) -> None:
        nonlocal taken
        await client.send(b"POST /v1/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % length)
        while taken < length:
            await client.send(PIECE)
            taken += len(PIECE)

    # One connection, so that the server has one to serve.
    async with proxied(tls, tls.context("localhost"), serve, BITS_UPSTREAM__WARM_CONNECTIONS="0") as (
        client,
        _,
    ):
        feeding = asyncio.ensure_future(feed(client))
        await seen(lambda: taken > 0)
        # What the kernel's buffers on loopback may hold on top of ours, on both connections.
        assert await at_rest(lambda: taken) < 16 * 2**20 < length
        go_on.set()
        async with asyncio.timeout(HANGS):
            await feeding
            assert (await client.answer()).status == 200
    assert got.digest() == hashlib.sha256(PIECE * 1024).digest()


async def test_after_any_idle_time_a_connection_with_tls_done_is_there(tls: Tls) -> None:
    made: list[asyncio.StreamWriter] = []
    served_by: list[int] = []
    clock = FakeClock()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        made.append(writer)
        mine = len(made)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while await reader.readuntil(b"\r\n\r\n"):
                served_by.append(mine)
                writer.write(OK_ANSWER)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls.context("localhost"))
    async with server, recording() as tokens:
        env = {
            "BITS_TOKEN_URL": f"http://{tokens.authority}/v1/oauth2/token",
            "BITS_UPSTREAM__CA_FILE": str(tls.ca_file),
            "BITS_LIMITS__KEEPALIVE_TIMEOUT": "86400",
        }
        api = f"https://localhost:{server.sockets[0].getsockname()[1]}"
        async with sidecar_for(api, io.StringIO(), clock, **env) as sidecar:
            address = sidecar.addresses[0]
            assert isinstance(address, TcpAddress)
            pool = sidecar._pool

            async def settled() -> None:
                """Wait until a spare is there, and the server knows of it."""
                while pool.is_connecting or not pool.counts()["idle"] or len(made) < connects():  # noqa: ASYNC110
                    await asyncio.sleep(0.002)

            def connects() -> int:
                text = sidecar._telemetry.render("")[0].decode()
                return int(float(text.partition('upstream_connects_total{outcome="ok"} ')[2].split()[0]))

            async with raw_client((address.host, address.port)) as client, asyncio.timeout(HANGS):
                for idle in (0, 30, 60, 600):
                    for _ in range(0, idle, 4):
                        clock.advance(4)
                        # Before the ticker has had a look, too.
                        assert any(each.is_open and clock.now() < each.idle_until for each in pool._idle)
                        pool.tick(clock.now())
                        await settled()
                    await settled()
                    ready = len(made)
                    await client.send(GET)
                    assert (await client.answer()).status == 200
                    assert served_by[-1] <= ready
    assert len(served_by) == 4
    # About one in 45 s.
    assert 600 / 55 < len(made) < 690 / 35


async def test_large_bodies_pass_over_tls(tls: Tls) -> None:
    big = bytes(range(256)) * 8192
    recorder = Recorder()
    recorder.script = [(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(big), big)]
    async with proxied(tls, tls.context("localhost"), recorder.serve) as (client, _):
        await client.send(
            b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(big) + big
        )
        assert (await client.answer()).body == big
    assert recorder.requests[0][1] == big


async def test_the_client_certificate_is_presented(tls: Tls, tmp_path: Path) -> None:
    mine = tls.authority.issue_cert("the-proxy")
    mine.private_key_and_cert_chain_pem.write_to_path(tmp_path / "mine.pem")
    context = tls.context("localhost")
    tls.authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    async with proxied(
        tls, context, Recorder().serve, BITS_UPSTREAM__CLIENT_CERT=str(tmp_path / "mine.pem")
    ) as (client, _):
        await client.send(GET)
        assert (await client.answer()).status == 200
    answer, _ = await failed(tls, context)
    assert answer.status == 502


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_client_certificate_that_the_api_requires_is_named_in_the_log(
    tls: Tls, version: ssl.TLSVersion
) -> None:
    # In TLS 1.3, the alert comes after the client's handshake, on a connection that seemed ready.
    context = tls.context("localhost", least=version, most=version)
    tls.authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    log = io.StringIO()

    def refusals() -> list[dict[str, Any]]:
        lines = map(json.loads, log.getvalue().splitlines())
        return [line for line in lines if line["event"] == "upstream_connect_failed"]

    async with handshaking(context) as port, emulating() as (_, tokens):
        env = {
            "BITS_UPSTREAM__CA_FILE": str(tls.ca_file),
            "BITS_TOKEN_URL": f"{tokens}/v1/oauth2/token",
        }
        async with sidecar_for(f"https://localhost:{port}", log, **env) as sidecar:
            assert (await create(sidecar))[0] == 502
            first = (await seen(refusals))[0]
    assert first["outcome"] == "tls_error"
    assert first["detail"].startswith(f"localhost:{port}: the server requires a client certificate")
