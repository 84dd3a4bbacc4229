"""One request through a proxy, as seen from both ends."""

import asyncio
import contextlib
from typing import NamedTuple

from tests.support.recorder import OK_ANSWER, Recorder
from tests.support.waiting import HANGS
from tests.system.differential.cases import Case

_LIMIT = 2**20
_PROBE = b"GET /probe HTTP/1.1\r\nHost: localhost\r\n\r\n"
Fields = tuple[tuple[bytes, bytes], ...]
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Request(NamedTuple):
    """What the API received; `body` is the content without framing."""

    method: bytes
    target: bytes
    version: bytes
    fields: Fields
    body: bytes
    trailers: Fields


class Response(NamedTuple):
    """What the client received; `whole` is whether the body ended cleanly."""

    version: bytes
    status: int
    reason: bytes
    fields: Fields
    body: bytes = b""
    trailers: Fields = ()
    whole: bool = True


class Seen(NamedTuple):
    """One exchange: the requests that the API received, and the responses that the client received.

    `stays_open` is whether the client's connection served another request afterwards.
    """

    requests: tuple[Request, ...]
    interim: tuple[Response, ...]
    response: Response | None
    stays_open: bool
    fault: str = ""


async def observe(streams: Streams, api: Recorder, case: Case) -> Seen:
    """Send the case on a new connection to a proxy in front of `api`; return what both ends see."""
    api.requests.clear()
    origin = b"http://%b/" % api.authority.encode()
    api.script = [[piece.replace(b"http://api/", origin) for piece in case.answer]]
    api.close_after = case.closes
    reader, writer = streams
    seen = Seen((), (), None, stays_open=False)
    try:
        async with asyncio.timeout(HANGS):
            interim, response = await _converse(reader, writer, case)
            fields = tuple((name, value.replace(origin, b"http://api/")) for name, value in response.fields)
            seen = seen._replace(interim=interim, response=response._replace(fields=fields))
            requests = [await _request(head + body, api.authority) for head, body in api.requests]
            seen = seen._replace(requests=tuple(requests))
            api.script = [(OK_ANSWER,)]
            api.close_after = False
            return seen._replace(stays_open=await _serves_another(reader, writer))
    except (asyncio.IncompleteReadError, ConnectionError, TimeoutError, ValueError) as error:
        return seen._replace(fault=f"{type(error).__name__}: {error}")
    finally:
        writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def _converse(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, case: Case
) -> tuple[tuple[Response, ...], Response]:
    """Return the interim responses and the final one."""
    writer.write(case.request)
    to_send = case.after_continue
    interim = []
    while (response := await _response(reader, case.method)).status < 200:
        interim.append(response)
        if response.status == 100:
            writer.write(to_send)
            to_send = b""
    return tuple(interim), response


async def _request(data: bytes, authority: str) -> Request:
    """Parse one request. The API's `authority` in Host is replaced by `api`.

    Raises ValueError or IncompleteReadError if there is a byte too many or too few.
    """
    reader = asyncio.StreamReader(limit=_LIMIT)
    reader.feed_data(data)
    reader.feed_eof()
    (method, target, version), fields = await _head(reader)
    names = {name.lower() for name, _ in fields}
    framed = bool(names & {b"content-length", b"transfer-encoding"})
    body, trailers = await _body(reader, fields) if framed else (b"", ())
    if rest := await reader.read():
        raise ValueError(f"bytes behind the request: {rest!r}")
    here = (b"Host", authority.encode())
    named = tuple((b"Host", b"api") if field == here else field for field in fields)
    return Request(method, target, version, named, body, trailers)


def fields_of(message: bytes) -> Fields:
    """Return the fields of the head at the beginning of `message`."""
    lines = message.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]
    fields = (line.partition(b":") for line in lines if b":" in line)
    return tuple((name, value.strip(b" \t")) for name, _, value in fields)


async def _serves_another(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Return whether the connection serves another request. Raises ValueError for a garbled response."""
    try:
        writer.write(_PROBE)
        response = await _response(reader, b"GET")
    except ConnectionError:
        return False
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise ValueError(f"bytes behind the response: {error.partial!r}") from None
        return False
    if (response.status, response.body) != (200, b"ok"):
        raise ValueError(f"not its answer: {response}")
    return True


async def _response(reader: asyncio.StreamReader, method: bytes) -> Response:
    (version, status, reason), fields = await _head(reader)
    bare = Response(version, int(status), reason, fields)
    if method == b"HEAD" or bare.status in (204, 304) or bare.status < 200:
        return bare
    try:
        body, trailers = await _body(reader, fields)
    except (asyncio.IncompleteReadError, ConnectionError):
        return bare._replace(whole=False)
    return bare._replace(body=body, trailers=trailers)


async def _head(reader: asyncio.StreamReader) -> tuple[tuple[bytes, bytes, bytes], Fields]:
    line = await _line(reader)
    first, second, third = [*line.split(b" ", 2), b""][:3]
    return (first, second, third), await _fields(reader)


async def _line(reader: asyncio.StreamReader) -> bytes:
    return (await reader.readuntil(b"\r\n"))[:-2]


async def _fields(reader: asyncio.StreamReader) -> Fields:
    fields = []
    while line := await _line(reader):
        name, separator, value = line.partition(b":")
        if not separator:
            raise ValueError(f"not a field: {line!r}")
        # Strip only the one space that every proxy writes, so that other whitespace shows.
        fields.append((name, value.removeprefix(b" ")))
    return tuple(fields)


async def _body(reader: asyncio.StreamReader, fields: Fields) -> tuple[bytes, Fields]:
    """Return the content and the trailers."""
    by_name = {name.lower(): value for name, value in fields}
    if b"transfer-encoding" in by_name:
        if by_name[b"transfer-encoding"].lower() != b"chunked" or b"content-length" in by_name:
            raise ValueError(f"framing: {fields}")
        content = b""
        while size := int(await _line(reader), 16):
            content += (await reader.readexactly(size + 2))[:-2]
        return content, await _fields(reader)
    if b"content-length" in by_name:
        return await reader.readexactly(int(by_name[b"content-length"])), ()
    return await reader.read(), ()
