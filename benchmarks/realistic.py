"""Realistic traffic: requests and responses whose heads differ as those of real clients and of a real API do.

A request has 14 fields. Five of them differ every time: traceparent, tracestate, X-Request-ID, Idempotency-
Key and Content-Length. A response has 17 fields, and five differ: Date, ETag, X-Request-Id, CF-Ray and a
rate-limit count.
"""

import re
import socketserver
import ssl
import threading
from email.utils import formatdate
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self, cast

TOKEN_PATH: Final = b"/v1/oauth2/token"
_BODY: Final = (
    b'{"workflowId":"bits:workflow::8abe317f-6d54-4949-8ecd-245efb4fa05d","countryCode":"SE","pad":"%b"}'
)
_ANSWER: Final = b'{"id":"bits:application::0f8e8a7c-4be6-4a3f-9b0e-7f6f4ad6d6a1","sessionToken":"%b"}' % (
    b"s" * 269
)
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


def request(number: int, *, authority: bytes) -> bytes:
    """Return the `number`-th request, with 300 to 360 bytes of content."""
    body = _BODY % (b"x" * (204 + number % 61))
    return (
        b"POST /v1/applications.create HTTP/1.1\r\nHost: %b\r\nUser-Agent: acme/3.2\r\n"
        b"Accept: application/json\r\nAccept-Encoding: gzip, deflate\r\nAccept-Language: sv\r\n"
        b"Content-Type: application/json\r\nConnection: keep-alive\r\nX-Service: intake\r\nX-Team: kyc\r\n"
        b"traceparent: 00-%032x-%016x-01\r\ntracestate: acme=%08x\r\nX-Request-ID: acme-%012x\r\n"
        b"Idempotency-Key: %032x\r\nContent-Length: %d\r\n\r\n%b"
    ) % (
        authority,
        number * 7919 + 1,
        number * 31 + 1,
        number,
        number * 65_537,
        number * 104_729,
        len(body),
        body,
    )


def response(number: int) -> bytes:
    """Return the `number`-th response, with 350 bytes of content."""
    return (
        b"HTTP/1.1 200 OK\r\nDate: %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
        b'Connection: keep-alive\r\nServer: cloudflare\r\nETag: W/"%08x"\r\nX-Request-Id: %012x\r\n'
        b"CF-Ray: %016x-ARN\r\nX-RateLimit-Remaining: %d\r\nX-RateLimit-Limit: 100000\r\n"
        b"Vary: Accept-Encoding\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\n"
        b"X-Frame-Options: DENY\r\nReferrer-Policy: no-referrer\r\nCF-Cache-Status: DYNAMIC\r\n"
        b"Strict-Transport-Security: max-age=31536000\r\n\r\n%b"
    ) % (
        formatdate(1_760_000_000 + number, usegmt=True).encode(),
        len(_ANSWER),
        number * 7919,
        number * 31,
        number * 104_729,
        100_000 - number,
        _ANSWER,
    )


class Api:
    """Stands for the API: a token endpoint, and realistic responses to everything else. A context manager.

    `authorized` counts the requests that brought the token.
    """

    def __init__(self, *, token: str, certificate: Path | None) -> None:
        """Speak TLS with `certificate`, a PEM file with its key, or plain http without one."""
        self.token: Final = token
        self.authorized = 0
        self.context: ssl.SSLContext | None = None
        if certificate is not None:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.context.load_cert_chain(certificate)
            self.context.set_alpn_protocols(["http/1.1"])
        self._server = _Server(self)

    @property
    def port(self) -> int:
        """Where it listens on loopback."""
        return int(self._server.server_address[1])

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, head: bytes) -> bytes:
        """Return the response to a request."""
        if TOKEN_PATH in head.partition(b"\r\n")[0]:
            content = b'{"type":"Bearer","access_token":"%b","expires_in":3600}' % self.token.encode()
            start = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
            return start % len(content) + content
        self.authorized += b"\r\nauthorization: bearer %b\r\n" % self.token.encode().lower() in head.lower()
        return response(self.authorized)


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, api: Api) -> None:
        self.api = api
        super().__init__(("127.0.0.1", 0), _Connection)


class _Connection(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        api = cast("_Server", self.server).api
        try:
            sock = (
                self.request
                if api.context is None
                else api.context.wrap_socket(self.request, server_side=True)
            )
            with sock, sock.makefile("rb") as stream:
                while head := read_head(stream):
                    stream.read(content_length(head))
                    sock.sendall(api.answer(head))
        except OSError:
            pass  # The proxy closed the connection, at its end.


def read_head(stream: IO[bytes]) -> bytes:
    """Return the next head of a stream of bytes, empty at its end."""
    head = b""
    while line := stream.readline():
        head += line
        if line == b"\r\n":
            return head
    return b""


def content_length(head: bytes) -> int:
    """Return the length of the content behind a head."""
    found = _LENGTH.search(head)
    return int(found[1]) if found else 0
