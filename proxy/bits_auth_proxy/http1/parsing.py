"""Incremental parsers for heads, with limits.

A parser takes data in pieces of any size and returns the head once its empty line has arrived; `rest` then
holds what followed it. Lines are read one after the other by the readers in `lines`, and what arrives of a
line is checked immediately, so that nonsense is rejected before a timeout. The way in which the bytes are
split makes no difference to what is accepted or to what it means. If a head has several faults, the first one
is reported; faults that involve several fields are found at the end of the head.
"""

import re
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Final, Generic, TypeVar

from bits_auth_proxy.http1.framing import (
    REQUEST_SINGLES,
    RESPONSE_SINGLES,
    apply_request_framing,
    apply_response_framing,
    joined,
)
from bits_auth_proxy.http1.lines import (
    CONTROL,
    REQUEST_LINES,
    STATUS_LINES,
    FieldCache,
    RequestLine,
    StatusLine,
    may_begin_request,
    may_begin_response,
)
from bits_auth_proxy.http1.messages import Field, MalformedMessage, RequestHead, ResponseHead
from bits_auth_proxy.http1.parse_cache import ParseCache

_END_OF_HEAD: Final = b"\r\n\r\n"
_CR: Final = 0x0D
_EMPTY_LINES: Final = re.compile(rb"(?:\r\n)*")


HeadT = TypeVar("HeadT", RequestHead, ResponseHead)
LineT = TypeVar("LineT", RequestLine, StatusLine)


class _HeadParser(ABC, Generic[HeadT, LineT]):
    """The part that both directions share: collecting the lines, and the limits."""

    __slots__ = (
        "_buffer",
        "_fields",
        "_max_fields",
        "_max_head",
        "_max_line",
        "_max_plain",
        "_position",
        "_read_field",
        "_read_start",
        "_start",
        "rest",
    )

    FIRST_LINES: ClassVar[ParseCache[Any]]

    def __init__(self, *, fields: FieldCache, max_line: int, max_head: int, max_fields: int) -> None:
        """Take the reader of field lines and the limits: first line and head in bytes, number of fields."""
        self._max_line = max_line
        self._max_head = max_head
        # Up to this size, no line needs to be measured.
        self._max_plain = min(max_head, max_line)
        self._max_fields = max_fields
        self.rest = b""
        self._read_field = fields.__getitem__
        self._read_start = type(self).FIRST_LINES.__getitem__
        self._reset()

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
            if 0 < end <= self._max_plain and data[0] != _CR:
                # The head has arrived whole, and is too small to exceed a limit on bytes.
                lines = data[:end].split(b"\r\n")
                if len(lines) <= self._max_fields:
                    start = self._read_start(lines.pop(0))
                    fields = list(map(self._read_field, lines))
                    self.rest = data[end + 4 :]
                    return self._build(start, fields)
        return self._feed_lines(data)

    def _reset(self) -> None:
        self._buffer = b""
        self._position = 0
        """Where in the buffer the first line begins that has not been read."""
        self._start: LineT | None = None
        self._fields: list[Field] = []

    def _feed_lines(self, data: bytes) -> HeadT | None:
        """Read the lines that are complete, and check what there is of the next one."""
        head = self._buffer + data
        if self._start is None:
            head = self._without_empty_lines(head)
        position = self._position
        # What had arrived before has been checked, except for a CR at its end.
        checked = max(len(self._buffer) - 1, position)
        while True:
            end = head.find(b"\r\n", checked)
            if end < 0:
                self._check(head, checked, len(head) - head.endswith(b"\r"))
                self._buffer, self._position = head, position
                return None
            self._check(head, checked, end)
            start = self._start
            if start is None:
                self._start = self._read_start(head[:end])
            elif end > position:
                if len(self._fields) >= self._max_fields:
                    raise MalformedMessage(
                        "head_too_large", f"the head has more than {self._max_fields} fields"
                    )
                self._fields.append(self._read_field(head[position:end]))
            else:
                fields = self._fields
                self.rest = head[end + 2 :]
                self._reset()
                return self._build(start, fields)
            position = checked = end + 2

    def _check(self, head: bytes, begin: int, end: int) -> None:
        """Raise MalformedMessage if the line that has arrived up to `end` is bad, however it may go on.

        What there is of it before `begin` has been checked.
        """
        if begin == end:
            return
        first = self._start is None
        limit = min(self._max_line, self._max_head) if first else self._max_head
        if CONTROL.search(head, begin, min(end, limit)):
            raise MalformedMessage("bad_syntax", "a line contains control bytes")
        if first and not self._may_begin(head[: min(end, limit)]):
            raise MalformedMessage("bad_syntax", "the first line is not one of HTTP/1.1")
        if end > limit:
            if first and limit == self._max_line:
                raise MalformedMessage("line_too_long", f"the first line is longer than {limit} bytes")
            raise MalformedMessage("head_too_large", f"the head is larger than {limit} bytes")

    @abstractmethod
    def _without_empty_lines(self, head: bytes) -> bytes:
        """Return `head` without the empty lines that may come before it."""
        ...

    @abstractmethod
    def _may_begin(self, line: bytes) -> bool:
        """Return whether a first line may begin with `line`."""
        ...

    @abstractmethod
    def _build(self, start: LineT, fields: list[Field]) -> HeadT: ...


class RequestParser(_HeadParser[RequestHead, RequestLine]):
    """Reads the request heads of one connection, one after the other."""

    __slots__ = ()

    FIRST_LINES = REQUEST_LINES

    def _without_empty_lines(self, head: bytes) -> bytes:
        # A client may send an empty line before a request line (RFC 9112 section 2.2).
        match = _EMPTY_LINES.match(head)
        return head if match is None else head[match.end() :]

    def _may_begin(self, line: bytes) -> bool:
        return may_begin_request(line)

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

    def _without_empty_lines(self, head: bytes) -> bytes:
        return head

    def _may_begin(self, line: bytes) -> bool:
        return may_begin_response(line)

    def _build(self, start: StatusLine, fields: list[Field]) -> ResponseHead:
        status, reason, minor_version = start
        by_name = {field.key: field.value for field in fields}
        if len(by_name) < len(fields):
            by_name = joined(fields, RESPONSE_SINGLES)
        head = ResponseHead(status, reason, minor_version, fields, by_name)
        apply_response_framing(head)
        return head
