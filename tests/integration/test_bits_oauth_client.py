"""The token client against servers that misbehave, on real sockets."""

import asyncio
import contextlib
import gzip
import resource
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from bits_auth_proxy.auth.bits_oauth import BitsOAuthClient, ClientCredentials, TokenRequestError
from bits_auth_proxy.auth.tokens import AccessToken
from bits_auth_proxy.clock import SystemClock

SECRET = "canary-secret-77"
CREDENTIALS = ClientCredentials("id", SECRET)
GOOD = b'{"type":"Bearer","access_token":"abc","expires_in":60}'
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def answer(head: bytes, body: bytes = b"") -> bytes:
    return b"HTTP/1.1 " + head + b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body


@contextlib.asynccontextmanager
async def serving(pieces: list[bytes], *, hang: bool = False) -> AsyncIterator[tuple[str, list[bytes]]]:
    """Answer every request with `pieces`, then close or hang; yield the origin and the requests' bytes."""
    seen: list[bytes] = []
    release = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            seen.append(head)
            if b"POST" in head:
                seen[-1] += await reader.readexactly(29)
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
            if hang:
                await release.wait()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", seen
        release.set()
        await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def client(origin: str, *, timeout: float = 20) -> AsyncIterator[BitsOAuthClient]:
    made = BitsOAuthClient(
        token_url=f"{origin}/v1/oauth2/token",
        userinfo_url=f"{origin}/oauth2/userinfo",
        scope=None,
        context=None,
        clock=SystemClock(),
        timeout=timeout,
    )
    try:
        yield made
    finally:
        await made.close()


async def failure_of(origin: str, *, timeout: float = 20) -> TokenRequestError:
    async with client(origin, timeout=timeout) as made:
        with pytest.raises(TokenRequestError) as caught:
            await made.fetch_token(CREDENTIALS)
    shown = "".join(traceback.format_exception(caught.value))
    assert SECRET not in shown
    assert CREDENTIALS.authorization not in shown
    return caught.value


async def test_the_request_is_the_documented_one() -> None:
    async with serving([answer(b"200 OK", GOOD)]) as (origin, seen), client(origin) as made:
        assert (await made.fetch_token(CREDENTIALS)).value == "abc"
    (request,) = seen
    head, _, body = request.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"POST /v1/oauth2/token HTTP/1.1"
    assert f"Authorization: {CREDENTIALS.authorization}".encode() in lines
    assert b"Content-Type: application/x-www-form-urlencoded" in lines
    assert body == b"grant_type=client_credentials"


async def test_userinfo_is_asked_without_v1_and_with_the_token() -> None:
    content = answer(b"200 OK", b'{"customerId":"bits:customer::1"}')
    async with serving([content]) as (origin, seen), client(origin) as made:
        token = AccessToken("tok", issued_at=0, issued_wall=0, lifetime=60)
        assert await made.fetch_customer_id(token) == "bits:customer::1"
    assert seen[0].startswith(b"GET /oauth2/userinfo HTTP/1.1\r\n")
    assert b"Authorization: bearer tok\r\n" in seen[0]


@pytest.mark.parametrize(
    ("pieces", "hang", "kind"),
    [
        ([answer(b"307 Go\r\nLocation: /elsewhere")], False, "redirect"),
        ([answer(b"200 OK", b" " * 70_000 + GOOD)], False, "malformed"),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n", GOOD], False, "disconnected"),
        ([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"], False, "disconnected"),
        ([], False, "disconnected"),
        ([b"SSH-2.0-nonsense\r\n\r\n"], False, "malformed"),
        ([], True, "timeout"),
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n", GOOD], True, "timeout"),
    ],
)
async def test_failures_by_kind(pieces: list[bytes], hang: bool, kind: str) -> None:
    async with serving(pieces, hang=hang) as (origin, seen):
        assert (await failure_of(origin, timeout=1 if hang else 20)).kind == kind
    # Asked once: a redirect is not followed, a failure is not tried again here.
    assert len(seen) == 1


async def test_a_small_answer_that_unpacks_to_a_large_one_is_not_unpacked_whole() -> None:
    bomb = gzip.compress(b" " * 50_000_000)
    async with serving([answer(b"200 OK\r\nContent-Encoding: gzip", bomb)]) as (origin, _):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        assert (await failure_of(origin)).kind == "malformed"
        # In KiB on Linux, in bytes on macOS.
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 40_000_000


async def test_a_server_that_speaks_no_tls() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(answer(b"400 Bad Request"))
        # Not before the client has gone.
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        error = await failure_of(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    assert error.kind == "tls"


async def test_nobody_listens() -> None:
    async with serving([]) as (origin, _):
        pass
    error = await failure_of(origin)
    assert error.kind == "connect"
    assert "refused" in error.detail


async def test_a_name_that_does_not_resolve() -> None:
    assert (await failure_of("http://no-such-host.invalid")).kind == "dns"


async def test_a_netrc_file_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login evil password evil\n", "utf-8")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    async with serving([answer(b"200 OK", GOOD)]) as (origin, seen), client(origin) as made:
        await made.fetch_token(CREDENTIALS)
    assert CREDENTIALS.authorization.encode() in seen[0]
