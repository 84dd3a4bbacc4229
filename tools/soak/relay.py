"""A relay in front of the token endpoint, which can give a broken answer in its place."""

import asyncio
import contextlib


class TokenRelay:
    """Relays connections to the token endpoint; sends `answer` instead while that is set."""

    def __init__(self, port: int) -> None:
        self.answer: bytes | None = None
        self._port = port

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            if self.answer is not None:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(self.answer)
                await writer.drain()
            else:
                far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
                await asyncio.wait(
                    [
                        asyncio.ensure_future(pump(reader, far_writer)),
                        asyncio.ensure_future(pump(far_reader, writer)),
                    ],
                )
        writer.transport.abort()


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Relay bytes until the reader reaches the end or a connection breaks."""
    with contextlib.suppress(ConnectionError):
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
    writer.close()
