"""The fuzzer's API: it reads requests as strictly as the RFC allows, and sends the responses of the cases."""

import asyncio
import contextlib
import re
import ssl
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, cast

from tests.support.rawclient import reset_on_close
from tests.support.recorder import TOKEN
from tests.unit.forward.test_access import as_a_lenient_server_reads
from tools.fuzz.cases import MARK, Case, Early, Leaving
from tools.fuzz.collisions import Collisions

_LINE: Final = re.compile(rb"(GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS) ([!-~\x80-\xff]+) HTTP/1\.1\Z")
_FIELD: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ([^\x00-\x08\x0a-\x1f\x7f]*)\Z")
_SIZE: Final = re.compile(rb"[0-9a-f]{1,8}\r\n\Z")
_CREDENTIALS: Final = re.compile(rb"Bearer " + TOKEN.encode() + rb"(-[0-9]+)?\Z")
_OAUTH2: Final = re.compile(rb"(?:\A|/)oauth2/.")
_SWITCHES: Final = re.compile(rb"\s*(HTTP/1\.[01] 1(?!01)[^\0]*?\r\n\r\n)*HTTP/1\.[01] 101 ")
_DEFAULT: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Violation(Exception):  # noqa: N818 - a violation of what the API may rely on
    """The API received something that must never reach it."""


class Request:
    """A request, parsed as far as the API needs it."""

    def __init__(self, head: bytes) -> None:
        """Parse a head, which includes the empty line at its end. Raises Violation."""
        self.head = head
        line, *lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
        match = _LINE.match(line)
        if not match:
            raise Violation(f"not a request line: {line!r}")
        self.method, self.target = match.groups()
        self.fields: dict[bytes, list[bytes]] = {}
        for each in lines:
            field = _FIELD.match(each)
            if not field:
                raise Violation(f"not a field: {each!r}")
            self.fields.setdefault(field[1].lower(), []).append(field[2])
        self._judge()

    @property
    def length(self) -> int | None:
        """The length of the body in bytes; None if it is chunked."""
        if b"transfer-encoding" in self.fields:
            return None
        return int(self.fields.get(b"content-length", [b"0"])[0])

    @property
    def upgrades(self) -> bool:
        return b"upgrade" in self.fields

    def _judge(self) -> None:
        path = self.target.partition(b"?")[0]
        meant = as_a_lenient_server_reads(path)
        if _OAUTH2.search(meant) and (self.method, path) != (b"GET", b"/oauth2/userinfo"):
            raise Violation(f"a request to the token endpoint: {path!r}")
        credentials = self.fields.get(b"authorization", [])
        if len(credentials) != 1 or not _CREDENTIALS.match(credentials[0]):
            raise Violation(f"not exactly one Authorization with the proxy's token: {credentials}")
        if len(self.fields.get(b"host", [])) != 1:
            raise Violation("not exactly one Host")
        encoding = self.fields.get(b"transfer-encoding")
        length = self.fields.get(b"content-length")
        if encoding not in (None, [b"chunked"]) or (encoding and length) or (length and len(length) > 1):
            raise Violation(f"framing: {encoding} {length}")
        for name in (b"proxy-authorization", b"te", b"forwarded", b"x-forwarded-for", b"expect"):
            if name in self.fields:
                raise Violation(f"{name!r} must not reach the API")


class Api:
    """Serves the case that the marks in a request name; calls `report` with each violation and the bytes."""

    def __init__(
        self, cases: Mapping[bytes, Case], report: Callable[[str, bytes], None], collisions: Collisions
    ) -> None:
        self._cases = cases
        self._collisions = collisions
        self._report = report
        self._seen: dict[asyncio.StreamWriter, bytes] = {}
        """What each connection received last, for reports."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server
        self.requests = 0

    async def start(self, context: ssl.SSLContext | None) -> int:
        """Start serving, with TLS if a context is given; return the port."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=2**20, ssl=context)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def close(self) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._seen[writer] = b""
        try:
            while await self._serve_one(reader, writer):
                pass
        except Violation as error:
            self._report(str(error), self._seen[writer])
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # The proxy may abandon a request.
        except asyncio.LimitOverrunError:
            self._report("a head without an end", self._seen[writer])
        finally:
            del self._seen[writer]
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Respond to one request; return whether the connection stays open."""
        seen = self._seen[writer] = await reader.readuntil(b"\r\n\r\n")
        request = Request(seen)
        self.requests += 1
        case = self._whose(seen)
        if case is not None and case.early is Early.CLOSES and request.length != 0:
            await self._refuse(writer, case)
            return False
        if case is not None and case.early is Early.READS:
            self._answer(writer, case)
            self._seen[writer] = seen = seen + await self._body(reader, request)
            self._whose(seen, case)
        else:
            self._seen[writer] = seen = seen + await self._body(reader, request)
            case = self._whose(seen)
            self._answer(writer, case)
        if case is None:
            return True
        if request.upgrades and _SWITCHES.match(case.answer):
            # This is a tunnel now, so all bytes must belong to the same client.
            while seen := await reader.read(65_536):
                self._seen[writer] = seen
                self._whose(seen, case)
            return False
        if case.api_leaves is Leaving.RST:
            reset_on_close(writer)
        if case.api_leaves is Leaving.STAY and case.api_first is not None:
            port = writer.get_extra_info("peername")[1]
            self._collisions.act_with_request(port, partial(_act_late, writer, case.late))
        return case.api_leaves is Leaving.STAY

    def _answer(self, writer: asyncio.StreamWriter, case: Case | None) -> None:
        if case is None:
            writer.write(_DEFAULT)
        else:
            self._collisions.answer(case, partial(writer.write, case.answer))

    async def _refuse(self, writer: asyncio.StreamWriter, case: Case) -> None:
        """Respond, and close the connection while the body lies unread in the socket, or is on its way."""
        transport = cast("asyncio.Transport", writer.transport)
        transport.pause_reading()
        self._answer(writer, case)
        # uvloop writes at the end of its turn.
        for _ in range(3):
            await asyncio.sleep(0)
        transport.abort()

    async def _body(self, reader: asyncio.StreamReader, request: Request) -> bytes:
        if request.length is not None:
            return await reader.readexactly(request.length)
        body = b""
        while True:
            size = await reader.readuntil(b"\r\n")
            if not _SIZE.match(size):
                raise Violation(f"not a chunk's size: {size!r}")
            chunk = await reader.readexactly(int(size, 16) + 2)
            if not chunk.endswith(b"\r\n"):
                raise Violation("a chunk without an end")
            body += size + chunk
            if int(size, 16) == 0:
                return body

    def _whose(self, data: bytes, case: Case | None = None) -> Case | None:
        """Return the case that `data` belongs to, if known. Raises Violation if it belongs to two cases."""
        for mark in MARK.findall(data):
            found = self._cases.get(mark[1:])
            if found is not None and case is not None and found is not case:
                raise Violation(f"bytes of cases {found.number} and {case.number} in one request")
            case = found or case
        return case


def _act_late(writer: asyncio.StreamWriter, late: bytes | Leaving) -> None:
    """Do on an idle connection what belongs to no request."""
    if writer.transport.is_closing():
        return
    if isinstance(late, bytes):
        writer.write(late)
        return
    if late is Leaving.RST:
        reset_on_close(writer)
    writer.close()
