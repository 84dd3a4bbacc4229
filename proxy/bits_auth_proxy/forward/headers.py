"""All header policy: which fields pass, which end here and which are added (RFC 9110 section 7.6).

Pure functions from heads to the bytes that are forwarded. Fields keep their order, case, repetitions and
bytes; only what is named here changes. The two field caches decide, once per line, whether a field ends here
because of its name alone. What depends on the message (connection options, the client's own credentials) is
decided for each message.
"""

import functools
import re
from collections.abc import Iterable
from enum import Enum
from http import HTTPStatus
from typing import Final

from bits_auth_proxy.forward.ports import UNIX_PEER, Sender
from bits_auth_proxy.http1.lines import FieldCache, make_field
from bits_auth_proxy.http1.messages import CHUNKED, Field, RequestHead, ResponseHead


class ClientAuthorization(Enum):
    """What to do with an Authorization field that the client sends.

    The field counts whatever its value is, even an empty one: a client that fails to fill it in must not get
    more rights than the credential that it meant to send.
    """

    KEEP = "keep"
    REPLACE = "replace"
    REJECT = "reject"


HOP_BY_HOP: Final = frozenset(
    (
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authentication-info",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    )
)
"""Fields that are only for the next hop (RFC 9110 section 7.6.1)."""
# The proxy writes these itself or acts on them, or they would reveal the internal network to a third party.
_REQUEST_ENDS: Final = HOP_BY_HOP | frozenset(
    (b"content-length", b"expect", b"forwarded", b"host", b"http2-settings", b"x-real-ip", b"x-request-id")
)
_REQUEST_ENDS_PREFIX: Final = b"x-forwarded-"
# Trailer passes unless Connection names it. Alt-Svc and Strict-Transport-Security are about the API's origin,
# not about this one.
_RESPONSE_ENDS: Final = (HOP_BY_HOP - {b"trailer"}) | frozenset((b"alt-svc", b"strict-transport-security"))
_INERT_OPTIONS: Final = (HOP_BY_HOP - {b"trailer"}) | {b"close"}
"""Connection options that do not remove a field that would otherwise pass."""
# Fields that must not be trailers (RFC 9110 section 6.5.1): framing, routing, authentication, control.
_TRAILERS_DROPPED: Final = HOP_BY_HOP | frozenset(
    (
        b"age",
        b"alt-svc",
        b"authorization",
        b"cache-control",
        b"content-encoding",
        b"content-length",
        b"content-range",
        b"content-type",
        b"date",
        b"expires",
        b"host",
        b"location",
        b"max-forwards",
        b"retry-after",
        b"set-cookie",
        b"strict-transport-security",
        b"vary",
        b"www-authenticate",
    )
)
_PREFLIGHT_MAX_AGE: Final = 600
"""Seconds for which a browser may keep the answer to a preflight. Chromium keeps none for longer than 2 h."""
_FIELD_NAMES: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z, \t-]+")
_MAX_FORWARDS_DIGITS: Final = 9
_UPGRADE_LINES: Final = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
_MAX_REQUEST_ID: Final = 200
_AUTHORIZATION: Final = frozenset((b"authorization",))
_LENGTH: Final = frozenset((b"content-length",))
_INERT_OPTIONS_OR_LENGTH: Final = _INERT_OPTIONS | _LENGTH
_NO_CONTENT: Final = int(HTTPStatus.NO_CONTENT)
_SWITCHING_PROTOCOLS: Final = int(HTTPStatus.SWITCHING_PROTOCOLS)
# Version ff is invalid, and so are ids of only zeros. Only versions after 00 may have more parts.
_TRACEPARENT: Final = re.compile(
    rb"(?P<version>(?!ff)[0-9a-f]{2})-(?P<trace>(?!0{32})[0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?P<more>-.*)?"
)


def _ends_with_request(key: bytes) -> bool:
    return key in _REQUEST_ENDS or key.startswith(_REQUEST_ENDS_PREFIX)


REQUEST_FIELDS: Final = FieldCache(_ends_with_request)
RESPONSE_FIELDS: Final = FieldCache(_RESPONSE_ENDS.__contains__)


def request_id_of(head: RequestHead) -> bytes | None:
    """Return the client's X-Request-ID if it sent one that can be passed on and logged, else None."""
    value = head.by_name.get(b"x-request-id", b"")
    return value if 0 < len(value) <= _MAX_REQUEST_ID and value.isascii() else None


def trace_id_of(traceparent: bytes) -> str | None:
    """Return the trace id of a traceparent value (W3C Trace Context section 3.2), or None if invalid."""
    match = _TRACEPARENT.fullmatch(traceparent)
    if match is None or (match["version"] == b"00" and match["more"]):
        return None
    return match["trace"].decode("ascii")


def count_max_forwards(head: RequestHead) -> bool:
    """Return whether a request with Max-Forwards may go on, and count this hop (RFC 9110 section 7.6.2).

    Raises ValueError if the value is not a number.
    """
    key = b"max-forwards"
    value = head.by_name[key]
    if not value.isdigit() or len(value) > _MAX_FORWARDS_DIGITS:
        raise ValueError("Max-Forwards must be a number")
    hops = int(value)
    if not hops:
        return False
    head.fields = [
        make_field(field.name, b"%d" % (hops - 1)) if field.key == key else field for field in head.fields
    ]
    return True


def is_preflight(head: RequestHead) -> bool:
    """Return whether a browser asks, on behalf of a page, whether it may make a call (Fetch, section 4.8)."""
    return (
        head.method == b"OPTIONS"
        and b"origin" in head.by_name
        and b"access-control-request-method" in head.by_name
    )


def preflight_fields(head: RequestHead) -> bytes:
    """Return the fields that let the page of a preflight make its call. Its origin has been accepted."""
    by_name = head.by_name
    lines = [
        b"Access-Control-Allow-Origin: %b\r\n" % by_name[b"origin"],
        b"Access-Control-Allow-Methods: %b\r\n" % by_name[b"access-control-request-method"],
    ]
    names = by_name.get(b"access-control-request-headers", b"")
    if _FIELD_NAMES.fullmatch(names):
        lines.append(b"Access-Control-Allow-Headers: %b\r\n" % names)
    if by_name.get(b"access-control-request-private-network") == b"true":
        lines.append(b"Access-Control-Allow-Private-Network: true\r\n")
    lines += (
        b"Access-Control-Max-Age: %d\r\n" % _PREFLIGHT_MAX_AGE,
        b"Vary: Origin, Access-Control-Request-Method, Access-Control-Request-Headers\r\n",
    )
    return b"".join(lines)


def cross_origin_fields(request: RequestHead) -> bytes:
    """Return the fields that let a page read a response, or nothing unless a page sent the request.

    The page's origin has been accepted, so it may read all fields of the response.
    """
    origin = request.by_name.get(b"origin")
    if origin is None:
        return b""
    return b"Access-Control-Allow-Origin: %b\r\nAccess-Control-Expose-Headers: *\r\nVary: Origin\r\n" % origin


class RequestRules:
    """Builds the head that goes to the API. One instance serves all requests."""

    __slots__ = ("_ends", "_forwarded", "_keeps", "_loop_mark", "_rejects", "_start")

    def __init__(
        self, *, authority: bytes, pseudonym: bytes, authorization: ClientAuthorization, forwarded: bool
    ) -> None:
        """Set the API's `authority`, this instance's `pseudonym` in Via, and the operator's choices."""
        self._start = b" HTTP/1.1\r\nHost: %b\r\n" % authority
        # Via, for a request in HTTP/1.0 and in 1.1, and the beginning of the field that ends every head.
        self._ends = tuple(b"Via: 1.%d %b\r\nX-Request-ID: " % (minor, pseudonym) for minor in (0, 1))
        self._loop_mark = pseudonym
        self._keeps = authorization is ClientAuthorization.KEEP
        self._rejects = authorization is ClientAuthorization.REJECT
        self._forwarded = forwarded

    def is_loop(self, head: RequestHead) -> bool:
        """Return whether the request has already passed through this instance."""
        return self._loop_mark in head.by_name.get(b"via", b"")

    def objection(self, head: RequestHead) -> str:
        """Return why the client's own Authorization makes the request unacceptable, or nothing."""
        if b"authorization" not in head.by_name:
            return ""
        if self._rejects:
            return "the proxy accepts no Authorization field from clients (BITS_CLIENT_AUTHORIZATION=reject)"
        # To drop the field would let our token take its place (RFC 9110 section 7.6.1: such fields end here).
        if self._keeps and b"authorization" in head.connection_options:
            return "the Connection field must not name Authorization"
        return ""

    def keeps(self, head: RequestHead) -> bool:
        """Return whether the client's own Authorization goes to the API, so that the proxy adds no token."""
        return self._keeps and b"authorization" in head.by_name

    def rewrite(
        self,
        head: RequestHead,
        authorization_line: bytes,
        request_id: bytes,
        sender: Sender,
    ) -> list[bytes]:
        """Return the head to send, in pieces. The target of `head` is in origin or asterisk form.

        An empty `authorization_line` lets the client's own Authorization pass.
        """
        # One format would cost more than all these pieces.
        lines = [head.method, b" ", head.target, self._start]
        dropped = head.connection_options
        if dropped:
            dropped -= _INERT_OPTIONS
        if authorization_line and b"authorization" in head.by_name:
            dropped |= _AUTHORIZATION
        if dropped:
            lines += [field.onward for field in head.fields if field.key not in dropped]
        else:
            lines += [field.onward for field in head.fields]
        length = head.length
        if length == CHUNKED:
            lines.append(b"Transfer-Encoding: chunked\r\n")
        elif length or b"content-length" in head.by_name:
            lines += (b"Content-Length: ", str(length).encode(), b"\r\n")
        if head.websocket:
            lines.append(_UPGRADE_LINES)
        if self._forwarded:
            lines += _forwarded_lines(head, sender)
        lines += (authorization_line, self._ends[head.minor_version], request_id, b"\r\n\r\n")
        return lines


def _forwarded_lines(head: RequestHead, sender: Sender) -> list[bytes]:
    """Return the fields that tell the API about the client."""
    lines = [b"X-Forwarded-Proto: %b\r\n" % sender.scheme]
    if sender.peer != UNIX_PEER:
        lines.insert(0, b"X-Forwarded-For: %b\r\n" % sender.peer.encode())
    if head.host:
        lines.append(b"X-Forwarded-Host: %b\r\n" % head.host)
    return lines


class ResponseRules:
    """Builds the head that goes to the client. One instance serves all responses."""

    __slots__ = ("_origin",)

    def __init__(self, *, origin: bytes) -> None:
        """Set the API's origin, scheme://host[:port] in lower case, without a default port."""
        self._origin = origin

    def rewrite(
        self,
        head: ResponseHead,
        *,
        chunked: bool,
        connection: bytes,
        request_id: bytes,
        date_line: bytes = b"",
        cross_origin: bytes = b"",
    ) -> list[bytes]:
        """Return the head to send, in pieces.

        `chunked` asks for Transfer-Encoding; `connection` is the value of the Connection field, empty
        for none. The API's own fields have precedence over `request_id`, which is echoed, and over
        `date_line` (RFC 9110 section 6.6.1). `cross_origin` are the fields for the page that sent the
        request.
        """
        fields, by_name = head.fields, head.by_name
        if b"location" in by_name:
            fields = [
                make_field(field.name, self._localise(field.value)) if field.key == b"location" else field
                for field in fields
            ]
        # Connection can't remove the length, which says where the message ends (RFC 9110 section 8.6).
        dropped = head.connection_options
        if dropped:
            dropped -= _INERT_OPTIONS_OR_LENGTH
        if head.status == _NO_CONTENT:
            dropped |= _LENGTH
        lines = [_status_line(head.status, head.reason)]
        if dropped:
            lines += [field.onward for field in fields if field.key not in dropped]
        else:
            lines += [field.onward for field in fields]
        if b"x-request-id" in by_name and b"x-request-id" not in dropped:
            request_id = b""
        if chunked:
            lines.append(b"Transfer-Encoding: chunked\r\n")
        if connection:
            lines.append(b"Connection: %b\r\n" % connection)
        lines.append(cross_origin)
        if b"date" not in by_name or b"date" in dropped:
            lines.append(date_line)
        if request_id:
            lines += (b"X-Request-ID: ", request_id, b"\r\n")
        lines.append(b"\r\n")
        return lines

    def interim(self, head: ResponseHead) -> bytes:
        """Return a 1xx response to pass on (RFC 9110 section 15.2); a 101 switches to WebSocket."""
        lines = [_status_line(head.status, head.reason)]
        if head.status == _SWITCHING_PROTOCOLS:
            lines.append(_UPGRADE_LINES)
        dropped = (head.connection_options - _INERT_OPTIONS) | _LENGTH
        lines += [field.onward for field in head.fields if field.key not in dropped]
        lines.append(b"\r\n")
        return b"".join(lines)

    def _localise(self, location: bytes) -> bytes:
        """Return a reference to the API's origin as path-absolute, so that the client comes back here."""
        if location.startswith(b"//"):
            # A network-path reference has the scheme of the API, not of this proxy (RFC 3986 section 4.2).
            scheme, rest = self._origin.partition(b":")[0], location[2:]
        else:
            scheme, separator, rest = location.partition(b"://")
            if not separator:
                return location
        end = min(
            (i for i in (rest.find(b"/"), rest.find(b"?"), rest.find(b"#")) if i >= 0), default=len(rest)
        )
        if canonical_origin(scheme, rest[:end]) != self._origin:
            return location
        reference = rest[end:]
        if not reference.startswith(b"/"):
            return b"/" + reference
        end = min((i for i in (reference.find(b"?"), reference.find(b"#")) if i >= 0), default=len(reference))
        # Browsers ignore tabs, and take a backslash for a slash (WHATWG URL section 4.4).
        path = reference[:end].replace(b"\t", b"").replace(b"\\", b"%5C")
        # `//x` would be read as an authority (RFC 3986 section 4.2).
        return (b"/." + path if path.startswith(b"//") else path) + reference[end:]


@functools.lru_cache(maxsize=256)
def _status_line(status: int, reason: bytes) -> bytes:
    return b"HTTP/1.1 %d %b\r\n" % (status, reason)


def canonical_origin(scheme: bytes, authority: bytes) -> bytes:
    """Return scheme://host[:port] in lower case without a default port (RFC 6454 section 4)."""
    scheme, authority = scheme.lower(), authority.lower()
    default = b":443" if scheme == b"https" else b":80"
    return b"%b://%b" % (scheme, authority.removesuffix(default))


def own_answer(*, fields: bytes, date_line: bytes, request_id: bytes, keep_alive: bool) -> bytes:
    """Return a 200 without content that the proxy itself sends; `fields` are its lines."""
    return b"".join(
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nProxy-Status: bits-auth-proxy\r\n",
            fields,
            date_line,
            b"X-Request-ID: %b\r\n" % request_id,
            b"\r\n" if keep_alive else b"Connection: close\r\n\r\n",
        )
    )


def forwardable_trailers(trailers: Iterable[Field], connection_options: frozenset[bytes]) -> list[Field]:
    """Return the trailers that may follow a response's content, given the options of its Connection field."""
    nominated = connection_options - _INERT_OPTIONS
    return [field for field in trailers if field.key not in _TRAILERS_DROPPED and field.key not in nominated]
