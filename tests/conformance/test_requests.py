"""What is forwarded: the very bytes that the upstream gets.

Each row: name, section, bytes in, lines that must go up, names that must not, body that goes up.
"""

import asyncio

import pytest

from tests.support.bench import Bench, set_up
from tests.support.recorder import TOKEN
from tests.support.waiting import HANGS

H = b"Host: localhost\r\n"
GET = b"GET /v1/x HTTP/1.1\r\n" + H
POST = b"POST /v1/x HTTP/1.1\r\n" + H
HOP = "RFC 9110 7.6.1"
BODY = "RFC 9112 6"
OURS = b"Authorization: Bearer " + TOKEN.encode()

FORWARDED: list[tuple[str, str, bytes, list[bytes], list[bytes], bytes]] = [
    (
        "plain GET",
        "RFC 9112 3",
        GET + b"\r\n",
        [b"GET /v1/x HTTP/1.1", OURS],
        [b"content-length", b"transfer-encoding"],
        b"",
    ),
    (
        "query",
        "RFC 9112 3.2",
        b"GET /v1/x?a=%2f&b=c;d//../e HTTP/1.1\r\n" + H + b"\r\n",
        [b"GET /v1/x?a=%2f&b=c;d//../e HTTP/1.1"],
        [],
        b"",
    ),
    *(
        (
            f"query {query!r}",
            "RFC 9112 3.2",
            b"GET /v1/x?" + query + b" HTTP/1.1\r\n" + H + b"\r\n",
            [line],
            [],
            b"",
        )
        for query in (
            b"q=caf\xc3\xa9",
            b"q=\xe9",
            b"q=%E9",
            b"q=%2F%2f%00",
            b"\xff",
            b"a=?b=\xe9",
            b'<>[]{}|\\^`"',
        )
        for line in (b"GET /v1/x?" + query + b" HTTP/1.1",)
    ),
    (
        "encoded bytes that must be",
        "RFC 3986 2.1",
        b"GET /v1/%C3%A9%20x HTTP/1.1\r\n" + H + b"\r\n",
        [b"GET /v1/%C3%A9%20x HTTP/1.1"],
        [],
        b"",
    ),
    ("trailing slash", "RFC 3986 6", b"GET /v1/ HTTP/1.1\r\n" + H + b"\r\n", [b"GET /v1/ HTTP/1.1"], [], b""),
    ("root", "RFC 9112 3.2", b"GET / HTTP/1.1\r\n" + H + b"\r\n", [b"GET / HTTP/1.1"], [], b""),
    (
        "absolute form",
        "RFC 9112 3.2.2",
        b"GET http://localhost:1/v1/x?y HTTP/1.1\r\n" + H + b"\r\n",
        [b"GET /v1/x?y HTTP/1.1"],
        [],
        b"",
    ),
    (
        "absolute form without a path",
        "RFC 9112 3.2.2",
        b"GET http://localhost HTTP/1.1\r\n" + H + b"\r\n",
        [b"GET / HTTP/1.1"],
        [],
        b"",
    ),
    (
        "OPTIONS *",
        "RFC 9112 3.2.4",
        b"OPTIONS * HTTP/1.1\r\n" + H + b"\r\n",
        [b"OPTIONS * HTTP/1.1"],
        [],
        b"",
    ),
    (
        "DELETE",
        "RFC 9110 9.3.5",
        b"DELETE /v1/x HTTP/1.1\r\n" + H + b"\r\n",
        [b"DELETE /v1/x HTTP/1.1"],
        [],
        b"",
    ),
    (
        "PATCH with a body",
        "RFC 5789",
        b"PATCH /v1/x HTTP/1.1\r\n" + H + b"Content-Length: 2\r\n\r\nab",
        [b"Content-Length: 2"],
        [],
        b"ab",
    ),
    ("an empty line first", "RFC 9112 2.2", b"\r\n" + GET + b"\r\n", [b"GET /v1/x HTTP/1.1"], [], b""),
    ("no space behind the colon", "RFC 9112 5", GET + b"X:a\r\n\r\n", [b"X: a"], [], b""),
    ("spaces around a value", "RFC 9112 5", GET + b"X: \t a b \t \r\n\r\n", [b"X: a b"], [], b""),
    ("empty value", "RFC 9112 5", GET + b"X:\r\nY: \r\n\r\n", [b"X: ", b"Y: "], [], b""),
    (
        "case and order kept",
        "RFC 9110 5",
        GET + b"X-CaSe: 1\r\nx-b: 2\r\nX-CaSe: 3\r\n\r\n",
        [b"X-CaSe: 1", b"x-b: 2", b"X-CaSe: 3"],
        [],
        b"",
    ),
    (
        "bytes above 0x7f kept",
        "RFC 9110 5.5",
        GET + b"X: caf\xc3\xa9 \xff\r\n\r\n",
        [b"X: caf\xc3\xa9 \xff"],
        [],
        b"",
    ),
    (
        "two Cookie lines kept",
        "RFC 6265 5.4",
        GET + b"Cookie: a=1\r\nCookie: b=2\r\n\r\n",
        [b"Cookie: a=1", b"Cookie: b=2"],
        [],
        b"",
    ),
    (
        "Accept and its kind untouched",
        "Bits",
        GET + b"Accept: application/vnd.bits.v1.0+json\r\nAccept-Encoding: gzip, br\r\nUser-Agent: u\r\n\r\n",
        [b"Accept: application/vnd.bits.v1.0+json", b"Accept-Encoding: gzip, br", b"User-Agent: u"],
        [],
        b"",
    ),
    (
        "traceparent untouched",
        "Trace Context",
        GET + b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\r\n",
        [b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"],
        [],
        b"",
    ),
    (
        "X-Request-ID kept",
        "request id",
        GET + b"X-Request-ID: my-own\r\n\r\n",
        [b"X-Request-ID: my-own"],
        [],
        b"",
    ),
    # Hop by hop.
    (
        "Connection goes",
        HOP,
        GET + b"Connection: keep-alive\r\nKeep-Alive: timeout=5\r\n\r\n",
        [OURS],
        [b"connection", b"keep-alive"],
        b"",
    ),
    (
        "what Connection nominates goes",
        HOP,
        GET + b"Connection: X-Secret, x-other\r\nX-Secret: 1\r\nX-Other: 2\r\nX-Stays: 3\r\n\r\n",
        [b"X-Stays: 3"],
        [b"x-secret", b"x-other"],
        b"",
    ),
    (
        "Connection options over two lines",
        HOP,
        GET + b"Connection: X-A\r\nConnection: X-B\r\nX-A: 1\r\nX-B: 2\r\n\r\n",
        [OURS],
        [b"x-a", b"x-b"],
        b"",
    ),
    (
        "nominating what we inject does not help",
        HOP,
        GET + b"Connection: Authorization, Host, Via, X-Request-ID, close\r\n\r\n",
        [OURS, b"Via: 1.1 "],
        [b"connection"],
        b"",
    ),
    (
        "nominating Content-Length does not help",
        HOP,
        POST + b"Connection: Content-Length\r\nContent-Length: 2\r\n\r\nab",
        [b"Content-Length: 2"],
        [b"connection"],
        b"ab",
    ),
    (
        "TE, Trailer, Upgrade, Proxy-* go",
        HOP,
        GET
        + b"TE: trailers\r\nTrailer: X\r\nUpgrade: h2c\r\nProxy-Authorization: Basic eA==\r\nProxy-Connection: keep-alive\r\n\r\n",
        [OURS],
        [b"te", b"trailer", b"upgrade", b"proxy-authorization", b"proxy-connection"],
        b"",
    ),
    (
        "h2c upgrade with a body, as Java's client sends it",
        "RFC 9110 7.8",
        POST
        + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA\r\nContent-Length: 4\r\n\r\nabcd",
        [b"Content-Length: 4"],
        [b"upgrade", b"http2-settings", b"connection"],
        b"abcd",
    ),
    (
        "upgrade without Connection",
        "RFC 9110 7.8",
        GET + b"Upgrade: websocket\r\n\r\n",
        [OURS],
        [b"upgrade"],
        b"",
    ),
    # What tells of the inside.
    (
        "Forwarded and X-Forwarded-* go",
        "privacy",
        GET
        + b"Forwarded: for=10.0.0.1\r\nX-Forwarded-For: 10.0.0.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Anything: x\r\nX-Real-IP: 10.0.0.1\r\n\r\n",
        [OURS],
        [b"forwarded", b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-anything", b"x-real-ip"],
        b"",
    ),
    (
        "earlier Via kept",
        "RFC 9110 7.6.3",
        GET + b"Via: 1.0 fred\r\n\r\n",
        [b"Via: 1.0 fred", b"Via: 1.1 bits-auth-proxy-"],
        [],
        b"",
    ),
    # Bodies.
    (
        "body with a length",
        BODY,
        POST + b"Content-Length: 5\r\n\r\nhello",
        [b"Content-Length: 5"],
        [b"transfer-encoding"],
        b"hello",
    ),
    ("length of zero kept", BODY, POST + b"Content-Length: 0\r\n\r\n", [b"Content-Length: 0"], [], b""),
    (
        "length with zeros in front",
        BODY,
        POST + b"Content-Length: 0005\r\n\r\nhello",
        [b"Content-Length: 5"],
        [],
        b"hello",
    ),
    (
        "GET with a body",
        "RFC 9110 9.3.1",
        GET + b"Content-Length: 2\r\n\r\nab",
        [b"Content-Length: 2"],
        [],
        b"ab",
    ),
    (
        "chunked body",
        BODY,
        POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        [b"Transfer-Encoding: chunked"],
        [b"content-length"],
        b"5\r\nhello\r\n0\r\n\r\n",
    ),
    (
        "chunked in capitals",
        BODY,
        POST + b"TRANSFER-ENCODING: Chunked\r\n\r\n0\r\n\r\n",
        [b"Transfer-Encoding: chunked"],
        [],
        b"0\r\n\r\n",
    ),
    (
        "chunk extensions dropped",
        "RFC 9112 7.1.1",
        POST + b'Transfer-Encoding: chunked\r\n\r\n5;a=b;c="d"\r\nhello\r\n0;x\r\n\r\n',
        [],
        [],
        b"5\r\nhello\r\n0\r\n\r\n",
    ),
    (
        "request trailers discarded",
        "RFC 9110 6.5",
        POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Late: 1\r\nAuthorization: x\r\n\r\n",
        [OURS],
        [b"x-late"],
        b"5\r\nhello\r\n0\r\n\r\n",
    ),
    (
        "zeros in front of a chunk size",
        "RFC 9112 7.1",
        POST + b"Transfer-Encoding: chunked\r\n\r\n0005\r\nhello\r\n000\r\n\r\n",
        [],
        [],
        b"5\r\nhello\r\n0\r\n\r\n",
    ),
    (
        "chunk that holds what looks like an end",
        "RFC 9112 7.1",
        POST + b"Transfer-Encoding: chunked\r\n\r\n9\r\n0\r\n\r\nGET \r\n0\r\n\r\n",
        [],
        [],
        b"9\r\n0\r\n\r\nGET \r\n0\r\n\r\n",
    ),
    *(
        (
            f"whitespace around the coding: {value!r}",
            "RFC 9112 5.1",
            POST + b"Transfer-Encoding:" + value + b"\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            [b"Transfer-Encoding: chunked"],
            [b"content-length"],
            b"5\r\nhello\r\n0\r\n\r\n",
        )
        for value in (b" chunked\t", b"\tchunked", b"chunked \t ", b" \t Chunked\t\t")
    ),
    *(
        (
            f"whitespace around the length: {value!r}",
            "RFC 9112 5.1",
            POST + b"Content-Length:" + value + b"\r\n\r\nhello",
            [b"Content-Length: 5"],
            [],
            b"hello",
        )
        for value in (b" 5\t", b"\t5", b"5 \t ")
    ),
    *(
        (
            f"whitespace in a chunk extension: {line!r}",
            "RFC 9112 7.1.1",
            POST + b"Transfer-Encoding: chunked\r\n\r\n" + line + b"\r\nhello\r\n0 ;z\r\n\r\n",
            [b"Transfer-Encoding: chunked"],
            [],
            b"5\r\nhello\r\n0\r\n\r\n",
        )
        for line in (b"5 ;a=b", b"5; a=b", b'5;a ="x"', b"5;a= b", b"5\t;\ta\t=\tb", b'5 ; a = "b;c" ; d')
    ),
    # HTTP/1.0.
    (
        "HTTP/1.0 client",
        "RFC 9112 2.3",
        b"GET /v1/x HTTP/1.0\r\n" + H + b"\r\n",
        [b"GET /v1/x HTTP/1.1", b"Via: 1.0 bits-auth-proxy-"],
        [],
        b"",
    ),
    (
        "HTTP/1.0 client without Host",
        "RFC 9112 3.2",
        b"GET /v1/x HTTP/1.0\r\n\r\n",
        [b"GET /v1/x HTTP/1.1"],
        [],
        b"",
    ),
    (
        "HTTP/1.0 client with a body",
        "RFC 9112 6.3",
        b"POST /v1/x HTTP/1.0\r\nContent-Length: 2\r\n\r\nab",
        [b"Content-Length: 2"],
        [],
        b"ab",
    ),
    # Hosts that are ours.
    (
        "Host with a port",
        "RFC 9110 7.2",
        b"GET / HTTP/1.1\r\nHost: LOCALHOST:8080\r\n\r\n",
        [b"GET / HTTP/1.1"],
        [],
        b"",
    ),
    (
        "Host 127.0.0.1",
        "RFC 9110 7.2",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        [b"GET / HTTP/1.1"],
        [],
        b"",
    ),
    *(
        (f"Host {host}", "RFC 9110 7.2", f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode(), [], [], b"")
        for host in (
            "localhost.",
            "LocalHost.:8080",
            "[0:0:0:0:0:0:0:1]",
            "[0:0:0:0:0:0:0:1]:8080",
            "[::0001]",
            "[0000::0.0.0.1]",
        )
    ),
    (
        "Host [::1]",
        "RFC 9110 7.2",
        b"GET / HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n",
        [b"GET / HTTP/1.1"],
        [],
        b"",
    ),
    (
        "same-origin page without Origin",
        "Fetch metadata",
        GET + b"Sec-Fetch-Site: none\r\n\r\n",
        [OURS],
        [],
        b"",
    ),
    (
        "userinfo",
        "access",
        b"GET /oauth2/userinfo HTTP/1.1\r\n" + H + b"\r\n",
        [b"GET /oauth2/userinfo HTTP/1.1"],
        [],
        b"",
    ),
    (
        "a name that only holds oauth2",
        "access",
        b"GET /v1/oauth2x/y HTTP/1.1\r\n" + H + b"\r\n",
        [b"GET /v1/oauth2x/y HTTP/1.1"],
        [],
        b"",
    ),
]


@pytest.mark.parametrize(
    ("sent", "lines", "absent", "body"), [row[2:] for row in FORWARDED], ids=[row[0] for row in FORWARDED]
)
async def test_forwarded(
    bench: Bench, sent: bytes, lines: list[bytes], absent: list[bytes], body: bytes
) -> None:
    async with bench.connect() as client:
        await client.send(sent)
        assert (await client.answer()).status == 200
    ((head, got),) = bench.upstream.requests
    up = head.split(b"\r\n")
    expected = iter(up)
    for line in lines:
        assert any(each.startswith(line) if line.startswith(b"Via:") else each == line for each in up), line
    fields = [line for line in lines if not line.startswith((b"Authorization", b"Via")) and line in up]
    # In their order, repeats included.
    assert all(any(each == line for each in expected) for line in fields)
    names = [line.partition(b":")[0].lower() for line in up[1:]]
    assert not set(names).intersection(absent)
    assert names.count(b"host") == 1
    assert f"Host: {bench.upstream.authority}".encode() in up
    assert names.count(b"authorization") == 1
    assert OURS in up
    assert names.count(b"x-request-id") == 1
    assert got == body


async def test_any_split_of_a_request_into_reads_arrives_the_same(bench: Bench) -> None:
    sent = POST + b"X: y\r\nTransfer-Encoding: chunked\r\n\r\n5;e=1\r\nhello\r\n3\r\nabc\r\n0\r\nT: 1\r\n\r\n"
    async with bench.connect() as client:
        for position in range(1, len(sent)):
            await client.send(sent[:position])
            await client.send(sent[position:])
            assert (await client.answer()).status == 200
        for byte in sent:
            await client.send(bytes([byte]))
        assert (await client.answer()).status == 200
    assert len(bench.upstream.requests) == len(sent)
    pieces = {b"".join(_chunks(body)) for _, body in bench.upstream.requests}
    assert pieces == {b"helloabc"}


def _chunks(body: bytes) -> list[bytes]:
    found = []
    while body:
        size, _, body = body.partition(b"\r\n")
        found.append(body[: int(size, 16)])
        body = body[int(size, 16) + 2 :]
    return found


async def test_pipelined_requests_are_answered_in_order(bench: Bench) -> None:
    bench.upstream.script = [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n" + bytes([digit]),) for digit in b"0123456789"
    ]
    async with bench.connect() as client:
        await client.send(
            b"".join(b"POST /%d HTTP/1.1\r\n" % n + H + b"Content-Length: 1\r\n\r\nx" for n in range(10))
        )
        assert b"".join([(await client.answer()).body for _ in range(10)]) == b"0123456789"
    assert [head.split()[1] for head, _ in bench.upstream.requests] == [b"/%d" % n for n in range(10)]
    # One exchange at a time on a client's connection: one to the upstream was enough.
    assert bench.upstream.connections == 1


async def test_expect_100_continue_is_answered_here_and_not_forwarded(bench: Bench) -> None:
    async with bench.connect() as client:
        await client.send(POST + b"Expect: 100-continue\r\nContent-Length: 4\r\n\r\n")
        assert (await client.answer()).status == 100
        await client.send(b"body")
        assert (await client.answer()).status == 200
    ((head, body),) = bench.upstream.requests
    assert b"xpect" not in head
    assert body == b"body"


async def test_an_http_1_0_client_is_not_told_to_continue(bench: Bench) -> None:
    async with bench.connect() as client:
        await client.send(b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\nbody")
        assert (await client.answer()).status == 200


@pytest.mark.parametrize(
    ("sent", "stays"),
    [
        (GET + b"\r\n", True),
        (GET + b"Connection: close\r\n\r\n", False),
        (GET + b"Connection: Close, x\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", True),
    ],
)
async def test_the_clients_connection_persists_as_agreed(bench: Bench, sent: bytes, stays: bool) -> None:
    async with bench.connect() as client:
        await client.send(sent)
        answer = await client.answer()
        assert answer.status == 200
        assert (answer.field(b"Connection") == b"close") is not stays
        if stays:
            await client.send(sent)
            assert (await client.answer()).status == 200
        else:
            assert await client.is_closed()


async def test_a_request_that_has_been_here_is_a_loop(bench: Bench) -> None:
    async with bench.connect() as client:
        await client.send(GET + b"\r\n")
        await client.answer()
        via = next(line for line in bench.upstream.requests[0][0].split(b"\r\n") if line.startswith(b"Via"))
        await client.send(GET + via + b"\r\n\r\n")
        answer = await client.answer()
        assert answer.status == 502
        assert answer.field(b"Proxy-Status") == b"bits-auth-proxy; error=proxy_loop_detected"
    assert len(bench.upstream.requests) == 1


async def test_the_api_is_told_of_the_client_only_if_asked_for() -> None:
    async with set_up(BITS_FORWARDED_HEADERS="true") as bench, bench.connect() as client:
        await client.send(GET + b"X-Forwarded-For: 6.6.6.6\r\n\r\n")
        await client.answer()
    lines = bench.upstream.requests[0][0].split(b"\r\n")
    assert [line for line in lines if line.lower().startswith(b"x-forwarded-")] == [
        b"X-Forwarded-For: 127.0.0.1",
        b"X-Forwarded-Proto: http",
        b"X-Forwarded-Host: localhost",
    ]


async def test_a_client_that_leaves_takes_its_request_along(bench: Bench) -> None:
    bench.upstream.script = [()]
    async with bench.connect() as client:
        await client.send(POST + b"Content-Length: 100000\r\n\r\nhalf")
        await bench.upstream.arrived.wait()
    async with asyncio.timeout(HANGS):
        await bench.upstream.gone.wait()
    assert bench.upstream.requests[0][1] == b""


async def test_a_client_that_leaves_within_a_small_body_has_not_reached_the_api(bench: Bench) -> None:
    async with bench.connect() as client:
        await client.send(POST + b"Content-Length: 10\r\n\r\nhalf")
        await bench.seen(lambda: bench.in_flight() == 1)
    await bench.seen(lambda: bench.in_flight() == 0)
    assert bench.upstream.requests == []
