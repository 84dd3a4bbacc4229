"""A client that sends bytes as they are, and reads answers byte for byte."""

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from typing import NamedTuple

from tests.support.waiting import HANGS


class Answer(NamedTuple):
    """A response as it came; `whole` tells whether its body had a clean end."""

    status: int
    head: bytes
    body: bytes
    whole: bool

    def field(self, name: bytes) -> bytes | None:
        for line in self.head.split(b"\r\n")[1:]:
            key, _, value = line.partition(b":")
            if key.lower() == name.lower():
                return value.strip()
        return None


def reset_on_close(writer: asyncio.StreamWriter) -> None:
    """Make the close that follows send a RST instead of a FIN."""
    sock = writer.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class RawClient:
    """One connection to the proxy."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        with contextlib.suppress(ConnectionError):
            self._writer.write(data)
            await self._writer.drain()

    def leave(self) -> None:
        self._writer.transport.abort()

    def end(self) -> None:
        self._writer.write_eof()

    async def answer(self, method: bytes = b"GET") -> Answer:
        """Read one response, interim ones apart."""
        async with asyncio.timeout(HANGS):
            head = await self._reader.readuntil(b"\r\n\r\n")
            status = int(head[9:12])
            bare = Answer(status, head, b"", whole=True)
            if method == b"HEAD" or status in (204, 304) or status < 200:
                return bare
            try:
                return bare._replace(body=await self._body(bare))
            except (asyncio.IncompleteReadError, ConnectionError) as error:
                partial = error.partial if isinstance(error, asyncio.IncompleteReadError) else b""
                return bare._replace(body=partial, whole=False)

    async def until(self, mark: bytes) -> bytes:
        """Read up to `mark`."""
        async with asyncio.timeout(HANGS):
            return await self._reader.readuntil(mark)

    async def some(self) -> bytes:
        """Read what is there, or comes next."""
        async with asyncio.timeout(HANGS):
            return await self._reader.read(2**20)

    async def is_closed(self) -> bool:
        """Tell whether the proxy closes the connection, with nothing more in it."""
        async with asyncio.timeout(HANGS):
            with contextlib.suppress(ConnectionResetError):
                return await self._reader.read(1) == b""
            return True

    async def _body(self, answer: Answer) -> bytes:
        if answer.field(b"Transfer-Encoding") == b"chunked":
            body = b""
            while size := int((await self._reader.readuntil(b"\r\n")).split(b";")[0], 16):
                body += (await self._reader.readexactly(size + 2))[:-2]
            while await self._reader.readuntil(b"\r\n") != b"\r\n":
                pass
            return body
        length = answer.field(b"Content-Length")
        if length is None:
            return await self._reader.read()
        return await self._reader.readexactly(int(length))


@contextlib.asynccontextmanager
async def raw_client(
    address: tuple[str, int] | str, context: ssl.SSLContext | None = None
) -> AsyncIterator[RawClient]:
    """Connect to the proxy at a host and a port or at a Unix socket's path, over TLS with `context`."""
    name = None if context is None else "localhost"
    if isinstance(address, str):
        reader, writer = await asyncio.open_unix_connection(address)
    else:
        reader, writer = await asyncio.open_connection(*address, ssl=context, server_hostname=name)
    try:
        yield RawClient(reader, writer)
    finally:
        writer.transport.abort()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()
