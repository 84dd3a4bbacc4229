"""Readers that extract the content of bodies, one for each framing of RFC 9112 section 6.

A reader takes data in pieces of any size and returns the content in each. Once `done`, `rest` holds the bytes
after the body, which belong to the next message.
"""

from typing import Final, Protocol

import httptools

from bits_auth_proxy.http1.lines import make_field
from bits_auth_proxy.http1.messages import CHUNKED, UNTIL_CLOSE, Field, MalformedMessage

_BLANK_LINE: Final = b"\r\n\r\n"
_PRIME: Final = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"


class BodyReader(Protocol):
    """Reads one body."""

    done: bool
    rest: bytes
    trailers: list[Field]

    def feed(self, data: bytes) -> bytes:
        """Return the content in `data`, which may be empty. Raises MalformedMessage."""
        ...


class LengthReader:
    """Reads a body of a known length, which is not zero."""

    __slots__ = ("_remaining", "done", "rest", "trailers")

    def __init__(self, length: int) -> None:
        self._remaining = length
        self.done = False
        self.rest = b""
        self.trailers: list[Field] = []

    def feed(self, data: bytes) -> bytes:
        """Return the part of `data` that belongs to the body."""
        remaining = self._remaining
        if len(data) < remaining:
            self._remaining = remaining - len(data)
            return data
        self.done = True
        self.rest = data[remaining:]
        return data[:remaining]


class CloseReader:
    """Reads a response's body that ends with the connection, whose owner notices the end."""

    __slots__ = ("done", "rest", "trailers")

    def __init__(self) -> None:
        self.done = False
        self.rest = b""
        self.trailers: list[Field] = []

    def feed(self, data: bytes) -> bytes:
        """Return `data`, because all of it belongs to the body."""
        return data


class ChunkedReader:
    """Reads a chunked body with its trailer section, and drops chunk extensions (RFC 9112 section 7.1).

    llhttp can't be made to stop at the end of a message. But every chunked body ends with an empty line, so
    the reader feeds it up to the end of each empty line and checks whether the body is complete. What follows
    the body stays unread. `max_overhead` limits, in bytes, the framing between two pieces of content and the
    trailer section.
    """

    __slots__ = (
        "_content",
        "_engine",
        "_max_fields",
        "_max_overhead",
        "_overhead",
        "_tail",
        "done",
        "rest",
        "trailers",
    )

    def __init__(self, *, max_overhead: int, max_fields: int) -> None:
        self._max_overhead = max_overhead
        self._max_fields = max_fields
        self._overhead = 0
        self._content: list[bytes] = []
        self._tail = b""
        self.done = False
        self.rest = b""
        self.trailers: list[Field] = []
        self._engine = httptools.HttpRequestParser(self)
        self._engine.feed_data(_PRIME)
        self.trailers.clear()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a trailer field from llhttp."""
        self.trailers.append(make_field(name, value))

    def on_body(self, data: bytes) -> None:
        """Take content from llhttp."""
        self._content.append(data)

    def on_message_complete(self) -> None:
        """Take the end of the body from llhttp."""
        self.done = True

    def feed(self, data: bytes) -> bytes:
        """Return the content in `data`, without its framing."""
        content = self._content
        content.clear()
        start = 0
        for end in self._blank_line_ends(data):
            self._execute(data[start:end])
            start = end
            if self.done:
                self.rest = data[start:]
                break
        return content[0] if len(content) == 1 else b"".join(content)

    def _blank_line_ends(self, data: bytes) -> list[int]:
        """Return where in `data` empty lines end, even if they began in an earlier piece, and its own end."""
        ends = []
        tail = self._tail
        across = (tail + data[:3]).find(_BLANK_LINE)
        position = 0
        if across >= 0:
            position = across + len(_BLANK_LINE) - len(tail)
            ends.append(position)
        while (found := data.find(_BLANK_LINE, position)) >= 0:
            position = found + len(_BLANK_LINE)
            ends.append(position)
        if position < len(data):
            ends.append(len(data))
        self._tail = (tail + data)[-3:]
        return ends

    def _execute(self, piece: bytes) -> None:
        before = len(self._content)
        try:
            self._engine.feed_data(piece)
        except httptools.HttpParserError as error:
            raise MalformedMessage("bad_chunk", str(error)) from None
        if len(self._content) > before:
            self._overhead = 0
        else:
            self._overhead += len(piece)
        if self._overhead > self._max_overhead or len(self.trailers) > self._max_fields:
            raise MalformedMessage("head_too_large", "the trailer section or a chunk extension is too large")


def open_body(length: int, *, max_overhead: int, max_fields: int) -> BodyReader:
    """Return the reader for a body of `length`, which is not NO_BODY (see `RequestHead.length`)."""
    if length == CHUNKED:
        return ChunkedReader(max_overhead=max_overhead, max_fields=max_fields)
    return CloseReader() if length == UNTIL_CLOSE else LengthReader(length)
