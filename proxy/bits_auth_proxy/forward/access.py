"""The rules of access: request targets, the allow-list, hosts, and web pages in browsers. Pure.

A path is forwarded exactly as it was matched, byte for byte. So a path that the API might read differently
(with dot segments, encoded slashes, empty segments or parameters) is rejected, not normalised. The operator
may allow percent-encoding that is not necessary. Then the rules apply to each way in which the API might read
the path.
"""

import ipaddress
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Final, final
from urllib.parse import unquote_to_bytes

from bits_auth_proxy.forward import problems
from bits_auth_proxy.forward.headers import canonical_origin
from bits_auth_proxy.forward.problems import Problem
from bits_auth_proxy.http1.framing import is_authority
from bits_auth_proxy.http1.messages import RequestHead

LOOPBACK_HOSTS: Final = frozenset((b"localhost", b"127.0.0.1", b"[::1]"))
"""Names for this proxy that a client on the same machine may use. A page that rebinds DNS can't send them."""

_READING: Final = frozenset((b"GET", b"HEAD", b"OPTIONS"))
"""Methods that a page may use towards its own origin without an Origin field (Fetch section 3.2)."""
_PRIVATE_DOMAINS: Final = frozenset((b"internal", b"local", b"localhost", b"svc", b"test"))
"""Top-level domains in which nobody can register a name (RFC 6761, RFC 6762; `svc` is that of Kubernetes)."""
_IDEMPOTENT: Final = frozenset((b"GET", b"HEAD", b"PUT", b"DELETE", b"OPTIONS"))
_NOT_FORWARDED: Final = frozenset((b"CONNECT", b"TRACE"))
_DEFAULT_PORTS: Final = {b"http": b":80", b"https": b":443"}
_ENCODED: Final = re.compile(rb"%(?:[0-9A-Fa-f]{2})?")
_ENCODED_BYTE: Final = re.compile(rb"%[0-9A-Fa-f]{2}")
_UNRESERVED: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_ALWAYS_PLAIN: Final = _UNRESERVED | frozenset(b"/\\%;")
_OPERATION: Final = re.compile(rb"[A-Za-z][A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]+)*\Z")
_INSIDE_OAUTH2: Final = re.compile(rb"/oauth2(?:\.|%20| )*/.", re.IGNORECASE)
"""Some file systems, and servers that use them, ignore dots and spaces at the end of a name."""
_OVERLONG: Final = re.compile(
    rb"[\xc0\xc1][\x80-\xbf]|\xe0[\x80-\x9f]|\xf0[\x80-\x8f]|\xf8[\x80-\x87]|\xfc[\x80-\x83]"
)
"""UTF-8 that is longer than it need be. Lenient decoders take it for ASCII (RFC 3629 section 10)."""
_CONTROL: Final = re.compile(rb"[\x00-\x1f\x7f]")
_SEPARATOR: Final = re.compile(rb"[/\\]")
_IGNORED_AT_END: Final = b". "
_MAX_DECODINGS: Final = 4
_OTHER: Final = "other"
_CACHE_SIZE: Final = 1024


@final
class Decision:
    """The decision on a request: forward it, reject it, or answer it here.

    Without a rejection and without an `answer`, it is forwarded, and the operation and its repeatability are
    known. `answer` holds the fields of a 200 without content.
    """

    __slots__ = ("answer", "detail", "forwards", "operation", "rejection", "repeatable")

    def __init__(
        self,
        rejection: Problem | None,
        operation: str = _OTHER,
        *,
        repeatable: bool = False,
        detail: str | None = None,
        answer: bytes | None = None,
    ) -> None:
        self.rejection: Final = rejection
        self.operation: Final = operation
        self.repeatable: Final = repeatable
        self.detail: Final = detail
        self.answer: Final = answer
        self.forwards: Final = rejection is None and answer is None


class Pattern:
    """Text in which `*` stands for any text. It is matched in linear time."""

    __slots__ = ("_first", "_last", "_middle")

    def __init__(self, text: str) -> None:
        first, *rest = (part.encode() for part in text.split("*"))
        self._first: Final = first
        self._middle: Final = rest[:-1]
        self._last: Final = rest[-1] if rest else None

    def matches(self, text: bytes) -> bool:
        """Return whether the whole of `text` matches."""
        if self._last is None:
            return text == self._first
        position, end = len(self._first), len(text) - len(self._last)
        if position > end or not text.startswith(self._first) or not text.endswith(self._last):
            return False
        for part in self._middle:
            found = text.find(part, position, end)
            if found < 0:
                return False
            position = found + len(part)
        return True


class AccessRules:
    """Decides by method and path, and caches a bounded number of decisions."""

    __slots__ = ("_allow", "_cache", "_encoded_paths", "_safe", "_token_path")

    def __init__(
        self,
        *,
        allow: Sequence[str],
        safe_operations: Sequence[str],
        token_path: str | None = None,
        encoded_paths: bool = False,
    ) -> None:
        """Take `allow`, "METHOD /path" with `*` for any text (empty: everything), and operation patterns.

        `token_path` is the path of the token endpoint, if that is at the API. `encoded_paths` says whether
        percent-encoding may be used where it is not necessary.
        """
        self._allow = [
            (method.encode(), Pattern(path), "oauth2" in path.lower())
            for method, _, path in (rule.partition(" ") for rule in allow)
        ]
        self._safe = [Pattern(name) for name in safe_operations]
        self._token_path = None if token_path is None else _segments(token_path.encode())
        self._encoded_paths = encoded_paths
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
            if method != b"OPTIONS":
                return Decision(problems.BAD_TARGET)
            allowed = not self._allow or self._lists(method, path, sensitive=False)
            return Decision(None if allowed else problems.NOT_ALLOWED, repeatable=True)
        readings = [path]
        if is_ambiguous(path):
            readings = readings_of(path) if self._encoded_paths else []
            if not readings:
                return Decision(problems.AMBIGUOUS_PATH)
        if not all(self._allows(method, reading) for reading in readings):
            return Decision(problems.NOT_ALLOWED)
        name = path.rpartition(b"/")[2]
        return Decision(
            None,
            name.decode("ascii") if _OPERATION.match(name) else _OTHER,
            repeatable=method in _IDEMPOTENT or all(map(self._is_safe, readings)),
        )

    def _allows(self, method: bytes, path: bytes) -> bool:
        if self._token_path is not None and _is_at_or_below(_segments(path), self._token_path):
            return False
        # A wildcard that is meant for calls must not open the token endpoint: a rule has to name that.
        sensitive = _is_token_endpoint(method, path)
        if not self._allow:
            return not sensitive
        return self._lists(method, path, sensitive=sensitive)

    def _lists(self, method: bytes, path: bytes, *, sensitive: bool) -> bool:
        return any(
            verb in (method, b"*") and (names_oauth2 or not sensitive) and pattern.matches(path)
            for verb, pattern, names_oauth2 in self._allow
        )

    def _is_safe(self, path: bytes) -> bool:
        name = path.rpartition(b"/")[2]
        return any(pattern.matches(name) for pattern in self._safe)


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


def readings_of(path: bytes) -> list[bytes]:
    """Return all ways in which a server might read an ambiguous path, or none if it must not be forwarded.

    Only percent-encoding may make the path ambiguous, and none of the readings may have control bytes, empty
    segments or dot segments. A server may decode more than once, as UTF-8 or as Latin-1, drop what is not
    visible, normalise, and take a backslash for a slash or `;` for the beginning of parameters.
    """
    if not path.startswith(b"/") or b";" in path or b"\\" in path or b"%" in _ENCODED_BYTE.sub(b"", path):
        return []
    decoded = path
    readings: list[bytes] = []
    while decoded not in readings:
        if len(readings) > _MAX_DECODINGS:
            return []
        readings.append(decoded)
        decoded = unquote_to_bytes(decoded)
    folded = [_folded(decoded.decode("utf-8", "surrogateescape")), _folded(decoded.decode("latin-1"))]
    if _CONTROL.search(decoded) or _OVERLONG.search(decoded) or folded != list(map(unquote_to_bytes, folded)):
        return []
    readings += folded
    for reading in list(readings):
        segments = [segment.partition(b";")[0] for segment in _SEPARATOR.split(reading)]
        if b"" in segments[1:-1] or any(part and not part.strip(_IGNORED_AT_END) for part in segments):
            return []
        readings.append(b"/".join(segments))
    return readings


def split_target(head: RequestHead) -> tuple[bytes | None, bytes]:
    """Return the authority (absolute-form only) and the target in origin or asterisk form.

    The authority has no port if that is the default one. Raises ValueError for fragments, other schemes, user
    information and forms that belong to other methods (RFC 9112 section 3.2).
    """
    target = head.target
    if b"#" in target:
        raise ValueError("the request target must not have a fragment")
    if target.startswith(b"/") or target == b"*" or head.method in _NOT_FORWARDED:
        return None, target
    scheme, separator, rest = target.partition(b"://")
    default_port = _DEFAULT_PORTS.get(scheme.lower())
    if not separator or default_port is None:
        raise ValueError("the request target is neither a path nor an http URL")
    end = min((i for i in (rest.find(b"/"), rest.find(b"?")) if i >= 0), default=len(rest))
    authority, path = rest[:end].removesuffix(default_port), rest[end:]
    if not is_authority(authority):
        raise ValueError("the authority of the request target must be a host with an optional port")
    if head.method == b"OPTIONS" and not path:
        return authority, b"*"
    return authority, path if path.startswith(b"/") else b"/" + path


class HostRule:
    """Decides which Host a request may have. This keeps out web pages that rebind DNS."""

    __slots__ = ("_accepted", "_allowed", "_local", "_upstream", "guards_reads")

    def __init__(
        self,
        *,
        allowed: Iterable[str] | None,
        upstream: bytes,
        local: bool = False,
        exposed: bool = False,
    ) -> None:
        """Take the allowed names, with or without a port (None allows all), and the API's own authority.

        `local` is for a Unix socket, where the Host may be empty. `exposed` says that other machines reach
        the listener over TCP.
        """
        self.guards_reads: Final = exposed and allowed is None
        """Whether `is_suspect` counts."""
        self._allowed = (
            None if allowed is None else frozenset(_canonical_host(name.encode()) for name in allowed)
        )
        self._upstream = _canonical_host(upstream)
        self._local = local
        self._accepted: bytes | None = None

    def accepts(self, host: bytes | None) -> bool:
        """Return whether the value of a Host field is allowed. A missing Host (HTTP/1.0) is."""
        if host is None or host == self._accepted:
            return True
        if not host:
            return self._local
        if self._allowed is not None:
            name, port = _canonical_host(host)
            if (name, b"") not in self._allowed and (name, port) not in self._allowed:
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
        canonical = _canonical_host(host)
        name, _, domain = canonical[0].rstrip(b".").rpartition(b".")
        return not (
            not name
            or host.startswith(b"[")
            or domain.isdigit()
            or domain in _PRIVATE_DOMAINS
            or canonical == self._upstream
        )

    def accepts_authority(self, authority: bytes) -> bool:
        """Return whether the authority of an absolute-form target is allowed."""
        name, port = _canonical_host(authority)
        return (name == self._upstream[0] and port in (b"", self._upstream[1])) or self.accepts(authority)


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


def _canonical_host(host: bytes) -> tuple[bytes, bytes]:
    """Return the name and the port of a host, without what may differ between spellings of one name.

    That is letter case, the root dot of a DNS name and the form of an IPv6 address. The port may be empty.
    """
    name, _, port = host.lower().rpartition(b":")
    if not name or port.endswith(b"]"):
        name, port = host.lower(), b""
    if name.startswith(b"["):
        try:
            address = ipaddress.IPv6Address(name[1:-1].decode("ascii"))
        except ValueError:
            return name, port
        return b"[%b]" % address.compressed.encode(), port
    return name.removesuffix(b"."), port


def _segments(path: bytes) -> list[bytes]:
    """Return the segments of a path as a lenient server compares them."""
    segments = [part.rstrip(_IGNORED_AT_END) for part in unquote_to_bytes(path).lower().split(b"/")]
    while segments and not segments[-1]:
        segments.pop()
    return segments


def _is_at_or_below(segments: list[bytes], top: list[bytes]) -> bool:
    return segments[: len(top)] == top if top else not segments


def _folded(text: str) -> bytes:
    """Return visible text in its compatible normal form (NFKC), without the segments that are empty then."""
    visible = "".join(character for character in text if character.isprintable())
    return re.sub(rb"/{2,}", b"/", unicodedata.normalize("NFKC", visible).encode())


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
