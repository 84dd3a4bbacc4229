"""Tunnels through an egress proxy (CONNECT, RFC 9110 section 9.3.6): the request and its reply."""

import base64
from typing import Final, NamedTuple
from urllib.parse import unquote, urlsplit

from bits_auth_proxy.errors import UpstreamError
from bits_auth_proxy.forward.headers import RESPONSE_FIELDS
from bits_auth_proxy.http1.messages import MalformedMessage
from bits_auth_proxy.http1.parsing import ResponseParser

MAX_REPLY: Final = 16 * 1024
"""Bytes of the reply's head, including its status line."""
_MAX_FIELDS: Final = 100
_FIRST_FINAL_STATUS: Final = 200
_SUCCESS: Final = range(200, 300)


class TunnelError(UpstreamError):
    """The egress proxy did not open a tunnel. The text is safe to show."""


class EgressProxy(NamedTuple):
    """The address of the egress proxy; `credentials` is the value of Proxy-Authorization, or None."""

    host: str
    port: int
    credentials: str | None

    def __repr__(self) -> str:
        return f"EgressProxy({self.host}:{self.port})"

    @classmethod
    def parse(cls, url: str) -> "EgressProxy":
        """Parse http://[user:password@]host[:port]."""
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


class TunnelReply:
    """Reads the egress proxy's reply to CONNECT as its bytes arrive."""

    __slots__ = ("_parser",)

    def __init__(self) -> None:
        self._parser = ResponseParser(
            fields=RESPONSE_FIELDS, max_line=MAX_REPLY, max_head=MAX_REPLY, max_fields=_MAX_FIELDS
        )

    def feed(self, data: bytes) -> bool:
        """Take bytes of the reply; return whether the tunnel is open. Raises TunnelError if it is denied."""
        try:
            while (head := self._parser.feed(data)) is not None and head.status < _FIRST_FINAL_STATUS:
                data = self._parser.rest
        except MalformedMessage as error:
            if error.reason in ("head_too_large", "line_too_long"):
                raise TunnelError("the head of the egress proxy's response is too large") from None
            raise TunnelError("the egress proxy's response is not HTTP/1.1") from None
        if head is None:
            return False
        if head.status not in _SUCCESS:
            raise TunnelError(f"the egress proxy answered with {head.status}")
        if self._parser.rest:
            # In TLS, the client speaks first, so these bytes can't come from the API.
            raise TunnelError("the egress proxy sent data after its response")
        return True
