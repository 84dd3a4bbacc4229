"""The heads of HTTP/1.1 messages as values, and the exception for a message that breaks the rules."""

from typing import Final, final

from bits_auth_proxy.errors import PeerError


@final
class Field:
    """A header or trailer field. Not a tuple, because a tuple's attributes cost several times as much."""

    __slots__ = ("key", "line", "name", "onward", "value")

    def __init__(self, key: bytes, name: bytes, value: bytes, line: bytes, onward: bytes) -> None:
        self.key: Final = key
        """The name in lower case."""
        self.name: Final = name
        """The name as received."""
        self.value: Final = value
        """The value without the whitespace around it."""
        self.line: Final = line
        """The whole field in canonical form, `name: value` with its CRLF."""
        self.onward: Final = onward
        """What is forwarded to the next hop: the line, or nothing if the field ends at this gateway."""


NO_BODY: Final = 0
CHUNKED: Final = -1
UNTIL_CLOSE: Final = -2
"""Body lengths that are not a number of bytes; see `RequestHead.length` and `ResponseHead.length`."""

_NONE: Final[frozenset[bytes]] = frozenset()


class MalformedMessage(PeerError):  # noqa: N818 - says what the message is
    """A message that must not be forwarded. `reason` is one of a fixed set, safe for logs and metrics."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason: Final = reason
        self.detail: Final = detail


class RequestHead:
    """A request line and header section that passed all checks of RFC 9112.

    `target` is as received; `path` is its path without the query, or None unless it is an acceptable target
    in origin form. `length` is the size of the content in bytes, or CHUNKED. `connection_options` are the
    options that Connection lists (RFC 9110 section 7.6.1), in lower case. `websocket` says whether the
    request opens a WebSocket (RFC 6455 section 4.1); no other upgrade is known. `by_name` holds the values of
    `fields` by lower-case name, with the lines of a list joined, so that no rule needs to walk them all.
    """

    __slots__ = (
        "by_name",
        "connection_options",
        "expects_continue",
        "fields",
        "host",
        "keep_alive",
        "length",
        "method",
        "minor_version",
        "path",
        "target",
        "websocket",
    )

    def __init__(
        self,
        method: bytes,
        target: bytes,
        minor_version: int,
        fields: list[Field],
        by_name: dict[bytes, bytes],
        path: bytes | None = None,
    ) -> None:
        self.method = method
        self.target = target
        self.minor_version = minor_version
        self.fields = fields
        self.by_name = by_name
        self.path = path
        self.host: bytes | None = None
        self.length = NO_BODY
        self.keep_alive = minor_version == 1
        self.connection_options: frozenset[bytes] = _NONE
        self.expects_continue = False
        self.websocket = False


class ResponseHead:
    """A status line and header section; `by_name` and `connection_options` are as in `RequestHead`.

    `length` is the length of the body, unless the response answers HEAD (RFC 9112 section 6.3): a number of
    bytes, CHUNKED or UNTIL_CLOSE.
    """

    __slots__ = (
        "by_name",
        "connection_options",
        "fields",
        "keep_alive",
        "keep_alive_timeout",
        "length",
        "minor_version",
        "reason",
        "status",
    )

    def __init__(
        self,
        status: int,
        reason: bytes,
        minor_version: int,
        fields: list[Field],
        by_name: dict[bytes, bytes],
    ) -> None:
        self.status = status
        self.reason = reason
        self.minor_version = minor_version
        self.fields = fields
        self.by_name = by_name
        self.length = UNTIL_CLOSE
        self.connection_options: frozenset[bytes] = _NONE
        self.keep_alive = minor_version == 1
        self.keep_alive_timeout: int | None = None
