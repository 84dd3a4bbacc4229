"""From bytes to heads, incrementally, with limits.

A parser takes reads as they come and yields the head once its empty line has arrived; `rest` then holds
what followed. Bytes are judged as they arrive, so that nonsense is refused at once and not at a timeout.
How the bytes were cut into reads makes no difference to the result.
"""

from typing import Final, Generic, Protocol, TypeVar

import httptools

from proxy.http1.control import (
    REQUEST_NOTABLE,
    RESPONSE_NOTABLE,
    apply_request_control,
    apply_response_control,
    merge_notable,
)
from proxy.http1.messages import Field, MalformedMessage, RequestHead, ResponseHead

_END_OF_HEAD: Final = b"\r\n\r\n"
_TOKEN: Final = frozenset(b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
_METHODS: Final = frozenset(
    (b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"CONNECT", b"TRACE")
)
_VERSIONS: Final = {b"HTTP/1.1": 1, b"HTTP/1.0": 0}

HeadT = TypeVar("HeadT", RequestHead, ResponseHead)


class _Engine(Protocol):
    """What is used of httptools' two parser classes."""

    def feed_data(self, data: bytes, /) -> None: ...


class _Sink:
    """Collects what llhttp finds in one head."""

    __slots__ = ("complete", "fields", "notable", "notable_names")

    def __init__(self, notable_names: frozenset[bytes]) -> None:
        self.notable_names = notable_names
        self.fields: list[Field] = []
        self.notable: list[Field] = []
        self.complete = False

    def on_header(self, name: bytes, value: bytes) -> None:
        key = name.lower()
        # llhttp leaves trailing whitespace on values; it is not part of them (RFC 9112 section 5.1).
        field = (key, name, value.rstrip(b" \t"))
        self.fields.append(field)
        if key in self.notable_names:
            self.notable.append(field)

    def on_headers_complete(self) -> None:
        self.complete = True


class _HeadParser(Generic[HeadT]):
    """What the two directions share: collecting the head, the limits, the engine."""

    __slots__ = ("_buffer", "_engine", "_max_fields", "_max_head", "_max_line", "_sink", "rest")

    def __init__(self, *, max_line: int, max_head: int, max_fields: int) -> None:
        """Set the limits: of the first line and of the whole head in bytes, and of the field count."""
        self._max_line = max_line
        self._max_head = max_head
        self._max_fields = max_fields
        self.rest = b""
        self._buffer = b""
        self._sink, self._engine = self._open()

    @property
    def started(self) -> bool:
        """Whether a part of a head has arrived."""
        return bool(self._buffer)

    def feed(self, data: bytes) -> HeadT | None:
        """Take the next bytes of the stream; return the head when it is complete, else None.

        Raises MalformedMessage; the parser is of no use afterwards.
        """
        buffered = len(self._buffer)
        if not buffered:
            # A client may send an empty line before a request line (RFC 9112 section 2.2).
            data = data.lstrip(b"\r\n")
            if not data:
                return None
            head, search_from = data, 0
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
            raise MalformedMessage("bad_syntax", "the head does not end where its empty line stands")
        if len(sink.fields) > self._max_fields:
            raise MalformedMessage("head_too_large", f"the head has more than {self._max_fields} fields")
        result = self._build(head[:line_end], sink)
        self._reset()
        self.rest = head[end:]
        return result

    def _reset(self) -> None:
        self._buffer = b""
        self._sink, self._engine = self._open()

    def _execute(self, data: bytes, head: bytes) -> None:
        try:
            self._engine.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # Raised at the end of the head; whether to upgrade is not the parser's decision.
        except httptools.HttpParserInvalidMethodError:
            raise self._bad_method(head) from None
        except httptools.HttpParserError as error:
            detail = str(error)
            raise MalformedMessage(_reason(detail), detail) from None

    @staticmethod
    def _bad_method(head: bytes) -> MalformedMessage:
        word = head.partition(b"\r\n")[0].partition(b" ")[0]
        if word and _TOKEN.issuperset(word):
            return MalformedMessage("unknown_method", "the method is not known")
        return MalformedMessage("bad_syntax", "the method is not a token")

    def _open(self) -> tuple[_Sink, _Engine]:
        raise NotImplementedError

    def _build(self, line: bytes, sink: _Sink) -> HeadT:
        raise NotImplementedError


def _reason(detail: str) -> str:
    """Return what llhttp's complaint is about."""
    if "Content-Length" in detail or "Transfer-Encoding" in detail:
        return "bad_framing"
    return "unknown_version" if detail == "Invalid HTTP version" else "bad_syntax"


class RequestParser(_HeadParser[RequestHead]):
    """Reads request heads of one connection, one after the other."""

    __slots__ = ()

    def _open(self) -> tuple[_Sink, _Engine]:
        sink = _Sink(REQUEST_NOTABLE)
        return sink, httptools.HttpRequestParser(sink)

    def _build(self, line: bytes, sink: _Sink) -> RequestHead:
        parts = line.split(b" ")
        if len(parts) != 3:  # noqa: PLR2004 - method, target, version (RFC 9112 section 3)
            raise MalformedMessage("bad_syntax", "the request line is not method, target and version")
        method, target, version = parts
        minor_version = _VERSIONS.get(version)
        if minor_version is None:
            if version.startswith(b"HTTP/"):
                raise MalformedMessage("unknown_version", "only HTTP/1.1 and HTTP/1.0 are spoken here")
            raise MalformedMessage("bad_syntax", "the request line names another protocol")
        if method not in _METHODS:
            raise MalformedMessage("unknown_method", "the method is not known")
        head = RequestHead(method, target, minor_version, sink.fields, merge_notable(sink.notable))
        apply_request_control(head)
        return head


class ResponseParser(_HeadParser[ResponseHead]):
    """Reads response heads of one connection, interim ones (1xx) included."""

    __slots__ = ()

    def _open(self) -> tuple[_Sink, _Engine]:
        sink = _Sink(RESPONSE_NOTABLE)
        return sink, httptools.HttpResponseParser(sink)

    def _build(self, line: bytes, sink: _Sink) -> ResponseHead:
        # llhttp has checked the status line's form; only its version is still open.
        version, _, rest = line.partition(b" ")
        status, _, reason = rest.partition(b" ")
        minor_version = _VERSIONS.get(version)
        if minor_version is None or len(status) != 3 or not status.isdigit():  # noqa: PLR2004 - three digits
            raise MalformedMessage("bad_syntax", "the status line is not that of HTTP/1.1 or HTTP/1.0")
        head = ResponseHead(int(status), reason, minor_version, sink.fields)
        apply_response_control(head, merge_notable(sink.notable))
        return head
