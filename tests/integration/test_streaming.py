"""Back-pressure: who is slow slows the other side down, and nothing piles up in between."""

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator

from bits_auth_proxy.settings.addresses import TcpAddress
from tests.support.bench import Bench
from tests.support.rawclient import RawClient, raw_client
from tests.support.recorder import OK_ANSWER, recording
from tests.support.stand import sidecar_for
from tests.support.waiting import HANGS, at_rest

GET = b"GET /v1/x HTTP/1.1\r\nHost: localhost\r\n\r\n"
PIECE = b"x" * 65_536
# What the kernel's buffers on loopback may hold on top of ours, on both connections.
KERNEL = 16 * 2**20


@contextlib.asynccontextmanager
async def streaming(length: int) -> AsyncIterator[tuple[str, list[int]]]:
    """An upstream that sends `length` bytes as fast as they are taken; yields the count of what went."""
    sent = [0]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % length)
            while sent[0] < length:
                writer.write(PIECE)
                await writer.drain()
                sent[0] += len(PIECE)
            writer.close()
            await writer.wait_closed()
        writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}", sent


async def test_a_client_that_does_not_read_stops_the_api() -> None:
    length = 1024 * len(PIECE)
    async with streaming(length) as (authority, sent), recording() as tokens:
        token_url = f"http://{tokens.authority}/v1/oauth2/token"
        async with sidecar_for(f"http://{authority}", io.StringIO(), BITS_TOKEN_URL=token_url) as sidecar:
            address = sidecar.addresses[0]
            assert isinstance(address, TcpAddress)
            async with raw_client((address.host, address.port)) as client:
                await client.send(GET)
                await client.until(b"\r\n\r\n")
                assert await at_rest(lambda: sent[0]) < KERNEL < length
                # And it goes on when the client does.
                taken = 0
                while taken < length:
                    taken += len(await client.some())
                assert taken == length


async def test_an_api_that_does_not_read_stops_the_client(bench: Bench) -> None:
    length = 1024 * len(PIECE)
    bench.upstream.read_bodies = False
    taken = [0]

    async def feed(client: RawClient) -> None:
        await client.send(b"POST /v1/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % length)
        while taken[0] < length:
            await client.send(PIECE)
            taken[0] += len(PIECE)

    async with bench.connect() as client:
        feeding = asyncio.ensure_future(feed(client))
        assert await at_rest(lambda: taken[0]) < KERNEL < length
        bench.upstream.read_on(OK_ANSWER, length)
        async with asyncio.timeout(HANGS):
            await feeding
        assert (await client.answer()).status == 200
