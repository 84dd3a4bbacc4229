"""The bytes that the fuzzer starts with: conformance and differential cases, and words to insert."""

from typing import Final

from tests.conformance.test_refusals import REFUSED
from tests.conformance.test_requests import FORWARDED
from tests.conformance.test_responses import ANSWERED, END
from tests.system.differential.cases import CASES
from tests.unit.forward.test_access import TOKEN_PATHS

_LIMIT: Final = 4096
"""The largest size of an entry in bytes: a response must be readable in one piece."""


def _small(entries: list[bytes]) -> tuple[bytes, ...]:
    return tuple(dict.fromkeys(entry for entry in entries if 0 < len(entry) <= _LIMIT))


REQUESTS: Final = _small(
    [row[2] for row in REFUSED]
    + [row[2] for row in FORWARDED]
    + [case.request + case.after_continue for case in CASES]
    + [b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % path for path in TOKEN_PATHS]
)
ANSWERS: Final = _small(
    [b"".join(piece for piece in row[3] if piece != END) for row in ANSWERED]
    + [b"".join(case.answer) for case in CASES]
    + [
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\ntunnel",
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 401 No\r\nContent-Length: 2\r\n\r\nno",
    ]
)
WORDS: Final = (
    b"\r",
    b"\n",
    b"\r\n",
    b"\r\n\r\n",
    b"\n\n",
    b"\0",
    b" ",
    b"\t",
    b"\x0b",
    b":",
    b";",
    b",",
    b"%2f",
    b"%6f",
    b"/../",
    b"\xff",
    b"\xc0\xaf",
    b"0\r\n\r\n",
    b"0\r\nX-Late: 1\r\n\r\n",
    b"ffffffffffffffff\r\n",
    b"5;a=b\r\nhello\r\n",
    b"Content-Length: 0\r\n",
    b"Content-Length: 5\r\n",
    b"Content-Length: 99999999999999999999\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: identity\r\n",
    b"Connection: close\r\n",
    b"Connection: keep-alive, Authorization, Host, Content-Length\r\n",
    b"Expect: 100-continue\r\n",
    b"Authorization: Basic eDp5\r\n",
    b"Host: localhost\r\n",
    b"Connection: Upgrade\r\nUpgrade: websocket\r\n",
    b"Upgrade: h2c\r\n",
    b"HTTP/1.1",
    b"HTTP/1.0",
    b"HEAD ",
    b"GET /v1/oauth2/token HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /v1/smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n",
)
