"""Who may call what: request targets, the allow-list, hosts, and pages in browsers. Pure.

What is matched is what is forwarded, byte for byte. So a path that the API might read differently than
it is matched here (dot segments, encoded slashes, empty segments, parameters) is rejected, not normalised.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Final, final
from urllib.parse import unquote_to_bytes

from bits_auth_proxy.forward import problems
from bits_auth_proxy.forward.headers import canonical_origin
from bits_auth_proxy.forward.problems import Problem
from bits_auth_proxy.http1.messages import RequestHead

LOOPBACK_HOSTS: Final = frozenset((b"localhost", b"127.0.0.1", b"[::1]"))
"""What a client on the same machine may call this proxy; a page that rebinds DNS can't send these."""

_IDEMPOTENT: Final = frozenset((b"GET", b"HEAD", b"PUT", b"DELETE", b"OPTIONS"))
_NOT_FORWARDED: Final = frozenset((b"CONNECT", b"TRACE"))
_ENCODED: Final = re.compile(rb"%(?:[0-9A-Fa-f]{2})?")
_UNRESERVED: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_ALWAYS_PLAIN: Final = _UNRESERVED | frozenset(b"/\\%;")
_OPERATION: Final = re.compile(rb"[A-Za-z][A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]+)*\Z")
_INSIDE_OAUTH2: Final = re.compile(rb"/oauth2(?:\.|%20)*/.", re.IGNORECASE)
"""Some file systems, and servers on them, take no notice of dots and spaces at the end of a name."""
_OTHER: Final = "other"
_CACHE_SIZE: Final = 1024


@final
class Decision:
    """The decision on a request: a rejection with its detail, or the operation and its repeatability."""

    __slots__ = ("detail", "operation", "rejection", "repeatable")

    def __init__(
        self,
        rejection: Problem | None,
        operation: str = _OTHER,
        *,
        repeatable: bool = False,
        detail: str | None = None,
    ) -> None:
        self.rejection: Final = rejection
        self.operation: Final = operation
        self.repeatable: Final = repeatable
        self.detail: Final = detail


class AccessRules:
    """Decides on method and path. Decisions are remembered, a bounded number of them."""

    __slots__ = ("_allow", "_cache", "_safe")

    def __init__(self, *, allow: Sequence[str], safe_operations: Sequence[str]) -> None:
        """Take `allow`, "METHOD /path" with `*` for any text (empty: everything), and operation patterns."""
        self._allow = [
            (method.encode(), _pattern(path), "oauth2" in path.lower())
            for method, _, path in (rule.partition(" ") for rule in allow)
        ]
        self._safe = [_pattern(name) for name in safe_operations]
        self._cache: dict[tuple[bytes, bytes], Decision] = {}

    def decide(self, method: bytes, path: bytes) -> Decision:
        """Return the decision on `path`, the target in origin form without its query, or `*`."""
        key = (method, path)
        decision = self._cache.get(key)
        if decision is None:
            decision = self._decide(method, path)
            if len(self._cache) >= _CACHE_SIZE:
                self._cache.clear()
            self._cache[key] = decision
        return decision

    def _decide(self, method: bytes, path: bytes) -> Decision:
        if method in _NOT_FORWARDED:
            return Decision(problems.METHOD_NOT_ALLOWED)
        if path == b"*":
            return Decision(None if method == b"OPTIONS" else problems.BAD_TARGET, repeatable=True)
        if is_ambiguous(path):
            return Decision(problems.AMBIGUOUS_PATH)
        name = path.rpartition(b"/")[2]
        # A wildcard made for the API's calls must not open the token endpoint: that takes its name.
        sensitive = _is_token_endpoint(method, path)
        allowed = any(
            verb in (method, b"*") and pattern.fullmatch(path) and (names_oauth2 or not sensitive)
            for verb, pattern, names_oauth2 in self._allow
        )
        if not allowed and (self._allow or sensitive):
            return Decision(problems.NOT_ALLOWED)
        return Decision(
            None,
            name.decode("ascii") if _OPERATION.match(name) else _OTHER,
            repeatable=method in _IDEMPOTENT or any(pattern.fullmatch(name) for pattern in self._safe),
        )


def is_ambiguous(path: bytes) -> bool:
    r"""Tell whether a path in origin form could mean another one to the next reader (RFC 3986 section 6).

    So it is with empty segments (but for a trailing slash), dot segments, `;`, backslash, percent-encoding
    of unreserved characters, `/`, `\`, `%`, `;` or control bytes, and with text that is not plain.
    """
    if not path.startswith(b"/") or b";" in path or b"\\" in path or b"//" in path:
        return True
    for match in _ENCODED.finditer(path):
        digits = match[0][1:]
        if not digits:
            return True
        byte = int(digits, 16)
        if byte < 0x20 or byte == 0x7F or byte in _ALWAYS_PLAIN:  # noqa: PLR2004 - control bytes
            return True
    return any(segment in (b".", b"..") for segment in path.split(b"/")) or not _is_plain_text(path)


def split_target(head: RequestHead) -> tuple[bytes | None, bytes]:
    """Return the authority (absolute-form only) and the target in origin or asterisk form.

    Raises ValueError for fragments, other schemes, user information and forms of other methods
    (RFC 9112 section 3.2).
    """
    target = head.target
    if b"#" in target:
        raise ValueError("the request target must not have a fragment")
    if target.startswith(b"/") or target == b"*" or head.method in _NOT_FORWARDED:
        return None, target
    scheme, separator, rest = target.partition(b"://")
    if not separator or scheme.lower() not in (b"http", b"https"):
        raise ValueError("the request target is neither a path nor an http URL")
    end = min((i for i in (rest.find(b"/"), rest.find(b"?")) if i >= 0), default=len(rest))
    authority, path = rest[:end], rest[end:]
    if not authority or b"@" in authority:
        raise ValueError("the authority of the request target must be a host with an optional port")
    if head.method == b"OPTIONS" and not path:
        return authority, b"*"
    return authority, path if path.startswith(b"/") else b"/" + path


class HostRule:
    """Which Host a request may carry. Keeps pages that rebind DNS away from the proxy."""

    __slots__ = ("_accepted", "_allowed", "_upstream")

    def __init__(self, *, allowed: Iterable[str] | None, upstream: bytes) -> None:
        """Take names with or without a port (None: any), and the API's own authority."""
        self._allowed = None if allowed is None else frozenset(name.lower().encode() for name in allowed)
        self._upstream = upstream.lower()
        self._accepted: bytes | None = None

    def accepts(self, host: bytes | None) -> bool:
        """Tell whether a Host field's value may pass; a missing one (HTTP/1.0) may."""
        if self._allowed is None or host is None or host == self._accepted:
            return True
        lowered = host.lower()
        if lowered not in self._allowed and _without_port(lowered) not in self._allowed:
            return False
        # A client sends the same one with every request.
        self._accepted = host
        return True

    def accepts_authority(self, authority: bytes) -> bool:
        """Tell whether the authority of an absolute-form target may pass."""
        if authority.lower() == self._upstream:
            return True
        return self._allowed is not None and self.accepts(authority)


class SiteRule:
    """Which web pages may call. By default none, as the proxy lends out the operator's credentials."""

    __slots__ = ("_origins",)

    def __init__(self, *, allowed_origins: Iterable[str]) -> None:
        """Take origins, scheme://host[:port]."""
        self._origins = frozenset(
            canonical_origin(scheme.encode(), authority.encode())
            for scheme, _, authority in (origin.partition("://") for origin in allowed_origins)
        )

    def accepts(self, head: RequestHead) -> bool:
        """Tell whether a request may pass, by its Origin and Sec-Fetch-Site."""
        origin = head.by_name.get(b"origin")
        if origin is not None:
            scheme, _, authority = origin.partition(b"://")
            return canonical_origin(scheme, authority) in self._origins
        site = head.by_name.get(b"sec-fetch-site")
        return site is None or site.lower() not in (b"cross-site", b"same-site")


def _without_port(host: bytes) -> bytes:
    name, separator, port = host.rpartition(b":")
    return name if separator and (port.isdigit() or not port) else host


def _pattern(text: str) -> re.Pattern[bytes]:
    return re.compile(b".*".join(re.escape(part.encode()) for part in text.split("*")), re.DOTALL)


def _is_plain_text(path: bytes) -> bool:
    """Tell whether what `path` encodes is UTF-8, visible, and not another spelling of ASCII.

    Overlong forms, full-width letters and zero-width spaces are none of that: a reader that is lenient, or
    normalises (NFKC), sees other text than the rest.
    """
    if b"%" not in path:
        return True
    try:
        text = unquote_to_bytes(path).decode()
    except UnicodeDecodeError:
        return False
    return text.isprintable() and not any(
        not character.isascii() and any(map(str.isascii, unicodedata.normalize("NFKC", character)))
        for character in text
    )


def _is_token_endpoint(method: bytes, path: bytes) -> bool:
    """Tell whether the path leads to where credentials are handled (any `oauth2` with something behind)."""
    return bool(_INSIDE_OAUTH2.search(path)) and not (method == b"GET" and path == b"/oauth2/userinfo")
