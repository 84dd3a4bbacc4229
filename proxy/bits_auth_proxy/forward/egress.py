"""Tunnels through an egress proxy (CONNECT, RFC 9110 section 9.3.6): the request and its reply."""

from typing import Final

from bits_auth_proxy.errors import UpstreamError
from bits_auth_proxy.forward.headers import RESPONSE_FIELDS
from bits_auth_proxy.http1.messages import MalformedMessage
from bits_auth_proxy.http1.parsing import ResponseParser
from bits_auth_proxy.transport import EgressProxy

MAX_REPLY: Final = 16 * 1024
"""Bytes of the reply's head, including its status line."""
_END_OF_HEAD: Final = b"\r\n\r\n"
_FIRST_FINAL_STATUS: Final = 200
_SUCCESS: Final = range(200, 300)


class TunnelError(UpstreamError):
    """The egress proxy did not open a tunnel. The text is safe to show."""


def connect_request(proxy: EgressProxy, target: str) -> bytes:
    """Return the request for a tunnel to `target`, a host:port."""
    lines = [f"CONNECT {target} HTTP/1.1", f"Host: {target}"]
    if proxy.authorization is not None:
        lines.append(f"Proxy-Authorization: {proxy.authorization}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


class TunnelReply:
    """Reads the egress proxy's response to CONNECT as its bytes arrive.

    Only the status line matters. In a successful response to CONNECT a client ignores Content-Length and
    Transfer-Encoding (RFC 9110 section 9.3.6), and it needs no other field.
    """

    __slots__ = ("_buffer", "_parser")

    def __init__(self) -> None:
        self._buffer = b""
        self._parser = ResponseParser(
            fields=RESPONSE_FIELDS, max_line=MAX_REPLY, max_head=MAX_REPLY, max_fields=1
        )

    def feed(self, data: bytes) -> bool:
        """Take bytes of the response; return whether the tunnel is open. Raises TunnelError if not."""
        self._buffer = (self._buffer + data).lstrip(b"\r\n")
        while (end := self._buffer.find(_END_OF_HEAD)) >= 0:
            status_line = self._buffer.partition(b"\r\n")[0]
            self._buffer = self._buffer[end + len(_END_OF_HEAD) :]
            try:
                head = self._parser.feed(status_line + _END_OF_HEAD)
            except MalformedMessage:
                head = None
            if head is None:
                raise TunnelError("the egress proxy's response is not HTTP/1.1")
            if head.status >= _FIRST_FINAL_STATUS:
                return self._is_open(head.status)
        if len(self._buffer) > MAX_REPLY:
            raise TunnelError("the head of the egress proxy's response is too large")
        return False

    def _is_open(self, status: int) -> bool:
        if status not in _SUCCESS:
            raise TunnelError(f"the egress proxy answered with {status}")
        if self._buffer:
            # In TLS, the client speaks first, so these bytes can't come from the API.
            raise TunnelError("the egress proxy sent data after its response")
        return True
