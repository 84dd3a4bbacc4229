"""The lines of a head, one by one, in their plain form.

What is read here is a strict part of what RFC 9112 allows and llhttp accepts: printable lines that name what
is usual. Whoever gets None for a line lets llhttp judge the whole head.
"""

import re
from typing import Final, TypeAlias

from bits_auth_proxy.http1.hops import ends_with_request, ends_with_response
from bits_auth_proxy.http1.messages import Field
from bits_auth_proxy.http1.parse_cache import ParseCache

RequestLine: TypeAlias = tuple[bytes, bytes, int, bytes | None]
"""Method, target, minor version, and the path (see `path_of`)."""
StatusLine: TypeAlias = tuple[int, bytes, int]
"""Status, reason, minor version."""

_FIELD: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t\x20-\x7e\x80-\xff]*)")
_REQUEST: Final = re.compile(
    rb"(GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS) (/[A-Za-z0-9._~!$&'()*+,;=:@/?%-]*) HTTP/1\.([01])"
)
_STATUS: Final = re.compile(rb"HTTP/1\.([01]) ([2-9][0-9]{2}) ([\t\x20-\x7e\x80-\xff]*)")
_OF_ONE_MESSAGE: Final = frozenset(
    (
        b"authorization",
        b"cookie",
        b"proxy-authorization",
        b"set-cookie",
        b"traceparent",
        b"tracestate",
        b"x-request-id",
    )
)
"""Secrets, and what differs in every message."""


def make_field(name: bytes, value: bytes) -> Field:
    """Return the field of a name as received and a value, whose trailing whitespace is no part of it."""
    # llhttp leaves it there (RFC 9112 section 5.1).
    value = value.rstrip(b" \t")
    key = name.lower()
    line = b"%b: %b\r\n" % (name, value)
    return (
        key,
        name,
        value,
        line,
        b"" if ends_with_request(key) else line,
        b"" if ends_with_response(key) else line,
    )


def path_of(target: bytes) -> bytes | None:
    """Return the path, without the query, of a good target in origin form; None for all others."""
    return target.partition(b"?")[0] if target.startswith(b"/") and b"#" not in target else None


def _read_field(line: bytes) -> Field | None:
    match = _FIELD.fullmatch(line)
    return None if match is None else make_field(match[1], match[2])


def _read_request_line(line: bytes) -> RequestLine | None:
    match = _REQUEST.fullmatch(line)
    if match is None:
        return None
    method, target, minor_version = match.groups()
    return method, target, int(minor_version), path_of(target)


def _read_status_line(line: bytes) -> StatusLine | None:
    match = _STATUS.fullmatch(line)
    return None if match is None else (int(match[2]), match[3], int(match[1]))


FIELDS: Final = ParseCache(_read_field, keep=lambda field: field[0] not in _OF_ONE_MESSAGE)
REQUEST_LINES: Final = ParseCache(_read_request_line)
STATUS_LINES: Final = ParseCache(_read_status_line)
