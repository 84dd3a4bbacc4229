"""The rules of access: request targets, the allow-list, hosts, and web pages in browsers. Pure.

A path is forwarded exactly as it was matched, byte for byte. So a path that the API might read differently
(with dot segments, encoded slashes, empty segments or parameters) is rejected, not normalised.
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
"""Names for this proxy that a client on the same machine may use. A page that rebinds DNS can't send them."""

_READING: Final = frozenset((b"GET", b"HEAD", b"OPTIONS"))
"""Methods that a page may use towards its own origin without an Origin field (Fetch section 3.2)."""
_PRIVATE_DOMAINS: Final = frozenset((b"internal", b"local", b"localhost", b"svc", b"test"))
"""Top-level domains in which nobody can register a name (RFC 6761, RFC 6762; `svc` is that of Kubernetes)."""
_IDEMPOTENT: Final = frozenset((b"GET", b"HEAD", b"PUT", b"DELETE", b"OPTIONS"))
_NOT_FORWARDED: Final = frozenset((b"CONNECT", b"TRACE"))
_ENCODED: Final = re.compile(rb"%(?:[0-9A-Fa-f]{2})?")
_UNRESERVED: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_ALWAYS_PLAIN: Final = _UNRESERVED | frozenset(b"/\\%;")
_OPERATION: Final = re.compile(rb"[A-Za-z][A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]+)*\Z")
_INSIDE_OAUTH2: Final = re.compile(rb"/oauth2(?:\.|%20)*/.", re.IGNORECASE)
"""Some file systems, and servers that use them, ignore dots and spaces at the end of a name."""
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
    """Decides by method and path, and caches a bounded number of decisions."""

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
        # A wildcard that is meant for calls must not open the token endpoint: a rule has to name that.
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
    r"""Return whether another parser could read a path in origin form differently (RFC 3986 section 6).

    This is the case for empty segments (except a trailing slash), dot segments, `;`, backslash, text that is
    not plain, and percent-encoding of unreserved characters, `/`, `\`, `%`, `;` or control bytes.
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

    Raises ValueError for fragments, other schemes, user information and forms that belong to other methods
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
    """Decides which Host a request may have. This keeps out web pages that rebind DNS."""

    __slots__ = ("_accepted", "_allowed", "_upstream", "guards_reads")

    def __init__(self, *, allowed: Iterable[str] | None, upstream: bytes, exposed: bool = False) -> None:
        """Take the allowed names, with or without a port (None allows all), and the API's own authority.

        `exposed` says that other machines reach the listener over TCP.
        """
        self.guards_reads: Final = exposed and allowed is None
        """Whether `is_suspect` counts."""
        self._allowed = None if allowed is None else frozenset(name.lower().encode() for name in allowed)
        self._upstream = upstream.lower()
        self._accepted: bytes | None = None

    def accepts(self, host: bytes | None) -> bool:
        """Return whether the value of a Host field is allowed. A missing Host (HTTP/1.0) is."""
        if self._allowed is None or host is None or host == self._accepted:
            return True
        lowered = host.lower()
        if lowered not in self._allowed and _without_port(lowered) not in self._allowed:
            return False
        # Clients send the same Host with every request.
        self._accepted = host
        return True

    def is_suspect(self, method: bytes, host: bytes | None) -> bool:
        """Return whether a request may come from a page that rebinds DNS, and that could read the response.

        A page has a name that somebody has registered. If it does not merely read, it says where it comes
        from, and `SiteRule` rejects it.
        """
        if method not in _READING or host is None:
            return False
        host = host.lower()
        name, _, domain = _without_port(host).rstrip(b".").rpartition(b".")
        return not (
            not name
            or host.startswith(b"[")
            or domain.isdigit()
            or domain in _PRIVATE_DOMAINS
            or host == self._upstream
        )

    def accepts_authority(self, authority: bytes) -> bool:
        """Return whether the authority of an absolute-form target is allowed."""
        if authority.lower() == self._upstream:
            return True
        return self._allowed is not None and self.accepts(authority)


class SiteRule:
    """Decides which web pages may call: by default none, because the proxy has the operator's credentials."""

    __slots__ = ("_origins",)

    def __init__(self, *, allowed_origins: Iterable[str]) -> None:
        """Take origins, scheme://host[:port]."""
        self._origins = frozenset(
            canonical_origin(scheme.encode(), authority.encode())
            for scheme, _, authority in (origin.partition("://") for origin in allowed_origins)
        )

    def accepts(self, head: RequestHead) -> bool:
        """Return whether a request is allowed, by its Origin and Sec-Fetch-Site."""
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
    """Return whether the text that `path` encodes is UTF-8, visible, and not another spelling of ASCII.

    Overlong forms, full-width letters and zero-width spaces are not plain: a parser that is lenient or
    normalises (NFKC) sees a different text than others do.
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
    """Return whether credentials are handled at the path (anything below `oauth2`, except userinfo)."""
    return bool(_INSIDE_OAUTH2.search(path)) and not (method == b"GET" and path == b"/oauth2/userinfo")
