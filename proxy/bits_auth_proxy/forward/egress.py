"""Tunnels through an http proxy (CONNECT, RFC 9110 section 9.3.6): the request, and reading the reply."""

import base64
from typing import Final, NamedTuple
from urllib.parse import unquote, urlsplit

MAX_REPLY: Final = 16 * 1024
_END: Final = b"\r\n\r\n"
_SUCCESS: Final = range(200, 300)


class TunnelError(Exception):
    """The proxy opened no tunnel. The text is safe to show."""


class EgressProxy(NamedTuple):
    """Where the proxy is, and what it is told of us; `credentials` is the value of Proxy-Authorization."""

    host: str
    port: int
    credentials: str | None

    def __repr__(self) -> str:
        return f"EgressProxy({self.host}:{self.port})"

    @classmethod
    def parse(cls, url: str) -> "EgressProxy":
        """Take http://[user:password@]host[:port]."""
        parts = urlsplit(url)
        credentials = None
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            credentials = "Basic " + base64.b64encode(pair.encode()).decode("ascii")
        return cls(parts.hostname or "", parts.port or 80, credentials)

    def connect_request(self, host: str, port: int) -> bytes:
        """Return the request for a tunnel to `host`:`port`."""
        authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}"]
        if self.credentials is not None:
            lines.append(f"Proxy-Authorization: {self.credentials}")
        return "\r\n".join([*lines, "", ""]).encode("latin-1")


def tunnel_is_open(reply: bytes) -> bool:
    """Tell whether `reply`, as read so far, is whole and opens the tunnel. Raises TunnelError if not."""
    end = reply.find(_END)
    if end < 0:
        if len(reply) > MAX_REPLY:
            raise TunnelError("the head of the egress proxy's response is too large")
        return False
    version, _, rest = reply.partition(b"\r\n")[0].partition(b" ")
    status = rest[:3]
    if not version.startswith(b"HTTP/1.") or not status.isdigit():
        raise TunnelError("the egress proxy's response is not HTTP/1.1")
    if int(status) not in _SUCCESS:
        raise TunnelError(f"the egress proxy answered with {int(status)}")
    if len(reply) > end + len(_END):
        # In TLS the client speaks first: these bytes can't be the API's.
        raise TunnelError("the egress proxy sent data after its response")
    return True
