"""An upstream that records every byte it gets, and answers with bytes of the test's choice."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

from tests.support.serving import serving

TOKEN = "recorder-token"
"""The first token; those after it have a number behind."""
OK_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok"
CUT = b""
"""In a script of pieces: abort the connection here."""


class Recorder:
    """`requests` are heads and bodies as they came, one entry each; `connections` counts those with any.

    `script` are the answers, one per request: pieces of bytes, or CUT; the last one stays. The token
    endpoint's requests are answered apart and not recorded.
    """

    def __init__(self) -> None:
        self.requests: list[tuple[bytes, bytes]] = []
        self.script: list[Sequence[bytes]] = [(OK_ANSWER,)]
        self.close_after = False
        self.apart = False
        """Whether each piece comes in a read of its own."""
        self.answer_early = False
        """Answer before the body is read, and read it no more."""
        self.delay = 0.0
        """Seconds before each answer, so that there is always something in flight."""
        self.same_token = False
        """Whether the token endpoint gives the first token again and again."""
        self.lifetime = 3600
        """Seconds that its tokens live."""
        self.tokens = 0
        """How many tokens it has given."""
        self.read_bodies = True
        """Whether to read the bodies; else `read_on` does, later."""
        self._read_on: asyncio.Queue[tuple[bytes, int]] = asyncio.Queue()
        self._writers: list[asyncio.StreamWriter] = []
        self._open: list[asyncio.StreamWriter] = []
        self._last: asyncio.StreamWriter
        self._server: asyncio.Server
        self.connections = 0
        self.arrived = asyncio.Event()
        self.gone = asyncio.Event()
        """Set when the proxy went away in the middle of a request."""
        self.port = 0

    @property
    def authority(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        cut = True
        self._writers.append(writer)
        try:
            cut = await self._converse(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            self.gone.set()
        finally:
            if cut:
                writer.transport.abort()
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer requests until the connection is to end; return whether by a cut."""
        served = 0
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            if head.startswith(b"POST /v1/oauth2/token "):
                await _read_body(reader, head)
                writer.write(self._token_answer())
                return False
            served += 1
            if served == 1:
                self.connections += 1
                self._open.append(writer)
            self._last = writer
            index = len(self.requests)
            self.requests.append((head, b""))
            self.arrived.set()
            if not self.read_bodies:
                answer, length = await self._read_on.get()
                await reader.readexactly(length)
                writer.write(answer)
                continue
            if not self.answer_early:
                self.requests[index] = (head, await _read_body(reader, head))
            if await self._answer(writer, self.script[min(index, len(self.script) - 1)]):
                return True
            if self.close_after or self.answer_early:
                return False

    def _token_answer(self) -> bytes:
        self.tokens += 1
        token = TOKEN if self.tokens == 1 or self.same_token else f"{TOKEN}-{self.tokens}"
        body = b'{"type":"Bearer","access_token":"%b","expires_in":%d}' % (token.encode(), self.lifetime)
        return b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)

    async def _answer(self, writer: asyncio.StreamWriter, pieces: Sequence[bytes]) -> bool:
        """Send an answer; return whether it is cut."""
        if self.delay:
            await asyncio.sleep(self.delay)
        for piece in pieces:
            if piece == CUT:
                return True
            writer.write(piece)
            await writer.drain()
            if self.apart:
                await let_it_be_read()
        return False

    def push(self, data: bytes) -> None:
        """Send more on the connection whose request came last."""
        self._last.write(data)

    def push_all(self, data: bytes) -> None:
        """Send more on all connections that had a request."""
        for writer in self._open:
            writer.write(data)

    def read_on(self, answer: bytes, length: int) -> None:
        """Read the body that waits, of `length` bytes, then answer."""
        self._read_on.put_nowait((answer, length))

    def stop(self) -> None:
        """Accept no more, and close what is open."""
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()


async def let_it_be_read() -> None:
    """Give the proxy the turns it needs to read what has just been written."""
    for _ in range(3):
        await asyncio.sleep(0)


async def _read_body(reader: asyncio.StreamReader, head: bytes) -> bytes:
    lines = (line.partition(b":") for line in head.split(b"\r\n")[1:])
    fields = {name.strip().lower(): value.strip() for name, _, value in lines}
    if b"content-length" in fields:
        return await reader.readexactly(int(fields[b"content-length"]))
    if fields.get(b"transfer-encoding", b"").lower() != b"chunked":
        return b""
    body = b""
    while True:
        line = await reader.readuntil(b"\r\n")
        body += line
        size = int(line, 16)
        if size == 0:
            break
        body += await reader.readexactly(size + 2)
    while line != b"\r\n":
        line = await reader.readuntil(b"\r\n")
        body += line
    return body


@contextlib.asynccontextmanager
async def recording() -> AsyncIterator[Recorder]:
    """Serve a recorder."""
    recorder = Recorder()
    async with serving(recorder.serve, limit=2**20) as server:
        recorder._server = server
        recorder.port = server.sockets[0].getsockname()[1]
        yield recorder
