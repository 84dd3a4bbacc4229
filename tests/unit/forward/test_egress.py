"""The response to CONNECT: only its status line counts, however the bytes are split."""

import pytest

from bits_auth_proxy.forward.egress import MAX_REPLY, TunnelError, TunnelReply

OPEN = [
    b"HTTP/1.1 200 Connection established\r\n\r\n",
    b"HTTP/1.0 200\r\n\r\n",
    b"HTTP/1.1 299 Fine\r\nVia: 1.1 squid\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    # RFC 9110 section 9.3.6: a client ignores these.
    b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nProxy-Agent : old\r\nno colon\r\n folded\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 500 + b"\r\n",
]
DENIED = [
    (b"HTTP/1.1 407 No\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", "answered with 407"),
    (b"HTTP/1.1 407 No\r\nbad line\r\n\r\n", "answered with 407"),
    (b"HTTP/1.1 502 No\r\n\r\nbody", "answered with 502"),
    (b"HTTP/1.1 200 OK\r\n\r\nx", "sent data after"),
    (b"SSH-2.0-OpenSSH\r\n\r\n", "is not HTTP/1.1"),
    (b"HTTP/2 200\r\n\r\n", "is not HTTP/1.1"),
    (b"HTTP/1.1 200 OK\r\nX: " + b"y" * MAX_REPLY, "too large"),
]


@pytest.mark.parametrize("reply", OPEN)
@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_a_success_opens_the_tunnel(reply: bytes, size: int) -> None:
    its = TunnelReply()
    pieces = [reply[start : start + size] for start in range(0, len(reply), size)]
    assert [its.feed(piece) for piece in pieces] == [False] * (len(pieces) - 1) + [True]


@pytest.mark.parametrize(("reply", "said"), DENIED)
def test_anything_else_says_why_it_does_not(reply: bytes, said: str) -> None:
    with pytest.raises(TunnelError, match=said):
        TunnelReply().feed(reply)
    its = TunnelReply()
    if said == "sent data after":
        # That byte may come when the tunnel is open.
        return
    with pytest.raises(TunnelError, match=said):
        any(its.feed(reply[number : number + 1]) for number in range(len(reply)))
