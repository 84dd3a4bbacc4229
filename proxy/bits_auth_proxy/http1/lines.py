"""Readers for the single lines of a head: the request line, the status line and the field lines.

They are strict. What they accept has one meaning, and they raise MalformedMessage for everything else. The
caches hold the meaning of lines that were accepted.
"""

import re
from collections.abc import Callable
from typing import Final, NamedTuple, final

from bits_auth_proxy.http1.messages import Field, MalformedMessage
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


METHODS: Final = frozenset(
    (b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"CONNECT", b"TRACE")
)
"""The known methods (RFC 9110 section 9, RFC 5789)."""
CONTROL: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
"""A byte that no line may contain, after its CRLF has been removed (RFC 9110 section 5.5)."""

_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_FIELD: Final = re.compile(rb"(" + _TOKEN + rb"):[ \t]*([\t\x20-\x7e\x80-\xff]*)")
# Many clients do not encode the text of a query, and its bytes decide nothing here. Those of a path do.
_REQUEST: Final = re.compile(
    rb"(" + _TOKEN + rb") ([\x21-\x7e]+|[\x21-\x3e\x40-\x7e]*\?[\x21-\x7e\x80-\xff]*) HTTP/([0-9]\.[0-9])"
)
_REQUEST_PARTS: Final = re.compile(rb"(" + _TOKEN + rb") [^ ]+ HTTP/[0-9]\.[0-9]")
_REQUEST_BEGIN: Final = re.compile(_TOKEN + rb"(?: |\Z)")
_STATUS: Final = re.compile(rb"HTTP/1\.([0-9]) ([1-9][0-9]{2})(?: ([\t\x20-\x7e\x80-\xff]*))?")
_STATUS_BEGIN: Final = b"HTTP/1."
_VERSIONS: Final = {b"1.1": 1, b"1.0": 0}
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
    value = value.rstrip(b" \t")
    key = name.lower()
    line = b"%b: %b\r\n" % (name, value)
    return Field(key, name, value, line, b"" if ends is not None and ends(key) else line)


def read_field(line: bytes) -> Field:
    """Return the field of a line without its CRLF. Raises MalformedMessage."""
    match = _FIELD.fullmatch(line)
    if match is None:
        raise _field_fault()
    return make_field(match[1], match[2])


def _field_fault() -> MalformedMessage:
    return MalformedMessage("bad_syntax", "a field line is not valid")


def path_of(target: bytes) -> bytes | None:
    """Return the path, without the query, of an acceptable target in origin form, or None for any other."""
    return target.partition(b"?")[0] if target.startswith(b"/") and b"#" not in target else None


class _Name(NamedTuple):
    """What a field's name says about the field."""

    key: bytes
    ends: bool
    cached: bool


def may_begin_request(line: bytes) -> bool:
    """Return whether a request line may begin with `line`, which is not empty."""
    return _REQUEST_BEGIN.match(line) is not None


def may_begin_response(line: bytes) -> bool:
    """Return whether a status line may begin with `line`, which is not empty."""
    return line.startswith(_STATUS_BEGIN[: len(line)])


@final
class FieldCache(BoundedCache[Field]):
    """Reads the field lines of one direction, according to the policy of the gateway.

    `cache[line]` is the field of a line. Fields that may hold a credential are not kept; what their names
    mean is. Raises MalformedMessage.
    """

    def __init__(self, ends: Callable[[bytes], bool]) -> None:
        """`ends` returns, for a name in lower case, whether fields of that name end at this gateway."""
        super().__init__()
        self._ends: Final = ends
        self._names: Final = ParseCache(self._read_name)

    def _read_name(self, name: bytes) -> _Name:
        key = name.lower()
        return _Name(key, self._ends(key), key in _CACHED)

    def __missing__(self, line: bytes) -> Field:
        # As in `read_field`, without a further call for each line that differs in every message.
        match = _FIELD.fullmatch(line)
        if match is None:
            raise _field_fault()
        name, value = match.groups()
        key, ends, cached = self._names[name]
        value = value.rstrip(b" \t")
        canonical = b"%b: %b\r\n" % (name, value)
        field = Field(key, name, value, canonical, b"" if ends else canonical)
        if cached:
            self.keep(line, field)
        return field


@final
class RequestLineCache(ParseCache[RequestLine]):
    """Request lines without a query. A query may hold a credential, and seldom repeats."""

    def keep(self, line: bytes, value: RequestLine) -> None:  # noqa: D102 - as in BoundedCache
        if b"?" not in line:
            super().keep(line, value)


def _read_request_line(line: bytes) -> RequestLine:
    match = _REQUEST.fullmatch(line)
    if match is None:
        raise _request_line_fault(line)
    method, target, version = match.groups()
    if method not in METHODS:
        raise MalformedMessage("unknown_method", "the method is unknown")
    minor_version = _VERSIONS.get(version)
    if minor_version is None:
        raise MalformedMessage("unknown_version", "only HTTP/1.1 and HTTP/1.0 are supported")
    return RequestLine(method, target, minor_version, path_of(target))


def _request_line_fault(line: bytes) -> MalformedMessage:
    """Return what is wrong with a request line."""
    if CONTROL.search(line):
        return MalformedMessage("bad_syntax", "the request line contains control bytes")
    if not may_begin_request(line):
        return MalformedMessage("bad_syntax", "the method is not a token")
    if not _REQUEST_PARTS.fullmatch(line):
        return MalformedMessage(
            "bad_syntax", "the request line must consist of method, target and HTTP version"
        )
    return MalformedMessage("bad_target", "the target contains bytes that must be percent-encoded")


def _read_status_line(line: bytes) -> StatusLine:
    match = _STATUS.fullmatch(line)
    if match is None:
        raise MalformedMessage("bad_syntax", "the status line is not valid in HTTP/1.1 or HTTP/1.0")
    # A later minor version is read as the latest one that is known (RFC 9110 section 2.5).
    return StatusLine(int(match[2]), match[3] or b"", min(int(match[1]), 1))


REQUEST_LINES: Final = RequestLineCache(_read_request_line)
STATUS_LINES: Final = ParseCache(_read_status_line)
