"""A relay in front of the token endpoint, which can answer in its place, or never."""

import asyncio
import base64
import contextlib
from collections import Counter
from collections.abc import Callable

from tests.support.commands import CLIENT_ID

_FIELD = b"authorization: basic "


class TokenRelay:
    """Relays each token request over a connection of its own, unless one of these is set.

    `answer` is sent instead to everybody, and `answers_to[secret]` to those who ask with that secret; None
    there is no answer at all. The next `hangs` requests get none either. `asked` counts by secret.
    """

    def __init__(self, port: int) -> None:
        self.answer: bytes | None = None
        self.answers_to: dict[str, bytes | None] = {}
        self.hangs = 0
        self.asked: Counter[str] = Counter()
        self._news = asyncio.Event()
        self._port = port

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a token request has made `condition` true."""
        while not condition():
            self._news.clear()
            await self._news.wait()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            secret = _secret(head)
            self.asked[secret] += 1
            answer = self.answers_to.get(secret, self.answer)
            hanging = self.hangs > 0
            self.hangs -= hanging
            hanging = hanging or (secret in self.answers_to and answer is None)
            self._news.set()
            if hanging:
                # Until the proxy gives up.
                await reader.read()
            elif answer is not None:
                writer.write(answer)
                await writer.drain()
            else:
                far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
                far_writer.write(head)
                await asyncio.wait(
                    [
                        asyncio.ensure_future(pump(reader, far_writer)),
                        asyncio.ensure_future(pump(far_reader, writer)),
                    ],
                )
        writer.transport.abort()


def _secret(head: bytes) -> str:
    """Return the secret in the head of a token request."""
    for line in head.split(b"\r\n"):
        if line.lower().startswith(_FIELD):
            return base64.b64decode(line[len(_FIELD) :]).decode().removeprefix(f"{CLIENT_ID}:")
    return ""


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Relay bytes until the reader reaches the end or a connection breaks."""
    with contextlib.suppress(ConnectionError):
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
    writer.close()
