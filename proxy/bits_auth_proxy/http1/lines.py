"""Readers for single lines of a head, if these are plain.

Plain lines are a strict subset of what RFC 9112 allows and llhttp accepts: printable lines with the usual
methods and versions. For all other lines, the readers return None, and llhttp judges the whole head.
"""

import re
from collections.abc import Callable
from typing import Final, NamedTuple, final

from bits_auth_proxy.http1.messages import Field
from bits_auth_proxy.http1.parse_cache import BoundedCache, ParseCache


class RequestLine(NamedTuple):
    """A request line (RFC 9112 section 3). `path` is as in `RequestHead`."""

    method: bytes
    target: bytes
    minor_version: int
    path: bytes | None


class StatusLine(NamedTuple):
    """A status line (RFC 9112 section 4)."""

    status: int
    reason: bytes
    minor_version: int


_FIELD: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t\x20-\x7e\x80-\xff]*)")
_REQUEST: Final = re.compile(
    rb"(GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS) (/[A-Za-z0-9._~!$&'()*+,;=:@/?%-]*) HTTP/1\.([01])"
)
_STATUS: Final = re.compile(rb"HTTP/1\.([01]) ([2-9][0-9]{2}) ([\t\x20-\x7e\x80-\xff]*)")
_CACHED: Final = frozenset(
    (
        b"accept",
        b"accept-encoding",
        b"accept-language",
        b"accept-ranges",
        b"access-control-allow-origin",
        b"access-control-expose-headers",
        b"alt-svc",
        b"cache-control",
        b"cf-cache-status",
        b"connection",
        b"content-encoding",
        b"content-length",
        b"content-security-policy",
        b"content-type",
        b"cross-origin-opener-policy",
        b"cross-origin-resource-policy",
        b"expect",
        b"host",
        b"keep-alive",
        b"nel",
        b"permissions-policy",
        b"pragma",
        b"priority",
        b"ratelimit-limit",
        b"ratelimit-policy",
        b"referrer-policy",
        b"report-to",
        b"sec-fetch-dest",
        b"sec-fetch-mode",
        b"sec-fetch-site",
        b"server",
        b"strict-transport-security",
        b"te",
        b"transfer-encoding",
        b"upgrade",
        b"user-agent",
        b"vary",
        b"via",
        b"x-content-type-options",
        b"x-frame-options",
        b"x-powered-by",
        b"x-ratelimit-limit",
        b"x-robots-tag",
        b"x-xss-protection",
    )
)
"""Fields that say nothing about who sent them, and repeat. Any other field may hold a credential."""


def make_field(name: bytes, value: bytes, ends: Callable[[bytes], bool] | None = None) -> Field:
    """Return the field of a name as received and a value, which may have trailing whitespace.

    `ends` returns, for a name in lower case, whether the field ends at this gateway. Without it, all fields
    are forwarded.
    """
    # llhttp does not remove trailing whitespace (RFC 9112 section 5.1).
    value = value.rstrip(b" \t")
    key = name.lower()
    line = b"%b: %b\r\n" % (name, value)
    return Field(key, name, value, line, b"" if ends is not None and ends(key) else line)


def path_of(target: bytes) -> bytes | None:
    """Return the path, without the query, of an acceptable target in origin form, or None for any other."""
    return target.partition(b"?")[0] if target.startswith(b"/") and b"#" not in target else None


class _Name(NamedTuple):
    """What a field's name says about the field."""

    key: bytes
    ends: bool
    cached: bool


@final
class FieldCache(BoundedCache[Field | None]):
    """Reads the field lines of one direction, according to the policy of the gateway.

    `cache[line]` is the field of a plain line, and None for all other lines. Fields that may hold a
    credential are not kept; what their names mean is.
    """

    def __init__(self, ends: Callable[[bytes], bool]) -> None:
        """`ends` returns, for a name in lower case, whether fields of that name end at this gateway."""
        super().__init__()
        self._ends: Final = ends
        self._names: Final = ParseCache(self._read_name)

    def make(self, name: bytes, value: bytes) -> Field:
        """Return the field of a name and a value that another parser has read."""
        return make_field(name, value, self._ends)

    def _read_name(self, name: bytes) -> _Name:
        key = name.lower()
        return _Name(key, self._ends(key), key in _CACHED)

    def __missing__(self, line: bytes) -> Field | None:
        match = _FIELD.fullmatch(line)
        if match is None:
            return None
        name, value = match.groups()
        key, ends, cached = self._names[name]
        value = value.rstrip(b" \t")
        canonical = b"%b: %b\r\n" % (name, value)
        field = Field(key, name, value, canonical, b"" if ends else canonical)
        if cached:
            self.keep(line, field)
        return field


@final
class RequestLineCache(ParseCache[RequestLine | None]):
    """Request lines without a query. A query may hold a credential, and seldom repeats."""

    def keep(self, line: bytes, value: RequestLine | None) -> None:  # noqa: D102 - as in BoundedCache
        if b"?" not in line:
            super().keep(line, value)


def _read_request_line(line: bytes) -> RequestLine | None:
    match = _REQUEST.fullmatch(line)
    if match is None:
        return None
    method, target, minor_version = match.groups()
    return RequestLine(method, target, int(minor_version), path_of(target))


def _read_status_line(line: bytes) -> StatusLine | None:
    match = _STATUS.fullmatch(line)
    return None if match is None else StatusLine(int(match[2]), match[3], int(match[1]))


REQUEST_LINES: Final = RequestLineCache(_read_request_line)
STATUS_LINES: Final = ParseCache(_read_status_line)
