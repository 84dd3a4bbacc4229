"""An http proxy that opens tunnels."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from tests.support.serving import serving


class ConnectProxy:
    """Answers CONNECT with `reply`, and remembers the requests."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.reply = b"HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n"
        self.port = 0
        self.names: dict[str, str] = {}
        """Addresses by name, instead of DNS."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # Who only looked whether anybody listens.
        finally:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.requests.append(head)
        # In two pieces, as the network may deliver it.
        writer.write(self.reply[:10])
        await writer.drain()
        writer.write(self.reply[10:])
        if not self.reply.startswith(b"HTTP/1.1 200 Conn"):
            await _close(writer)
            return
        host, _, port = head.split()[1].rpartition(":")
        far_reader, far_writer = await asyncio.open_connection(self.names.get(host, host), int(port))
        await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        await _close(writer)


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


@contextlib.asynccontextmanager
async def connect_proxy() -> AsyncIterator[ConnectProxy]:
    proxy = ConnectProxy()
    async with serving(proxy.serve) as server:
        proxy.port = server.sockets[0].getsockname()[1]
        yield proxy
