"""The egress proxy that leads to a URL, by the rules of HTTPS_PROXY and NO_PROXY."""

import contextlib
import ipaddress
import re
from typing import Final
from urllib.parse import unquote_to_bytes, urlsplit

_HTTPS_PORT: Final = 443
_SEPARATORS: Final = re.compile(r"[,\s]+")
_WITH_PORT: Final = re.compile(r"(?P<host>\[[^\]]*\]|[^:\[\]]*)(:(?P<port>[0-9]{1,5}))?")
_CONTROL: Final = re.compile(rb"[\x00-\x1f\x7f]")
_EXPECTED: Final = "write http://host:port or http://user:password@host:port"


def parse_proxy(value: str) -> str:
    """Return the URL of an http proxy; host:port becomes one. Raises ValueError, which does not quote it."""
    url = value if "://" in value else f"http://{value}"
    try:
        parts = urlsplit(url)
        usable = parts.scheme == "http" and parts.hostname and parts.port != 0
    except ValueError:
        parts, usable = urlsplit(""), False
    # A bare word is rather a secret in the wrong place than a host: errors would show it.
    if not usable or not value.isprintable() or " " in value or not re.search("[.:]", value):
        raise ValueError(_EXPECTED)
    name, password = (unquote_to_bytes(part or "") for part in (parts.username, parts.password))
    # RFC 7617 section 2
    if b":" in name or _CONTROL.search(name + password):
        raise ValueError(f"{_EXPECTED}, without a colon in the user and without control characters")
    return url


def proxy_for(url: str, *, https_proxy: str | None, no_proxy: str) -> str | None:
    """Return the URL of the proxy through which `url` is reached, None for a direct connection.

    Only https goes through the proxy. `no_proxy` lists, separated by commas, what is reached directly.
    """
    if https_proxy is None or not is_proxied(url, no_proxy):
        return None
    return https_proxy


def is_proxied(url: str, no_proxy: str) -> bool:
    """Return whether an egress proxy leads to `url`, if there is one."""
    return url.startswith("https:") and not is_exempt(url, no_proxy)


def is_exempt(url: str, no_proxy: str) -> bool:
    """Return whether `no_proxy` names the host of an https URL.

    An entry is a host, a domain (`example.org` and `.example.org`: with the domain itself; `*.example.org`:
    without), an IP address, a network (`10.0.0.0/8`, `fd00::/8`), or `*` for everything. A host, domain or
    address may have a port, and an IPv6 address needs brackets then.
    """
    parts = urlsplit(url)
    host, port = (parts.hostname or "").removesuffix("."), parts.port or _HTTPS_PORT
    entries = filter(None, _SEPARATORS.split(no_proxy.lower()))
    return any(entry == "*" or _names(entry, host, port) for entry in entries)


def _names(entry: str, host: str, port: int) -> bool:
    address = None
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address(host)
    if address is not None:
        with contextlib.suppress(ValueError):
            return address in ipaddress.ip_network(entry, strict=False)
    split = _WITH_PORT.fullmatch(entry)
    if split is None or (split["port"] is not None and int(split["port"]) != port):
        return False
    name = split["host"]
    if address is not None:
        with contextlib.suppress(ValueError):
            return address == ipaddress.ip_address(name.strip("[]"))
        return False
    name = name.removesuffix(".")
    domain = name.removeprefix("*").removeprefix(".")
    if not domain:
        return False
    if name.startswith("*."):
        return host.endswith(f".{domain}")
    return not name.startswith("*") and (host == domain or host.endswith(f".{domain}"))
