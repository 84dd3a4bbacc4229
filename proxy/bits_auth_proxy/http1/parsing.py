"""Incremental parsers for heads, with limits.

A parser takes data in pieces of any size and returns the head once its empty line has arrived; `rest` then
holds what followed it. llhttp checks the bytes as they arrive, so that nonsense is rejected immediately and
not after a timeout. The way in which the bytes are split makes no difference to what is accepted or to what
it means. If a head has several faults, the first to arrive is reported.

A head that arrives whole and has only plain lines is read line by line (see `lines`). This costs a fifth of
what llhttp costs, and has the same result.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Final, Generic, TypeVar

import httptools

from bits_auth_proxy.http1.framing import (
    REQUEST_SINGLES,
    RESPONSE_SINGLES,
    apply_request_framing,
    apply_response_framing,
    joined,
)
from bits_auth_proxy.http1.lines import (
    REQUEST_LINES,
    STATUS_LINES,
    FieldCache,
    RequestLine,
    StatusLine,
    path_of,
)
from bits_auth_proxy.http1.messages import Field, MalformedMessage, RequestHead, ResponseHead
from bits_auth_proxy.http1.parse_cache import ParseCache

_END_OF_HEAD: Final = b"\r\n\r\n"
_TOKEN: Final = frozenset(b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
_METHODS: Final = frozenset(
    (b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"CONNECT", b"TRACE")
)
_REASON: Final = re.compile(rb"[\t -~\x80-\xff]*\Z")
_VERSIONS: Final = {b"HTTP/1.1": 1, b"HTTP/1.0": 0}


HeadT = TypeVar("HeadT", RequestHead, ResponseHead)
LineT = TypeVar("LineT", RequestLine, StatusLine)


class _Sink:
    """Collects what llhttp finds in one head."""

    __slots__ = ("_make_field", "complete", "fields")

    def __init__(self, make_field: Callable[[bytes, bytes], Field]) -> None:
        self._make_field = make_field
        self.fields: list[Field] = []
        self.complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append(self._make_field(name, value))

    def on_headers_complete(self) -> None:
        self.complete = True


class _HeadParser(ABC, Generic[HeadT, LineT]):
    """The part that both directions share: collecting the head, the limits, the engine."""

    __slots__ = (
        "_buffer",
        "_engine",
        "_make_field",
        "_max_fields",
        "_max_head",
        "_max_line",
        "_max_plain",
        "_read_field",
        "_read_start",
        "_sink",
        "rest",
    )

    FIRST_LINES: ClassVar[ParseCache[Any]]
    ENGINE: ClassVar[type[Any]]

    def __init__(self, *, fields: FieldCache, max_line: int, max_head: int, max_fields: int) -> None:
        """Take the reader of field lines and the limits: first line and head in bytes, number of fields."""
        self._max_line = max_line
        self._max_head = max_head
        # Up to this size, no line needs to be measured.
        self._max_plain = min(max_head, max_line)
        self._max_fields = max_fields
        self.rest = b""
        self._buffer = b""
        self._make_field = fields.make
        self._sink = _Sink(self._make_field)
        self._engine: Any = None
        self._read_field = fields.__getitem__
        self._read_start = type(self).FIRST_LINES.__getitem__

    @property
    def started(self) -> bool:
        """Whether a part of a head has arrived."""
        return bool(self._buffer)

    def feed(self, data: bytes) -> HeadT | None:
        """Take the next bytes of the stream; return the head if it is complete, else None.

        Raises MalformedMessage; the parser can't be used after that.
        """
        if not self._buffer:
            end = data.find(_END_OF_HEAD)
            if 0 < end <= self._max_plain:
                lines = data[:end].split(b"\r\n")
                start = self._read_start(lines.pop(0))
                fields = list(map(self._read_field, lines))
                if start is not None and all(fields) and len(fields) <= self._max_fields:
                    self.rest = data[end + 4 :]
                    return self._build(start, fields)
        return self._feed_engine(data)

    def _feed_engine(self, data: bytes) -> HeadT | None:
        buffered = len(self._buffer)
        if not buffered:
            # A client may send an empty line before a request line (RFC 9112 section 2.2).
            data = data.lstrip(b"\r\n")
            if not data:
                return None
            head, search_from = data, 0
            self._sink = _Sink(self._make_field)
            self._engine = type(self).ENGINE(self._sink)
        else:
            head, search_from = self._buffer + data, max(buffered - 3, 0)
        end = head.find(_END_OF_HEAD, search_from)
        line_end = head.find(b"\r\n")
        if (line_end if line_end >= 0 else len(head)) > self._max_line:
            raise MalformedMessage("line_too_long", f"the first line is longer than {self._max_line} bytes")
        if (end if end >= 0 else len(head)) > self._max_head:
            raise MalformedMessage("head_too_large", f"the head is larger than {self._max_head} bytes")
        if end < 0:
            self._buffer = head
            self._execute(data, head)
            return None
        end += len(_END_OF_HEAD)
        self._execute(head[buffered:end], head)
        sink = self._sink
        if not sink.complete:
            raise MalformedMessage("bad_syntax", "the head does not end at its empty line")
        if len(sink.fields) > self._max_fields:
            raise MalformedMessage("head_too_large", f"the head has more than {self._max_fields} fields")
        self._buffer = b""
        self._engine = None
        self.rest = head[end:]
        return self._build(self._first_line(head[:line_end]), sink.fields)

    def _execute(self, data: bytes, head: bytes) -> None:
        try:
            self._engine.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # llhttp raises it at the end of the head; the caller decides about the upgrade.
        except httptools.HttpParserInvalidMethodError:
            raise self._bad_method(head) from None
        except httptools.HttpParserError as error:
            detail = str(error)
            raise MalformedMessage(_reason(detail), detail) from None

    @staticmethod
    def _bad_method(head: bytes) -> MalformedMessage:
        word = head.partition(b"\r\n")[0].partition(b" ")[0]
        if word and _TOKEN.issuperset(word):
            return MalformedMessage("unknown_method", "the method is unknown")
        return MalformedMessage("bad_syntax", "the method is not a token")

    @abstractmethod
    def _first_line(self, line: bytes) -> LineT:
        """Return the meaning of a line that llhttp has accepted."""
        ...

    @abstractmethod
    def _build(self, start: LineT, fields: list[Any]) -> HeadT: ...


def _reason(detail: str) -> str:
    """Return the reason to report for an error message of llhttp."""
    if "Content-Length" in detail or "Transfer-Encoding" in detail:
        return "bad_framing"
    return "unknown_version" if detail == "Invalid HTTP version" else "bad_syntax"


class RequestParser(_HeadParser[RequestHead, RequestLine]):
    """Reads the request heads of one connection, one after the other."""

    __slots__ = ()

    FIRST_LINES = REQUEST_LINES
    ENGINE = httptools.HttpRequestParser

    def _first_line(self, line: bytes) -> RequestLine:
        parts = line.split(b" ")
        if len(parts) != 3:  # noqa: PLR2004 - method, target, version (RFC 9112 section 3)
            raise MalformedMessage(
                "bad_syntax", "the request line must consist of method, target and version"
            )
        method, target, version = parts
        minor_version = _VERSIONS.get(version)
        if minor_version is None:
            if version.startswith(b"HTTP/"):
                raise MalformedMessage("unknown_version", "only HTTP/1.1 and HTTP/1.0 are supported")
            raise MalformedMessage("bad_syntax", "the request line names another protocol")
        if method not in _METHODS:
            raise MalformedMessage("unknown_method", "the method is unknown")
        return RequestLine(method, target, minor_version, path_of(target))

    def _build(self, start: RequestLine, fields: list[Field]) -> RequestHead:
        method, target, minor_version, path = start
        by_name = {field.key: field.value for field in fields}
        if len(by_name) < len(fields):
            by_name = joined(fields, REQUEST_SINGLES)
        head = RequestHead(method, target, minor_version, fields, by_name, path)
        apply_request_framing(head)
        return head


class ResponseParser(_HeadParser[ResponseHead, StatusLine]):
    """Reads the response heads of one connection, including interim ones (1xx)."""

    __slots__ = ()

    FIRST_LINES = STATUS_LINES
    ENGINE = httptools.HttpResponseParser

    def _first_line(self, line: bytes) -> StatusLine:
        # llhttp has checked the form of the status line, but neither its version nor its last part.
        version, _, rest = line.partition(b" ")
        status, _, reason = rest.partition(b" ")
        minor_version = _VERSIONS.get(version)
        if minor_version is None or len(status) != 3 or not status.isdigit():  # noqa: PLR2004 - three digits
            raise MalformedMessage("bad_syntax", "the status line is not valid in HTTP/1.1 or HTTP/1.0")
        if status.startswith(b"0"):
            raise MalformedMessage("bad_syntax", "the status is below 100")
        if not _REASON.match(reason):
            raise MalformedMessage("bad_syntax", "the reason phrase contains control bytes")
        return StatusLine(int(status), reason, minor_version)

    def _build(self, start: StatusLine, fields: list[Field]) -> ResponseHead:
        status, reason, minor_version = start
        by_name = {field.key: field.value for field in fields}
        if len(by_name) < len(fields):
            by_name = joined(fields, RESPONSE_SINGLES)
        head = ResponseHead(status, reason, minor_version, fields, by_name)
        apply_response_framing(head)
        return head
