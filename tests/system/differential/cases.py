"""The cases: valid requests and the API's responses to them, made from tables."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tests.support.recorder import CUT, OK_ANSWER

EXPECT = b"Expect: 100-continue\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
BIG = bytes(range(256)) * 256


class Case(NamedTuple):
    """A request and the API's response, as bytes on the wire; `http://api/` is the API's origin.

    `after_continue` is sent once the proxy has sent a 100. With `closes`, the API closes its connection after
    the response.
    """

    name: str
    request: bytes
    answer: Sequence[bytes] = (OK_ANSWER,)
    closes: bool = False
    after_continue: bytes = b""

    @property
    def line(self) -> bytes:
        """The request line."""
        return self.request.lstrip(b"\r\n").partition(b"\r\n")[0]

    @property
    def method(self) -> bytes:
        return self.line.split(b" ")[0]

    @property
    def path(self) -> bytes:
        return self.line.split(b" ")[1].partition(b"?")[0].lower().removeprefix(b"http://localhost")

    @property
    def is_old(self) -> bool:
        """Whether the client speaks HTTP/1.0."""
        return self.line.endswith(b" HTTP/1.0")


def request(
    line: bytes = b"GET /v1/x", fields: bytes = b"", body: bytes = b"", *, version: bytes = b"HTTP/1.1"
) -> bytes:
    return b"%b %b\r\nHost: localhost\r\n%b\r\n%b" % (line, version, fields, body)


def with_length(body: bytes) -> tuple[bytes, bytes]:
    return b"Content-Length: %d\r\n" % len(body), body


def chunks(*pieces: bytes, extension: bytes = b"", trailers: bytes = b"") -> tuple[bytes, bytes]:
    body = b"".join(b"%x%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in pieces)
    return CHUNKED, b"%b0%b\r\n%b\r\n" % (body, extension, trailers)


# Fields that have no effect in trailers and are removed there (RFC 9110 section 6.5.1).
LATE = {
    "Content-Length": b"Content-Length: 9",
    "Transfer-Encoding": b"Transfer-Encoding: chunked",
    "Connection": b"Connection: close",
    "Upgrade": b"Upgrade: h2c",
    "Host": b"Host: evil.example",
    "Authorization": b"Authorization: Basic eDp5",
    "Set-Cookie": b"Set-Cookie: a=1",
}

BODIES = {
    "no body": (b"", b""),
    "length 0": with_length(b""),
    "length 1": with_length(b"x"),
    "length 64 KiB": with_length(BIG),
    "no chunk": chunks(),
    "one chunk": chunks(b"hello"),
    "chunks of one byte": chunks(*(b"%c" % byte for byte in b"hello")),
    "one chunk of 64 KiB": chunks(BIG),
    "chunks of 1000": chunks(*(BIG[i : i + 1000] for i in range(0, len(BIG), 1000))),
    "zeros before the size": (CHUNKED, b"0005\r\nhello\r\n000\r\n\r\n"),
    "size in upper case": (CHUNKED, b"1A\r\n%b\r\n0\r\n\r\n" % (b"z" * 26)),
    "chunk extension": chunks(b"hello", b"world", extension=b";a=b"),
    "quoted chunk extension": chunks(b"hello", extension=b';a="b c"'),
    "odd case of chunked": (b"transfer-encoding: Chunked\r\n", b"5\r\nhello\r\n0\r\n\r\n"),
    "length with zeros": (b"Content-Length: 005\r\n", b"hello"),
    "length that Connection names": (b"Connection: Content-Length\r\nContent-Length: 5\r\n", b"hello"),
    "chunk extension without a value": chunks(b"hello", extension=b";last"),
    "trailers": chunks(b"hello", trailers=b"X-Checksum: 1\r\nX-More: 2\r\n"),
    "content that looks like a request": with_length(b"GET /v1/smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    "chunk that looks like the end": chunks(b"0\r\n\r\n", b"\r\n"),
}

WITH_BODIES = (b"POST", b"PUT", b"PATCH", b"DELETE")
METHODS = (b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PROPFIND", b"M-SEARCH", b"PURGE", b"FROB", b"X-Y_Z")

TARGETS = {
    "root": b"/",
    "operation": b"/v1/applications.create",
    "trailing slash": b"/v1/x/",
    "query": b"/v1/x?a=1&b=2",
    "empty query": b"/v1/x?",
    "question marks in the query": b"/v1/x?a?b?",
    "slashes and dots in the query": b"/v1/x?u=https://a.example//b/../c;d",
    "encoded slash in the query": b"/v1/x?a=%2F%2f%5C",
    "plus in the query": b"/v1/x?a=b+c&d=%20",
    "brackets in the query": b"/v1/x?a[0]=1&b[]=2",
    "quotes and braces in the query": b"/v1/x?a={%22b%22:'c'}|^`",
    "encoded UTF-8": b"/v1/%C3%A9%20x",
    "encoding in lower case": b"/v1/%c3%a9",
    "reserved characters": b"/v1/a!$&'()*+,=:@b",
    "unreserved characters": b"/v1/a-b._~Z9",
    "colons": b"/v1/bits:application::8abe317f",
    "three dots": b"/v1/...",
    "encoded question mark": b"/v1/x%3Fa",
    "encoded hash": b"/v1/x%23a",
    "long path": b"/v1/" + b"a" * 4000,
    "long query": b"/v1/x?" + b"a=b&" * 1500,
    "absolute form": b"http://localhost/v1/x?a=1",
    "absolute form, no path": b"http://localhost",
    "absolute form in upper case": b"HTTP://LOCALHOST/v1/x",
    "absolute form, only a query": b"http://localhost?a=1",
    "empty segment": b"/v1//x",
    "dot segment": b"/v1/../x",
    "encoded dot": b"/v1/%2e/x",
    "encoded slash": b"/v1/a%2Fb",
    "encoded letter": b"/v1/%61",
    "parameter": b"/v1/x;a=b",
    "token endpoint": b"/v1/oauth2/token",
    "asterisk": b"*",
}

FIELDS = {
    "repeated": b"X-A: 1\r\nX-B: 2\r\nX-A: 3\r\n",
    "repeated, in other case": b"X-A: 1\r\nx-a: 2\r\nX-a: 3\r\n",
    "odd case": b"x-CaSe-Of: It Stays\r\nACCEPT: */*\r\nuser-agent: u\r\n",
    "two Cookies": b"Cookie: a=1\r\nCookie: b=2\r\n",
    "list of values": b"Accept: a/b;q=0.5, c/d\r\nAccept-Language: sv, en\r\n",
    "Accept of the API": b"Accept: application/vnd.bits.v1.0+json\r\nAccept-Encoding: gzip, br\r\n",
    "bytes above 0x7f": b"X-Name: caf\xc3\xa9 \xff\x80\r\n",
    "empty values": b"X-A:\r\nX-B: \r\nX-C: c\r\n",
    "spaces around": b"X-A:a\r\nX-B:   b c   \r\n",
    "tabs around": b"X-A:\ta\t\r\n",
    "tab within": b"X-A: a\tb\r\n",
    "punctuation in values": b'X-A: "a\\"b" (c) <d>; e=f, [g] {h}: @i\r\n',
    "every token character in a name": b"!#$%&'*+-.^_`|~09AZaz: 1\r\n",
    "underscore in a name": b"x_under_score: 1\r\n",
    "one letter names": b"a: 1\r\nB: 2\r\n",
    "long value": b"X-Long: " + b"v" * 7000 + b"\r\n",
    "long name": b"X-" + b"n" * 200 + b": 1\r\n",
    "many fields": b"".join(b"X-%d: %d\r\n" % (i, i) for i in range(80)),
    "conditional": b'If-None-Match: "a"\r\nIf-Modified-Since: Thu, 01 Jan 2026 00:00:00 GMT\r\n',
    "range": b'Range: bytes=0-1\r\nIf-Range: "a"\r\n',
    "caching": b"Cache-Control: no-store\r\nPragma: no-cache\r\n",
    "content fields": b"Content-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Language: sv\r\n",
    "Referer and From": b"Referer: http://a.example/b\r\nFrom: a@b.example\r\n",
    "traceparent": b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n",
    "Authorization": b"Authorization: Basic eDp5\r\nX-A: 1\r\n",
    "X-Request-ID": b"X-A: 1\r\nX-Request-ID: my-own\r\nX-B: 2\r\n",
    "empty X-Request-ID": b"X-Request-ID:\r\n",
    "long X-Request-ID": b"X-Request-ID: " + b"i" * 300 + b"\r\n",
    "Via": b"Via: 1.1 a, 1.0 b\r\n",
    "keep-alive": b"Connection: keep-alive\r\nKeep-Alive: timeout=5\r\n",
    "close": b"Connection: close\r\nX-A: 1\r\n",
    "close in other case": b"Connection: Close\r\n",
    "close in a list": b"Connection: X-Hop, ,, close\r\nX-Hop: 1\r\n",
    "connection_options": b"Connection: X-Hop, x-other\r\nX-Hop: 1\r\nX-Other: 2\r\nX-Stays: 3\r\n",
    "TE": b"Connection: TE\r\nTE: trailers\r\n",
    "Trailer": b"Trailer: X-Checksum\r\n",
    "proxy fields": b"Proxy-Connection: keep-alive\r\nProxy-Authorization: Basic eDp5\r\nX-A: 1\r\n",
    "h2c upgrade": b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQ\r\n",
    "WebSocket": (
        b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    ),
    "of a page elsewhere": b"Origin: http://a.example\r\n",
    "of a page here": b"Sec-Fetch-Site: same-origin\r\n",
    "another expectation": b"Expect: other\r\n",
    "the inside": (
        b"Forwarded: for=10.0.0.1\r\nX-Forwarded-For: 10.0.0.1\r\nX-Forwarded-Proto: http\r\n"
        b"X-Real-IP: 10.0.0.1\r\nX-A: 1\r\n"
    ),
    "Max-Forwards": b"Max-Forwards: 3\r\n",
}

HOSTS = (b"localhost:80", b"LocalHost", b"localhost:", b"127.0.0.1:8080", b"[::1]:8080", b"api.bits.bi")

CLIENTS = {
    "GET": request(),
    "HEAD": request(b"HEAD /v1/x"),
    "POST": request(b"POST /v1/x", *with_length(b"{}")),
    "HTTP/1.0": request(version=b"HTTP/1.0"),
    "HTTP/1.0 with keep-alive": request(fields=b"Connection: keep-alive\r\n", version=b"HTTP/1.0"),
}

OK = b"HTTP/1.1 200 OK\r\n"
LENGTH_2 = b"Content-Length: 2\r\n\r\nok"
EARLY_HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
IN_CHUNKS = CHUNKED + b"\r\n2\r\nok\r\n3\r\n yo\r\n0\r\n\r\n"
# Name → pieces of the response, and whether the API closes its connection after it.
ANSWERS: dict[str, tuple[Sequence[bytes], bool]] = {
    "length": ((OK + b"Content-Type: text/plain\r\n" + LENGTH_2,), False),
    "length 0": ((OK + b"Content-Length: 0\r\n\r\n",), False),
    "length 64 KiB": ((OK + b"Content-Length: 65536\r\n\r\n", BIG), False),
    "chunked": ((OK + IN_CHUNKS,), False),
    "chunked, empty": ((OK + CHUNKED + b"\r\n0\r\n\r\n",), False),
    "chunked, 64 KiB": ((OK + CHUNKED + b"\r\n10000\r\n", BIG, b"\r\n0\r\n\r\n"), False),
    "chunked, in pieces": (tuple(b"%c" % byte for byte in OK + IN_CHUNKS), False),
    "chunk extensions": ((OK + CHUNKED + b'\r\n2;a="b"\r\nok\r\n0;c\r\n\r\n',), False),
    "trailers": (
        (OK + b"Trailer: X-Checksum\r\n" + CHUNKED + b"\r\n2\r\nok\r\n0\r\nX-Checksum: 1\r\n\r\n",),
        False,
    ),
    "close-delimited": ((OK + b"Connection: close\r\n\r\nok",), True),
    "close-delimited, empty": ((OK + b"\r\n",), True),
    "HTTP/1.0 upstream": ((b"HTTP/1.0 200 OK\r\n\r\nok",), True),
    "HTTP/1.0 upstream with length": ((b"HTTP/1.0 200 OK\r\n" + LENGTH_2,), True),
    "length, then close": ((OK + b"Connection: close\r\n" + LENGTH_2,), True),
    "201 with Location": ((b"HTTP/1.1 201 Created\r\nLocation: /v1/x/1\r\n" + LENGTH_2,), False),
    "204": ((b"HTTP/1.1 204 No Content\r\nX-A: 1\r\n\r\n",), False),
    "206": ((b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-1/9\r\n" + LENGTH_2,), False),
    "304": ((b'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\n\r\n',), False),
    "404": ((b"HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\n" + LENGTH_2,), False),
    "500": ((b"HTTP/1.1 500 Internal Server Error\r\n" + LENGTH_2,), False),
}

# The same, each for one kind of client.
MORE_ANSWERS: dict[str, tuple[Sequence[bytes], bool]] = {
    "trailer that Connection names": (
        (OK + b"Connection: X-A\r\n" + CHUNKED + b"\r\n2\r\nok\r\n0\r\nX-A: 1\r\nX-B: 2\r\n\r\n",),
        False,
    ),
    "length that Connection names": ((OK + b"Connection: Content-Length\r\n" + LENGTH_2,), False),
    "odd case of chunked": ((OK + b"transfer-encoding: Chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",), False),
    "HTTP/1.0 upstream with keep-alive": (
        (b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\n" + LENGTH_2,),
        False,
    ),
    "upgrade offered": ((OK + b"Connection: Upgrade\r\nUpgrade: h2c\r\n" + LENGTH_2,), False),
    "upgrade required": (
        (b"HTTP/1.1 426 Upgrade Required\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n" + LENGTH_2,),
        False,
    ),
    "205": ((b"HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n",), False),
    "bytes above 0x7f in the reason phrase": ((b"HTTP/1.1 200 caf\xe9\r\n" + LENGTH_2,), False),
    "every token character in a name": ((OK + b"!#$%&'*+-.^_`|~09AZaz: 1\r\n" + LENGTH_2,), False),
    **{
        f"{name} in trailers": (
            (OK + CHUNKED + b"\r\n2\r\nok\r\n0\r\nX-A: 1\r\n%b\r\nx-b: 2\r\n\r\n" % line,),
            False,
        )
        for name, line in LATE.items()
    },
    "interim": ((EARLY_HINTS, OK + LENGTH_2), True),
    "unasked 100": ((b"HTTP/1.1 100 Continue\r\n\r\n", OK + LENGTH_2), True),
    "two interim": ((EARLY_HINTS, b"HTTP/1.1 102 Processing\r\n\r\n", OK + LENGTH_2), True),
    "known fields in lower case": (
        (OK + b"content-type: a/b\r\nlocation: /b\r\nContent-length: 2\r\n\r\nok",),
        False,
    ),
    "repeated Set-Cookie": ((OK + b"Set-Cookie: a=1\r\nX-A: 1\r\nSet-Cookie: b=2\r\n" + LENGTH_2,), False),
    "odd case": ((OK + b"sEt-CoOkie: a\r\nX-cAsE: 1\r\nx-b: 2\r\n" + LENGTH_2,), False),
    "bytes above 0x7f": ((OK + b"X-Name: caf\xc3\xa9 \xff\x80\r\n" + LENGTH_2,), False),
    "empty value": ((OK + b"X-A:\r\nX-B: \r\n" + LENGTH_2,), False),
    "spaces and tabs around": ((OK + b"X-A:  a \r\nX-B:\tb\t\r\n" + LENGTH_2,), False),
    "long value": ((OK + b"X-Long: " + b"v" * 7000 + b"\r\n" + LENGTH_2,), False),
    "Server and Date": ((OK + b"Date: Thu, 01 Jan 2026 00:00:00 GMT\r\nServer: bits\r\n" + LENGTH_2,), False),
    "caching": (
        (
            OK
            + b'ETag: "a"\r\nLast-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\nExpires: 0\r\nVary: Accept\r\n'
            b"Cache-Control: no-store\r\nAge: 1\r\n" + LENGTH_2,
        ),
        False,
    ),
    "content fields": (
        (
            OK + b"Content-Type: application/json;charset=utf-8\r\nContent-Encoding: br\r\n"
            b"Content-Language: sv\r\nAccept-Ranges: bytes\r\n" + LENGTH_2,
        ),
        False,
    ),
    "authentication": (
        (b'HTTP/1.1 403 Forbidden\r\nWWW-Authenticate: Bearer realm="a"\r\n' + LENGTH_2,),
        False,
    ),
    "401": ((b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer\r\n" + LENGTH_2,), False),
    "Retry-After": ((b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 7\r\n" + LENGTH_2,), False),
    "hop-by-hop": (
        (
            OK + b"Connection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\n"
            b"Upgrade: h2\r\nX-Stays: 1\r\n" + LENGTH_2,
        ),
        False,
    ),
    "the API's origin": (
        (OK + b'Alt-Svc: h3=":443"\r\nStrict-Transport-Security: max-age=1\r\nX-A: 1\r\n' + LENGTH_2,),
        False,
    ),
    "X-Request-ID": ((OK + b"X-Request-ID: theirs\r\nX-A: 1\r\n" + LENGTH_2,), False),
    "Via": ((OK + b"Via: 1.1 theirs\r\n" + LENGTH_2,), False),
    "redirect to the API": ((b"HTTP/1.1 302 Found\r\nLocation: http://api/v1/y?z\r\n" + LENGTH_2,), False),
    "redirect elsewhere": ((b"HTTP/1.1 302 Found\r\nLocation: https://a.example/x\r\n" + LENGTH_2,), False),
    "no reason phrase": ((b"HTTP/1.1 200 \r\n" + LENGTH_2,), False),
    "odd reason phrase": ((b"HTTP/1.1 200 All's  fine\r\n" + LENGTH_2,), False),
    "odd status": ((b"HTTP/1.1 299 Odd\r\n" + LENGTH_2,), False),
    "204 with length": ((b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",), False),
    "304 with length": ((b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n",), False),
    "cut in a body with a length": ((OK + b"Content-Length: 9\r\n\r\nok", CUT), False),
    "ended in a body with a length": ((OK + b"Content-Length: 9\r\n\r\nok",), True),
    "ended in a chunk": ((OK + CHUNKED + b"\r\n9\r\nok",), True),
    "ended before the last chunk": ((OK + CHUNKED + b"\r\n2\r\nok\r\n",), True),
}


def _without_content(pieces: Sequence[bytes]) -> Sequence[bytes]:
    """Return only the head, as a response to HEAD."""
    return (b"".join(pieces).partition(b"\r\n\r\n")[0] + b"\r\n\r\n",)


def _requests() -> Iterator[Case]:
    for method in METHODS:
        yield Case(f"{method.decode()}", request(method + b" /v1/x"))
    for method in WITH_BODIES:
        for name, body in BODIES.items():
            yield Case(f"{method.decode()}, {name}", request(method + b" /v1/x", *body))
    for name, line in LATE.items():
        body = chunks(b"hello", trailers=line + b"\r\n")
        yield Case(f"POST, {name} in trailers", request(b"POST /v1/x", *body))
    for name, target in TARGETS.items():
        method = b"OPTIONS" if target == b"*" else b"GET"
        yield Case(f"target: {name}", request(method + b" " + target))
    for host in HOSTS:
        yield Case(f"Host: {host.decode()}", b"GET /v1/x HTTP/1.1\r\nHost: %b\r\n\r\n" % host)
    for name, fields in FIELDS.items():
        yield Case(f"fields: {name}", request(fields=fields))
    for name, (framing, content) in BODIES.items():
        if content:
            head = request(b"POST /v1/x", EXPECT + framing)
            yield Case(f"Expect, {name}", head, after_continue=content)
    yield Case(
        "POST, space before a chunk extension", request(b"POST /v1/x", *chunks(b"hello", extension=b" ;a=b"))
    )
    yield Case("Expect, body at once", request(b"POST /v1/x", EXPECT + b"Content-Length: 2\r\n", b"{}"))
    yield Case("GET with a body", request(b"GET /v1/x", *with_length(b"{}")))
    yield Case("an empty line first", b"\r\n" + request())
    yield Case("HTTP/1.0 without Host", b"GET /v1/x HTTP/1.0\r\n\r\n")
    yield Case("HTTP/1.0 with a body", request(b"POST /v1/x", *with_length(b"{}"), version=b"HTTP/1.0"))


def _answers() -> Iterator[Case]:
    for name, (answer, closes) in ANSWERS.items():
        for client, bytes_in in CLIENTS.items():
            pieces = _without_content(answer) if client == "HEAD" else answer
            yield Case(f"answer: {name}, to {client}", bytes_in, pieces, closes)
    for name, (answer, closes) in MORE_ANSWERS.items():
        yield Case(f"answer: {name}", request(), answer, closes)
    answer = (EARLY_HINTS, OK + LENGTH_2)
    yield Case("answer: interim, to HTTP/1.0", request(version=b"HTTP/1.0"), answer, closes=True)


CASES = (*_requests(), *_answers())
