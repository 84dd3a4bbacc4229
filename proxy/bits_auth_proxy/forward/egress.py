"""Tunnels through an egress proxy (CONNECT, RFC 9110 section 9.3.6): the request and its reply."""

from typing import Final

from bits_auth_proxy.errors import UpstreamError
from bits_auth_proxy.forward.headers import RESPONSE_FIELDS
from bits_auth_proxy.http1.messages import MalformedMessage
from bits_auth_proxy.http1.parsing import ResponseParser
from bits_auth_proxy.transport import EgressProxy

MAX_REPLY: Final = 16 * 1024
"""Bytes of the reply's head, its status line included."""
_MAX_FIELDS: Final = 100
_FIRST_FINAL_STATUS: Final = 200
_SUCCESS: Final = range(200, 300)


class TunnelError(UpstreamError):
    """The egress proxy opened no tunnel. The text is safe to show."""


def connect_request(proxy: EgressProxy, target: str) -> bytes:
    """Return the request for a tunnel to `target`, a host:port."""
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if proxy.authorization is not None:
        lines.append(f"Proxy-Authorization: {proxy.authorization}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


class TunnelReply:
    """The egress proxy's reply to CONNECT, as its bytes arrive."""

    __slots__ = ("_parser",)

    def __init__(self) -> None:
        self._parser = ResponseParser(
            fields=RESPONSE_FIELDS, max_line=MAX_REPLY, max_head=MAX_REPLY, max_fields=_MAX_FIELDS
        )

    def feed(self, data: bytes) -> bool:
        """Take bytes of the reply; return whether the tunnel is open. Raises TunnelError if it won't be."""
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
            # In TLS the client speaks first: these bytes can't be the API's.
            raise TunnelError("the egress proxy sent data after its response")
        return True
