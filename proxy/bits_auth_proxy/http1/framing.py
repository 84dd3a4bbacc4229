"""Framing: what the fields of a head say about the message itself (RFC 9112 sections 6 and 9).

Pure functions from fields to the attributes of a head. A message whose framing two parsers could read
differently is an error and is never repaired, because request smuggling depends on such repairs.
"""

import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Final, NamedTuple

from bits_auth_proxy.http1.messages import (
    CHUNKED,
    NO_BODY,
    Field,
    MalformedMessage,
    RequestHead,
    ResponseHead,
)
from bits_auth_proxy.http1.parse_cache import ParseCache

RESPONSE_SINGLES: Final = {b"transfer-encoding": "bad_framing"}
REQUEST_SINGLES: Final = RESPONSE_SINGLES | {
    b"authorization": "bad_field",
    b"content-length": "bad_framing",
    b"expect": "unknown_expectation",
    b"host": "bad_host",
    b"origin": "bad_field",
    b"sec-fetch-site": "bad_field",
}
"""Fields that must not be repeated, with the reason to report.

RFC 9112 defines Transfer-Encoding as a list, but only a single coding is accepted here. In a response, equal
lengths may be repeated, because they have one meaning (RFC 9110 section 8.6).
"""

# uri-host [ ":" port ] (RFC 9110 section 7.2): a registered name, an IPv4 or a bracketed IPv6 address;
# the port may be empty (RFC 3986 section 3.2.3).
_HOST: Final = re.compile(rb"(?:[A-Za-z0-9._~!$&'()*+,;=-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?\Z")
_HOSTS: Final = ParseCache(lambda host: _HOST.match(host) is not None)
_KEEP_ALIVE_TIMEOUT: Final = re.compile(rb"(?:\A|[,;\s])timeout\s*=\s*\"?([0-9]{1,9})", re.IGNORECASE)
_MAX_LENGTH_DIGITS: Final = 18
_SWITCHING_PROTOCOLS: Final = int(HTTPStatus.SWITCHING_PROTOCOLS)
_OK: Final = int(HTTPStatus.OK)
_BODILESS: Final = frozenset((int(HTTPStatus.NO_CONTENT), int(HTTPStatus.NOT_MODIFIED)))


class _Connection(NamedTuple):
    """The value of a Connection field."""

    options: frozenset[bytes]
    upgrade: bool
    persistent: tuple[bool, bool]
    """Whether the connection persists, by the minor version of the sender's HTTP (RFC 9112 section 9.3)."""


def apply_request_framing(head: RequestHead) -> None:
    """Set the attributes of `head` that follow from its fields.

    Raises MalformedMessage unless the Host is valid or empty, and the length is given either by one
    Content-Length, a plain number, or by the transfer coding `chunked` alone, or not at all (RFC 9112
    sections 3.2, 6.1, 6.3). Only HTTP/1.0 may omit Host.
    """
    by_name = head.by_name
    host = by_name.get(b"host")
    if host is not None:
        if not _HOSTS[host] and host:
            raise MalformedMessage("bad_host", "the Host field is not a valid host and port")
        head.host = host
    elif head.minor_version == 1:
        raise MalformedMessage("bad_host", "the Host field is missing")
    length = by_name.get(b"content-length")
    if length is not None:
        head.length = _LENGTHS[length]
    if b"transfer-encoding" in by_name:
        _check_chunked(head, length)
        head.length = CHUNKED
    connection = by_name.get(b"connection")
    if connection is not None:
        head.connection_options, upgrade, persistent = _CONNECTIONS[connection]
        head.keep_alive = persistent[head.minor_version]
        head.websocket = (
            upgrade
            and by_name.get(b"upgrade", b"").lower() == b"websocket"
            and head.method == b"GET"
            and head.minor_version == 1
            and head.length == NO_BODY
        )
    if b"expect" in by_name:
        if by_name[b"expect"].lower() != b"100-continue":
            raise MalformedMessage("unknown_expectation", "the only supported expectation is 100-continue")
        # An HTTP/1.0 client can't read an interim response (RFC 9110 section 10.1.1).
        head.expects_continue = head.minor_version == 1


def is_authority(text: bytes) -> bool:
    """Return whether `text` is a host with an optional port."""
    return _HOSTS[text]


def joined(fields: Iterable[Field], singles: Mapping[bytes, str]) -> dict[bytes, bytes]:
    """Return lower-case name → value, with the lines of a list field joined (RFC 9110 section 5.3).

    Raises MalformedMessage if one of `singles` is repeated.
    """
    values: dict[bytes, bytes] = {}
    for field in fields:
        key = field.key
        if key not in values:
            values[key] = field.value
        elif key in singles:
            raise MalformedMessage(
                singles[key], f"there is more than one {field.name.decode('latin-1')} field"
            )
        else:
            values[key] += b", " + field.value
    return values


def apply_response_framing(head: ResponseHead) -> None:
    """Set the attributes of `head` that follow from its fields.

    Raises MalformedMessage if the length of the body could be read in two ways, and for a 101 without Upgrade
    (RFC 9110 section 15.2.2).
    """
    by_name = head.by_name
    length = by_name.get(b"content-length")
    if length is not None:
        if b"," in length:
            length = _merge_lengths(head)
        head.length = _LENGTHS[length]
    if b"transfer-encoding" in by_name:
        _check_chunked(head, length)
        head.length = CHUNKED
    upgrade = False
    connection = by_name.get(b"connection")
    if connection is not None:
        head.connection_options, upgrade, persistent = _CONNECTIONS[connection]
        head.keep_alive = persistent[head.minor_version]
    if head.status == _SWITCHING_PROTOCOLS and not (b"upgrade" in by_name and upgrade):
        raise MalformedMessage("bad_syntax", "the 101 response does not name the new protocol")
    if head.status < _OK or head.status in _BODILESS:
        head.length = NO_BODY
    if b"keep-alive" in by_name and (match := _KEEP_ALIVE_TIMEOUT.search(by_name[b"keep-alive"])):
        head.keep_alive_timeout = int(match[1])


def _merge_lengths(head: ResponseHead) -> bytes:
    """Leave one Content-Length of several equal ones, on lines of their own or in a list, and return it.

    This follows RFC 9110 section 8.6. nginx 1.22 and Go accept equal fields too.
    """
    key = b"content-length"
    values = {value.strip(b" \t") for value in head.by_name[key].split(b",")}
    if len(values) > 1:
        raise MalformedMessage("bad_framing", "there are different Content-Length fields")
    length = values.pop()
    place = next(i for i, field in enumerate(head.fields) if field.key == key)
    first = head.fields[place]
    line = b"%b: %b\r\n" % (first.name, length)
    head.fields = [field for field in head.fields if field.key != key]
    head.fields.insert(place, Field(key, first.name, length, line, line if first.onward else b""))
    head.by_name[key] = length
    return length


def _check_chunked(head: RequestHead | ResponseHead, length: bytes | None) -> None:
    """Accept a Transfer-Encoding that is `chunked`, in HTTP/1.1, without a Content-Length."""
    if length is not None:
        raise MalformedMessage("bad_framing", "both Content-Length and Transfer-Encoding are present")
    if head.by_name[b"transfer-encoding"].lower() != b"chunked":
        raise MalformedMessage("bad_framing", "the Transfer-Encoding is not chunked")
    if head.minor_version == 0:
        raise MalformedMessage("bad_framing", "HTTP/1.0 does not allow Transfer-Encoding")


def _read_length(value: bytes) -> int:
    if not value.isdigit() or len(value) > _MAX_LENGTH_DIGITS:
        raise MalformedMessage("bad_framing", "Content-Length is not a plain number")
    return int(value)


def _read_connection(value: bytes) -> _Connection:
    options = frozenset(token for part in value.lower().split(b",") if (token := part.strip(b" \t")))
    closes = b"close" in options
    return _Connection(options, b"upgrade" in options, (not closes and b"keep-alive" in options, not closes))


_CONNECTIONS: Final = ParseCache(_read_connection)
_LENGTHS: Final = ParseCache(_read_length)
