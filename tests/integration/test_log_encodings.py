"""A log line that its stream can't encode costs a replaced character: never a token, a request or a line."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.commands import CLIENT_SECRET, command, proxy_env
from tests.support.credentials import mount
from tests.support.ports import free_port
from tests.support.rawclient import raw_client

ASCII = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}
CALL = b"POST /v1/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n"
GRANT = (
    b'{"type":"Bearer","access_token":"abc","expires_in":3600,'
    b'"scope":"\\ud83d caf\xc3\xa9","\\ud83d":"\\ud83d"}'
)


@contextlib.asynccontextmanager
async def bits() -> AsyncIterator[tuple[str, list[bytes]]]:
    """Serve the token endpoint and the API; yield the origin, and the first lines of the requests."""
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            asked.append(head.partition(b"\r\n")[0])
            body = GRANT if b"oauth2" in asked[-1] else b"ok"
            writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body))
            writer.write(body)
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", asked


@pytest.mark.parametrize("streams", [ASCII, {"PYTHONIOENCODING": "utf-8"}], ids=["ascii", "utf-8"])
@pytest.mark.parametrize("fmt", ["json", "console"])
async def test_the_token_serves_and_its_endpoint_is_asked_once(
    streams: dict[str, str], fmt: str, tmp_path: Path
) -> None:
    directory = tmp_path / "clés-\udcff"
    directory.mkdir()
    mount(directory, CLIENT_SECRET)
    async with bits() as (origin, asked):
        port = free_port()
        env = proxy_env(
            origin,
            BITS_LISTEN=f"127.0.0.1:{port}",
            BITS_CREDENTIALS_DIR=str(directory),
            BITS_ACCESS_LOG="all",
            BITS_LOG_FORMAT=fmt,
            **streams,
        )
        async with command("run", env=env) as running:
            await running.text("token_refreshed")
            async with raw_client(("127.0.0.1", port)) as client:
                for name in (b"caf\xe9", b"\xff\xfe"):
                    await client.send(CALL + b"X-Request-ID: " + name + b"\r\n\r\n")
                    assert (await client.answer()).status == 200
            (directory / "client_secret").unlink()
            await running.text("credentials_unreadable")
    assert asked.count(b"POST /v1/oauth2/token HTTP/1.1") == 1
    assert "internal_error" not in running.output
    assert "Traceback" not in running.output
    # The odd character alone is replaced: what the stream can hold is there as it is.
    assert running.stdout.isascii() is (streams is ASCII)
