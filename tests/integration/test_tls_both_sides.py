"""TLS with clients and with the API at once: whatever the sizes, bytes come back as they were sent."""

import asyncio
import contextlib
import hashlib
import io
import random
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
from aiohttp import web

from bits_auth_proxy.settings.addresses import TcpAddress
from tests.support.pki import Pki
from tests.support.recorder import recording
from tests.support.stand import sidecar_for
from tests.support.waiting import seen

CLIENTS = 16
CALLS = 25
# Around the bounds of records, reads, read-ahead and what is held for a replay.
SIZES = (0, 1, 100, 16_383, 16_384, 16_385, 65_535, 65_536, 65_537, 300_000, 1_000_000)


async def echo(request: web.Request) -> web.StreamResponse:
    answer = web.StreamResponse()
    if request.headers["X-Framing"] == "length":
        answer.content_length = request.content_length
    await answer.prepare(request)
    async for piece in request.content.iter_any():
        await answer.write(piece)
    return answer


async def pieces(body: bytes, rng: random.Random) -> AsyncIterator[bytes]:
    start = 0
    while start < len(body):
        size = rng.choice((1, 1000, 16_384, 100_000))
        yield body[start : start + size]
        start += size


async def call_all(session: aiohttp.ClientSession, rng: random.Random) -> tuple[int, int]:
    """Call again and again; return how many calls were made whole, and how many given up."""
    whole = given_up = 0
    for _ in range(CALLS):
        body = rng.randbytes(rng.choice(SIZES))
        chunked = rng.random() < 0.5
        async with session.post(
            "/v1/echo",
            data=pieces(body, rng) if chunked else body,
            headers={"X-Framing": "chunked" if chunked else "length"},
        ) as answer:
            assert answer.status == 200
            if len(body) > 100_000 and rng.random() < 0.3:
                await answer.content.read(1000)
                answer.close()
                given_up += 1
                continue
            got = hashlib.sha256()
            async for piece in answer.content.iter_chunked(rng.choice((500, 70_000))):
                got.update(piece)
            assert got.digest() == hashlib.sha256(body).digest()
            whole += 1
    return whole, given_up


async def all_clients(origin: str, context: ssl.SSLContext) -> list[tuple[int, int]]:
    async with contextlib.AsyncExitStack() as stack:
        sessions = [
            await stack.enter_async_context(
                aiohttp.ClientSession(origin, connector=aiohttp.TCPConnector(ssl=context))
            )
            for _ in range(CLIENTS)
        ]
        return await asyncio.gather(
            *(call_all(session, random.Random(n)) for n, session in enumerate(sessions))
        )


async def test_bodies_come_back_as_they_were_sent_and_nothing_is_left(tmp_path: Path) -> None:
    pki = Pki(tmp_path)
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    pki.authority.issue_cert("localhost").configure_cert(server_context)
    app = web.Application(client_max_size=2**24)
    app.router.add_post("/v1/echo", echo)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=server_context).start()
    log = io.StringIO()
    try:
        async with recording() as tokens:
            env = {
                "BITS_TOKEN_URL": f"http://{tokens.authority}/v1/oauth2/token",
                "BITS_UPSTREAM__CA_FILE": str(pki.ca_file),
                **pki.settings,
            }
            api = f"https://localhost:{runner.addresses[0][1]}"
            async with sidecar_for(api, log, **env) as sidecar:
                address = sidecar.addresses[0]
                assert isinstance(address, TcpAddress)
                # On asyncio's loop: the TLS client of uvloop 0.23 loses the end of a large answer when the
                # connection is closed behind it.
                counts = await asyncio.to_thread(
                    asyncio.run, all_clients(f"https://localhost:{address.port}", pki.client())
                )
                await seen(sidecar._clients.gone.is_set)
                await seen(lambda: not sidecar._pool.counts()["active"])
    finally:
        await runner.cleanup()
    assert sum(whole for whole, _ in counts) + sum(given_up for _, given_up in counts) == CLIENTS * CALLS
    assert sum(given_up for _, given_up in counts) > 10
    assert "internal_error" not in log.getvalue()
