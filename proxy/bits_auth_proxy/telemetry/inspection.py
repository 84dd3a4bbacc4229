"""What `BITS_INSPECT` keeps: headers and bodies of the last exchanges, masked before they are kept.

The data is about people and their papers, so nothing is kept that can't be masked. Of a body that is not JSON
or is too large, only the size and the type are kept. If the name of a header, a JSON member or a query
parameter contains one of the words to mask, everything under that name is masked, at any depth.
"""

import json
import re
import zlib
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final
from urllib.parse import unquote_plus

from bits_auth_proxy.forward.inspecting import MAX_COPY, BodyCopy, InspectedExchange
from bits_auth_proxy.http1.messages import Field
from bits_auth_proxy.telemetry.journal import exchange_id

MAX_EXCHANGES: Final = 50
MAX_DEPTH: Final = 32
MAX_VALUES: Final = 2000
"""The deepest nesting and the number of values of JSON that is shown."""
MASK: Final = "[masked]"
_ALWAYS: Final = (
    "apikey",
    "auth",
    "cookie",
    "credential",
    "passphrase",
    "password",
    "privatekey",
    "secret",
    "session",
    "signature",
    "token",
)
"""Words in names that are masked regardless of the settings."""
_MAX_TEXT: Final = 1024
"""Characters of a JSON string. Longer strings are taken for encoded files."""
_SCHEME: Final = re.compile(r"\b(bearer|basic|digest)\s+\S+", re.IGNORECASE)
_JWT: Final = re.compile(r"\beyJ[\w-]{8,}(\.[\w-]*)*")
_PARAMETER: Final = re.compile(r"([?&#;])([^=&#?;\s]+)=([^&#;\s]*)")
_SIGNS: Final = (b",", b"[", b"{")
"""Each value of JSON but the first comes with one of these."""
_GZIP_OR_ZLIB: Final = 32 + zlib.MAX_WBITS


class Inspection:
    """The last exchanges, masked."""

    __slots__ = ("_call_soon", "_kept", "_redact", "_waiting", "_words")

    def __init__(
        self,
        *,
        mask: Iterable[str],
        redact: Callable[[str], str],
        call_soon: Callable[[Callable[[], None]], object] = lambda _: None,
    ) -> None:
        """Mask what has a word of `mask` in its name; `redact` replaces the secrets that the proxy knows.

        Masking waits for `call_soon`, so that it does not hold up a response, or until someone looks.
        """
        self._call_soon: Final = call_soon
        self._waiting: Final = deque[InspectedExchange](maxlen=MAX_EXCHANGES)
        self._words: Final = tuple({word for word in map(_plain, (*_ALWAYS, *mask)) if word})
        self._redact: Final = redact
        self._kept: Final[dict[str, dict[str, Any]]] = {}

    def keep(self, exchange: InspectedExchange) -> None:
        """Keep an exchange that has ended, and drop the oldest one."""
        self._waiting.append(exchange)
        self._call_soon(self._mask_next)

    def _mask_next(self) -> None:
        if not self._waiting:
            return
        exchange = self._waiting.popleft()
        head, response = exchange.head, exchange.response
        start = b"%b %b HTTP/1.%d" % (head.method, head.target, head.minor_version)
        kept = {"request": self._message(start, head.fields, exchange.request_copy), "response": None}
        if response is not None:
            start = b"HTTP/1.%d %d %b" % (response.minor_version, response.status, response.reason)
            kept["response"] = self._message(start, response.fields, exchange.response_copy)
        self._kept[exchange_id(exchange.record.ended)] = kept
        if len(self._kept) > MAX_EXCHANGES:
            del self._kept[next(iter(self._kept))]

    def find(self, identity: str) -> dict[str, Any] | None:
        """Return the exchange with that id (see `telemetry.journal`), ready for JSON, or None if unknown.

        `request` and `response` (None if there was none) have `start`, `fields` and `body`.
        """
        while self._waiting:
            self._mask_next()
        return self._kept.get(identity)

    def _message(self, start: bytes, fields: list[Field], copy: BodyCopy) -> dict[str, Any]:
        return {
            "start": self._text(start.decode("latin-1")),
            "fields": [
                self._field(field.name.decode("latin-1"), field.value.decode("latin-1")) for field in fields
            ],
            "body": self._body(fields, copy),
        }

    def _field(self, name: str, value: str) -> list[str]:
        return [name, MASK if self._hides(name) else self._text(value)]

    def _body(self, fields: list[Field], copy: BodyCopy) -> str:
        if not copy.size:
            return ""
        by_name = {field.key: field.value for field in fields}
        content = _decoded(copy.content, by_name.get(b"content-encoding", b"").strip().lower())
        if content is not None and sum(map(content.count, _SIGNS)) <= MAX_VALUES:
            try:
                value = json.loads(content)
                if isinstance(value, dict | list):
                    return json.dumps(self._masked(value), indent=2, ensure_ascii=False)
            except (ValueError, RecursionError):
                pass
        media_type = by_name.get(b"content-type", b"no type").partition(b";")[0].decode("latin-1")
        return f"({copy.size} bytes, {self._text(media_type)}: not shown)"

    def _masked(self, value: Any, depth: int = 0) -> Any:
        if isinstance(value, dict | list) and depth >= MAX_DEPTH:
            return "(nested too deeply: not shown)"
        if isinstance(value, dict):
            return {
                self._text(name): MASK if self._hides(name) else self._masked(member, depth + 1)
                for name, member in value.items()
            }
        if isinstance(value, list):
            return [self._masked(member, depth + 1) for member in value]
        if isinstance(value, str):
            return self._text(value) if len(value) <= _MAX_TEXT else f"({len(value)} characters: not shown)"
        return value

    def _text(self, text: str) -> str:
        """Return `text` without anything that looks like a credential or is one of ours."""
        text = _SCHEME.sub(rf"\1 {MASK}", text)
        text = _JWT.sub(MASK, text)
        text = _PARAMETER.sub(self._parameter, text)
        return self._redact(text)

    def _parameter(self, match: re.Match[str]) -> str:
        separator, name, _ = match.groups()
        return f"{separator}{name}={MASK}" if self._hides(unquote_plus(name)) else match[0]

    def _hides(self, name: str) -> bool:
        plain = _plain(name)
        return any(word in plain for word in self._words)


def _plain(name: str) -> str:
    """Return the form in which names are compared: the same for `Personal-Number` and `personal_number`."""
    return "".join(filter(str.isalnum, name.casefold()))


def _decoded(content: bytes | None, coding: bytes) -> bytes | None:
    """Return decoded content, or None if it is cut off, too large, or in an unknown content coding."""
    if content is None or coding in (b"", b"identity"):
        return content
    if coding not in (b"gzip", b"x-gzip", b"deflate"):
        return None
    inflater = zlib.decompressobj(_GZIP_OR_ZLIB)
    try:
        decoded = inflater.decompress(content, MAX_COPY)
    except zlib.error:
        return None
    return decoded if inflater.eof else None
