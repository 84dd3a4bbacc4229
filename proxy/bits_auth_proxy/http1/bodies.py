"""Readers that extract the content of bodies, one for each framing of RFC 9112 section 6.

A reader takes data in pieces of any size and returns the content in each. Once `done`, `rest` holds the bytes
after the body, which belong to the next message.
"""

import re
from typing import Final, Protocol

from bits_auth_proxy.http1.lines import CONTROL, read_field
from bits_auth_proxy.http1.messages import CHUNKED, UNTIL_CLOSE, Field, MalformedMessage

# RFC 9112 section 7.1.1, with whitespace where it is bad but must be parsed (BWS, RFC 9110 section 5.6.3).
_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_QUOTED: Final = rb'"(?:[\t\x20\x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*"'
_EXTENSIONS: Final = (
    rb"(?:[ \t]*;[ \t]*" + _TOKEN + rb"(?:[ \t]*=[ \t]*(?:" + _TOKEN + rb"|" + _QUOTED + rb"))?)*"
)
_CHUNK: Final = re.compile(rb"0*([0-9A-Fa-f]{1,15})" + _EXTENSIONS)
_PADDED_CHUNK: Final = re.compile(_CHUNK.pattern + rb"[ \t]*")
_CHUNK_BEGIN: Final = re.compile(rb"[0-9A-Fa-f]+(?:[ \t;]|\Z)")
_FRAMING: Final = frozenset((b"content-length", b"transfer-encoding"))
# The lines of a chunked body: what the next one must be.
_SIZE: Final = 0
_END_OF_CHUNK: Final = 1
_TRAILER: Final = 2


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

    `max_overhead` limits, in bytes, the framing between two pieces of content and the trailer section.
    `padded` allows whitespace after a chunk's size, which old servers send.
    """

    __slots__ = (
        "_chunk",
        "_expected",
        "_line",
        "_max_fields",
        "_max_overhead",
        "_overhead",
        "_remaining",
        "done",
        "rest",
        "trailers",
    )

    def __init__(self, *, max_overhead: int, max_fields: int, padded: bool = False) -> None:
        self._max_overhead = max_overhead
        self._max_fields = max_fields
        self._chunk = _PADDED_CHUNK if padded else _CHUNK
        self._remaining = 0
        self._overhead = 0
        self._line = b""
        """What has arrived of the next line, if that is not whole."""
        self._expected = _SIZE
        self.done = False
        self.rest = b""
        self.trailers: list[Field] = []

    def feed(self, data: bytes) -> bytes:
        """Return the content in `data`, without its framing."""
        # What had arrived of a line before has been checked, except for a CR at its end.
        checked = max(len(self._line) - 1, 0)
        if self._line:
            data, self._line = self._line + data, b""
        content = []
        position = 0
        while position < len(data):
            remaining = self._remaining
            if remaining:
                piece = data[position : position + remaining]
                content.append(piece)
                position += len(piece)
                self._remaining = remaining - len(piece)
                self._overhead = 0
                continue
            end = data.find(b"\r\n", max(position, checked))
            if end < 0:
                self._line = line = data[position:]
                self._check(line, max(checked - position, 0), len(line) - line.endswith(b"\r"))
                break
            size = end + 2 - position
            line = data[position:end]
            if self._overhead + size > self._max_overhead:
                self._check(line, 0, len(line))
            self._overhead += size
            position = end + 2
            self._read(line)
            if self.done:
                self.rest = data[position:]
                break
        return content[0] if len(content) == 1 else b"".join(content)

    def _read(self, line: bytes) -> None:
        """Take a line that is whole."""
        expected = self._expected
        if expected == _SIZE:
            match = self._chunk.fullmatch(line)
            if match is None:
                raise MalformedMessage("bad_chunk", "the size of a chunk is not valid")
            self._remaining = int(match[1], 16)
            self._expected = _END_OF_CHUNK if self._remaining else _TRAILER
        elif expected == _END_OF_CHUNK:
            if line:
                raise MalformedMessage("bad_chunk", "a chunk is longer than its size")
            self._expected = _SIZE
        elif line:
            self._read_trailer(line)
        else:
            self.done = True

    def _read_trailer(self, line: bytes) -> None:
        try:
            field = read_field(line)
        except MalformedMessage as error:
            raise MalformedMessage("bad_chunk", error.detail) from None
        if field.key in _FRAMING:
            raise MalformedMessage("bad_chunk", "a trailer must not say where the message ends")
        if len(self.trailers) >= self._max_fields:
            raise MalformedMessage("head_too_large", f"there are more than {self._max_fields} trailers")
        self.trailers.append(field)

    def _check(self, line: bytes, begin: int, end: int) -> None:
        """Raise MalformedMessage if the line that has arrived up to `end` is bad, however it may go on.

        What there is of it before `begin` has been checked.
        """
        limit = self._max_overhead - self._overhead - 2
        begun = line[: min(end, limit)]
        if begun and (
            CONTROL.search(begun, begin)
            or self._expected == _END_OF_CHUNK
            or (self._expected == _SIZE and not _CHUNK_BEGIN.match(begun))
        ):
            raise MalformedMessage("bad_chunk", "the framing of a chunk is not valid")
        if end > limit:
            raise MalformedMessage("head_too_large", "the trailer section or a chunk extension is too large")


def open_body(length: int, *, max_overhead: int, max_fields: int, padded: bool = False) -> BodyReader:
    """Return the reader for a body of `length`, which is not NO_BODY (see `RequestHead.length`).

    The limits and `padded` are as in `ChunkedReader`.
    """
    if length == CHUNKED:
        return ChunkedReader(max_overhead=max_overhead, max_fields=max_fields, padded=padded)
    return CloseReader() if length == UNTIL_CLOSE else LengthReader(length)
