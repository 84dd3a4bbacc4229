"""The types of settings: what each accepts as text and what it becomes.

Variables and flags are text; a TOML file may also hold numbers, booleans and lists. A parser raises
ValueError with a text that says what to write instead, and never quotes a value that may hold a secret.
"""

import re
from typing import Annotated, Any, Final, Literal
from urllib.parse import SplitResult, urlsplit

from pydantic import BeforeValidator, Field, SecretStr, WithJsonSchema

from bits_auth_proxy.settings.addresses import ListenAddress, parse_address
from bits_auth_proxy.settings.egress import parse_proxy

METHODS: Final = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "*"))


def _split(value: Any) -> Any:
    """Turn `a, b` into a list; a TOML file has one already."""
    if isinstance(value, str):
        return [part.strip() for part in value.split(",") if part.strip()]
    return value


def _address(value: Any) -> Any:
    if isinstance(value, tuple):
        return value
    return parse_address(value if isinstance(value, str) else "")


def _addresses(value: Any) -> Any:
    parts = _split(value)
    if isinstance(parts, list):
        if not parts:
            raise ValueError("name at least one address")
        return tuple(_address(part) for part in parts)
    return parts


def _mode(value: Any) -> Any:
    if isinstance(value, str):
        try:
            value = int(value.removeprefix("0o"), 8)
        except ValueError:
            raise ValueError("write an octal mode like 660") from None
    if isinstance(value, int) and not 0 <= value <= 0o777:  # noqa: PLR2004 - all permission bits
        raise ValueError("a mode must be between 0 and 777")
    return value


def _origin(value: Any) -> Any:
    if isinstance(value, str):
        parts = _url_parts(value)
        if parts.path not in ("", "/") or parts.query:
            raise ValueError("write only the scheme and the host, without a path or a query")
        return f"{parts.scheme}://{parts.netloc.lower()}"
    return value


def _url(value: Any) -> Any:
    if isinstance(value, str):
        _url_parts(value)
    return value


def _url_parts(value: str) -> SplitResult:
    try:
        parts = urlsplit(value)
        labels = (parts.hostname or "").removesuffix(".").split(".")
        usable = parts.scheme in ("http", "https") and all(labels) and parts.port != 0
    except ValueError:
        parts, usable = urlsplit(""), False
    if not usable:
        raise ValueError("write a URL like https://api.bits.bi")
    if "@" in parts.netloc or parts.fragment or not value.isprintable() or " " in value:
        raise ValueError("a URL must not contain user information, a fragment or spaces")
    return parts


def _egress_proxy(value: Any) -> Any:
    return parse_proxy(value) if isinstance(value, str) else value


def _rules(value: Any) -> Any:
    rules = _split(value)
    for number, rule in enumerate(rules if isinstance(rules, list) else (), 1):
        method, _, path = str(rule).partition(" ")
        if method not in METHODS or not path.startswith(("/", "*")) or " " in path:
            raise ValueError(f"entry {number} is not a rule: write METHOD /path, where * matches any text")
    return rules


def _origins(value: Any) -> Any:
    origins = _split(value)
    for origin in origins if isinstance(origins, list) else ():
        _origin(origin)
    return origins


def _client_names(value: Any) -> Any:
    names = _split(value)
    if not isinstance(names, list):
        return names
    if not names:
        raise ValueError("name at least one client")
    return tuple(_client_name(str(name)) for name in names)


def _client_name(name: str) -> str:
    """Return a name in the form in which names are compared (see `forward.certificates.client_names`)."""
    if "*" in name:
        raise ValueError(f"{name!r} has a wildcard: write each name in full")
    if "://" in name:
        match = _SPIFFE_ID.fullmatch(name)
        if match is None:
            raise ValueError(f"{name!r} is no SPIFFE ID: write spiffe://trust-domain/path")
        return f"spiffe://{match[1].lower()}{match[2]}"
    if not _DNS_NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no DNS name: write one like shop.example, in ASCII")
    return name.lower()


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


_SPIFFE_ID: Final = re.compile(r"(?i:spiffe)://([A-Za-z0-9._-]+)((?:/[A-Za-z0-9._-]+)*)")
_DNS_NAME: Final = re.compile(
    r"[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?(?:\.[A-Za-z0-9_](?:[A-Za-z0-9_-]*[A-Za-z0-9_])?)*"
)
_TEXT: Final[dict[str, Any]] = {"type": "string"}
_LIST: Final = WithJsonSchema({"anyOf": [_TEXT, {"type": "array", "items": _TEXT}]})

Seconds = Annotated[float, Field(ge=0, le=86_400 * 366, allow_inf_nan=False)]
Timeout = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1, le=1_000_000)]
Bytes = Annotated[int, Field(ge=0)]
Origin = Annotated[str, BeforeValidator(_origin)]
Url = Annotated[str, BeforeValidator(_url)]
EgressProxyUrl = Annotated[SecretStr, BeforeValidator(_egress_proxy)]
CustomerId = Annotated[str, Field(pattern=r"^[!-~]+$")]
LogLevel = Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)]
Texts = Annotated[tuple[str, ...], BeforeValidator(_split), _LIST]
Rules = Annotated[tuple[str, ...], BeforeValidator(_rules), _LIST]
Origins = Annotated[tuple[str, ...], BeforeValidator(_origins), _LIST]
Address = Annotated[ListenAddress, BeforeValidator(_address), WithJsonSchema(_TEXT)]
Addresses = Annotated[tuple[ListenAddress, ...], BeforeValidator(_addresses), _LIST]
ClientNames = Annotated[tuple[str, ...], BeforeValidator(_client_names), _LIST]
Mode = Annotated[int, BeforeValidator(_mode), WithJsonSchema({"type": ["string", "integer"]})]
