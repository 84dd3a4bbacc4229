"""The policy of connections that the data path and the token client share: names of hosts, the egress proxy.

`forward.tls` does the same for TLS; both clients get one SSLContext.
"""

import base64
from collections.abc import Iterator
from typing import NamedTuple
from urllib.parse import quote, unquote, unquote_to_bytes, urlsplit


def without_root(host: str) -> str:
    """Return the name of a host for SNI, certificates, Host and CONNECT: without the root dot.

    Only DNS gets the dot, which keeps it from trying the search list. SNI must not (RFC 6066 section 3).
    """
    return host.removesuffix(".")


def authority(host: str, port: int) -> str:
    """Return host:port, with an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class EgressProxy(NamedTuple):
    """The address of an http egress proxy; `authorization` is the value of Proxy-Authorization, if any."""

    host: str
    port: int
    authorization: str | None

    def __repr__(self) -> str:
        return f"EgressProxy({self})"

    def __str__(self) -> str:
        return authority(self.host, self.port)

    @classmethod
    def parse(cls, url: str) -> "EgressProxy":
        """Take http://[user:password@]host[:port]."""
        parts = urlsplit(url)
        value = None
        if parts.username is not None:
            # UTF-8 (RFC 7617 section 2.1), unless the URL has escaped other bytes.
            pair = b"%b:%b" % (unquote_to_bytes(parts.username), unquote_to_bytes(parts.password or ""))
            value = "Basic " + base64.b64encode(pair).decode("ascii")
        return cls(parts.hostname or "", parts.port or 80, value)


def route(host: str, port: int, egress: EgressProxy | None) -> str:
    """Return how errors name the way to a server."""
    through = "" if egress is None else f" through the egress proxy {egress}"
    return f"{authority(host, port)}{through}"


def egress_secrets(url: str) -> Iterator[str]:
    """Yield every form in which the password in an egress proxy's URL may appear."""
    parts = urlsplit(url)
    if parts.username is None:
        return
    # Without a password, the name may be a key.
    secret = parts.password or parts.username
    plain = unquote_to_bytes(secret)
    yield from (secret, unquote(secret), plain.decode("latin-1"))
    for safe in ("", ":", "!$&'()*+,;=:"):
        escaped = quote(plain, safe=safe)
        yield from (escaped, escaped.lower())
    yield (EgressProxy.parse(url).authorization or "").removeprefix("Basic ")
