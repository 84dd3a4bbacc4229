"""A well-behaved and a hostile upstream: what the client gets of its answers.

Each row: name, section, request, pieces of the answer (CUT: reset, END: the connection ends), then what
the client sees: status, body, whether it is whole, lines that must be there, names that must not.
"""

import json

import pytest

from tests.support.bench import Bench, set_up
from tests.support.recorder import CUT

H = b"Host: localhost\r\n"
GET = b"GET /v1/x HTTP/1.1\r\n" + H + b"\r\n"
HEAD = b"HEAD /v1/x HTTP/1.1\r\n" + H + b"\r\n"
OLD = b"GET /v1/x HTTP/1.0\r\n\r\n"
CREATE = b"POST /v1/applications.create HTTP/1.1\r\n" + H + b"Content-Length: 2\r\n\r\n{}"
END = b"-- end --"
OK = b"HTTP/1.1 200 OK\r\n"
L2 = b"Content-Length: 2\r\n\r\nok"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
BODY = "RFC 9112 6.3"
Row = tuple[str, str, bytes, list[bytes], int, bytes, bool, list[bytes], list[bytes]]

ANSWERED: list[Row] = [
    (
        "length",
        BODY,
        GET,
        [OK + L2],
        200,
        b"ok",
        True,
        [b"Content-Length: 2"],
        [b"transfer-encoding", b"connection"],
    ),
    (
        "length of zero",
        BODY,
        GET,
        [OK + b"Content-Length: 0\r\n\r\n"],
        200,
        b"",
        True,
        [b"Content-Length: 0"],
        [],
    ),
    (
        "in pieces",
        BODY,
        GET,
        [OK[:9], OK[9:] + b"Content-", b"Length: 4\r\n\r", b"\nab", b"cd"],
        200,
        b"abcd",
        True,
        [],
        [],
    ),
    (
        "chunked",
        BODY,
        GET,
        [OK + CHUNKED + b"2\r\nok\r\n0\r\n\r\n"],
        200,
        b"ok",
        True,
        [b"Transfer-Encoding: chunked"],
        [b"content-length"],
    ),
    (
        "chunk extensions dropped",
        "RFC 9112 7.1.1",
        GET,
        [OK + CHUNKED + b"2;a=b\r\nok\r\n0\r\n\r\n"],
        200,
        b"ok",
        True,
        [],
        [],
    ),
    *(
        (
            f"whitespace behind a chunk's size: {line!r}",
            "RFC 9112 7.1.1",
            GET,
            [OK + CHUNKED + line + b"\r\nok\r\n0   \r\n\r\n"],
            200,
            b"ok",
            True,
            [],
            [],
        )
        for line in (b"2   ", b"2\t", b"2 ;a=b", b"2; a=b", b'2;a ="x"', b"2;a=b  ", b"0002 ")
    ),
    (
        "two CL alike",
        "RFC 9110 8.6",
        GET,
        [OK + b"content-length: 2\r\nX: 1\r\n" + L2],
        200,
        b"ok",
        True,
        [b"content-length: 2", b"X: 1"],
        [],
    ),
    (
        "two CL lines alike",
        "RFC 9110 8.6",
        GET,
        [OK + b"Content-Length: 2\r\n" + L2],
        200,
        b"ok",
        True,
        [b"Content-Length: 2"],
        [],
    ),
    (
        "CL list alike",
        "RFC 9110 8.6",
        GET,
        [OK + b"Content-Length: 2, 2\t,2\r\n\r\nok"],
        200,
        b"ok",
        True,
        [b"Content-Length: 2"],
        [],
    ),
    (
        "a Date of the API's own",
        "RFC 9110 6.6.1",
        GET,
        [OK + b"daTE: Thu, 01 Jan 1970 00:00:00 GMT\r\n" + L2],
        200,
        b"ok",
        True,
        [b"daTE: Thu, 01 Jan 1970 00:00:00 GMT"],
        [],
    ),
    (
        "close-delimited",
        BODY,
        GET,
        [OK + b"\r\nok", END],
        200,
        b"ok",
        True,
        [b"Transfer-Encoding: chunked"],
        [],
    ),
    ("close-delimited, empty", BODY, GET, [OK + b"\r\n", END], 200, b"", True, [], []),
    ("HTTP/1.0 upstream", "RFC 9112 2.3", GET, [b"HTTP/1.0 200 OK\r\n\r\nok", END], 200, b"ok", True, [], []),
    (
        "HTTP/1.0 upstream with a length",
        "RFC 9112 2.3",
        GET,
        [b"HTTP/1.0 200 OK\r\n" + L2],
        200,
        b"ok",
        True,
        [b"Content-Length: 2"],
        [],
    ),
    (
        "chunked to an HTTP/1.0 client",
        "RFC 9112 6.1",
        OLD,
        [OK + CHUNKED + b"2\r\nok\r\n0\r\n\r\n"],
        200,
        b"ok",
        True,
        [b"Connection: close"],
        [b"transfer-encoding"],
    ),
    (
        "HEAD with a length",
        "RFC 9110 9.3.2",
        HEAD,
        [OK + b"Content-Length: 99\r\n\r\n"],
        200,
        b"",
        True,
        [b"Content-Length: 99"],
        [],
    ),
    ("HEAD with chunked", "RFC 9110 9.3.2", HEAD, [OK + CHUNKED], 200, b"", True, [], []),
    (
        "204",
        "RFC 9110 15.3.5",
        GET,
        [b"HTTP/1.1 204 No Content\r\n\r\n"],
        204,
        b"",
        True,
        [],
        [b"content-length", b"transfer-encoding"],
    ),
    (
        "204 with a length",
        "RFC 9110 8.6",
        GET,
        [b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n"],
        204,
        b"",
        True,
        [],
        [b"content-length"],
    ),
    (
        "304 with a length",
        "RFC 9110 15.4.5",
        GET,
        [b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n"],
        304,
        b"",
        True,
        [b"Content-Length: 7"],
        [],
    ),
    ("no reason phrase", "RFC 9112 4", GET, [b"HTTP/1.1 200 \r\n" + L2], 200, b"ok", True, [], []),
    ("odd status", "RFC 9110 15", GET, [b"HTTP/1.1 299 Odd\r\n" + L2], 299, b"ok", True, [], []),
    (
        "redirect passes",
        "RFC 9110 15.4",
        GET,
        [b"HTTP/1.1 302 Found\r\nLocation: https://other.example/x\r\n" + L2],
        302,
        b"ok",
        True,
        [b"Location: https://other.example/x"],
        [],
    ),
    (
        "errors pass as they are",
        "RFC 9110 15.6",
        GET,
        [b"HTTP/1.1 503 Busy\r\nRetry-After: 7\r\n" + L2],
        503,
        b"ok",
        True,
        [b"Retry-After: 7"],
        [b"proxy-status"],
    ),
    ("a later minor version", "RFC 9110 2.5", GET, [b"HTTP/1.2 200 OK\r\n" + L2], 200, b"ok", True, [], []),
    (
        "the latest minor version",
        "RFC 9110 2.5",
        GET,
        [b"HTTP/1.9 200 OK\r\n" + L2],
        200,
        b"ok",
        True,
        [],
        [],
    ),
    ("413 passes", "RFC 9110 15.5.14", CREATE, [b"HTTP/1.1 413 Large\r\n" + L2], 413, b"ok", True, [], []),
    # Fields.
    (
        "hop-by-hop goes",
        "RFC 9110 7.6.1",
        GET,
        [
            OK
            + b"Connection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\nUpgrade: h2\r\nX-Stays: 1\r\n"
            + L2
        ],
        200,
        b"ok",
        True,
        [b"X-Stays: 1"],
        [b"x-hop", b"keep-alive", b"proxy-authenticate", b"upgrade", b"connection"],
    ),
    (
        "what speaks of the API's origin goes",
        "RFC 7838",
        GET,
        [OK + b'Alt-Svc: h3=":443"\r\nStrict-Transport-Security: max-age=1\r\n' + L2],
        200,
        b"ok",
        True,
        [],
        [b"alt-svc", b"strict-transport-security"],
    ),
    (
        "case, order, repeats and odd bytes kept",
        "RFC 9110 5",
        GET,
        [OK + b"sEt-CoOkie: a\r\nSet-Cookie: b\r\nX: caf\xe9\r\n" + L2],
        200,
        b"ok",
        True,
        [b"sEt-CoOkie: a", b"Set-Cookie: b", b"X: caf\xe9"],
        [],
    ),
    (
        "X-Request-ID of the API kept",
        "request id",
        GET,
        [OK + b"X-Request-ID: theirs\r\n" + L2],
        200,
        b"ok",
        True,
        [b"X-Request-ID: theirs"],
        [],
    ),
    (
        "interim answers go before",
        "RFC 9110 15.2",
        GET,
        [b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", OK + L2],
        103,
        b"",
        True,
        [b"Link: </a>"],
        [],
    ),
    (
        "an unasked 100 passes",
        "RFC 9110 15.2",
        GET,
        [b"HTTP/1.1 100 Continue\r\n\r\n" + OK + L2],
        100,
        b"",
        True,
        [],
        [],
    ),
    # What is cut is never a clean end.
    ("cut before anything", "RFC 9112 8", CREATE, [CUT], 502, b"connection_lost", True, [], []),
    ("closed before anything", "RFC 9112 8", CREATE, [END], 502, b"connection_lost", True, [], []),
    (
        "cut in the status line",
        "RFC 9112 8",
        CREATE,
        [b"HTTP/1.1 20", CUT],
        502,
        b"connection_lost",
        True,
        [],
        [],
    ),
    (
        "closed in the head",
        "RFC 9112 8",
        CREATE,
        [OK + b"X: 1\r\n", END],
        502,
        b"connection_lost",
        True,
        [],
        [],
    ),
    (
        "closed in a body with a length",
        "RFC 9112 8",
        GET,
        [OK + b"Content-Length: 5\r\n\r\nab", END],
        200,
        b"ab",
        False,
        [],
        [],
    ),
    ("closed in a chunk", "RFC 9112 8", GET, [OK + CHUNKED + b"5\r\nab", END], 200, b"", False, [], []),
    (
        "closed before the last chunk",
        "RFC 9112 8",
        GET,
        [OK + CHUNKED + b"2\r\nok\r\n", END],
        200,
        b"",
        False,
        [],
        [],
    ),
    # What is not HTTP, or could be read in two ways, is a 502.
    ("nonsense", "RFC 9112 4", CREATE, [b"SSH-2.0-x\r\n\r\n"], 502, b"bad_response", True, [], []),
    ("HTTP/0.9 answer", "RFC 9112 4", CREATE, [b"<html>\r\n\r\n"], 502, b"bad_response", True, [], []),
    (
        "HTTP/2 answer",
        "RFC 9112 4",
        CREATE,
        [b"HTTP/2.0 200 OK\r\n" + L2],
        502,
        b"bad_response",
        True,
        [],
        [],
    ),
    (
        "status of two digits",
        "RFC 9112 4",
        CREATE,
        [b"HTTP/1.1 20 OK\r\n" + L2],
        502,
        b"bad_response",
        True,
        [],
        [],
    ),
    (
        "status below 100",
        "RFC 9110 15",
        CREATE,
        [b"HTTP/1.1 099 Early\r\n\r\n" + OK + L2],
        502,
        b"bad_response",
        True,
        [],
        [],
    ),
    (
        "status of four digits",
        "RFC 9112 4",
        CREATE,
        [b"HTTP/1.1 2000 OK\r\n" + L2],
        502,
        b"bad_response",
        True,
        [],
        [],
    ),
    (
        "CL and TE",
        BODY,
        CREATE,
        [OK + b"Content-Length: 2\r\n" + CHUNKED + b"0\r\n\r\n"],
        502,
        b"bad_response",
        True,
        [],
        [],
    ),
    (
        "two CL that differ",
        BODY,
        CREATE,
        [OK + b"Content-Length: 3\r\n" + L2],
        502,
        b"bad_response",
        True,
        [],
        [],
    ),
    (
        "a CL list that differs",
        BODY,
        CREATE,
        [OK + b"Content-Length: 2, 02\r\n\r\nok"],
        502,
        b"bad_response",
        True,
        [],
        [],
    ),
    (
        "an empty line before the status line",
        "RFC 9112 4",
        CREATE,
        [b"\r\n" + OK + L2],
        502,
        b"bad_response",
        True,
        [],
        [],
    ),
    (
        "an empty line before the status line, in a read of its own",
        "RFC 9112 4",
        CREATE,
        [b"\r\n", OK + L2],
        502,
        b"bad_response",
        True,
        [],
        [],
    ),
    ("odd CL", BODY, CREATE, [OK + b"Content-Length: 2x\r\n\r\nok"], 502, b"bad_response", True, [], []),
    (
        "TE other than chunked",
        BODY,
        CREATE,
        [OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"],
        502,
        b"bad_response",
        True,
        [],
        [],
    ),
    (
        "TE in HTTP/1.0",
        BODY,
        CREATE,
        [b"HTTP/1.0 200 OK\r\n" + CHUNKED + b"0\r\n\r\n"],
        502,
        b"bad_response",
        True,
        [],
        [],
    ),
    (
        "bare LF",
        "RFC 9112 2.2",
        CREATE,
        [b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok", END],
        502,
        b"",
        True,
        [],
        [],
    ),
    ("obs-fold", "RFC 9112 5.2", CREATE, [OK + b"X: a\r\n b\r\n" + L2], 502, b"bad_response", True, [], []),
    (
        "NUL in a value",
        "RFC 9110 5.5",
        CREATE,
        [OK + b"X: a\x00b\r\n" + L2],
        502,
        b"bad_response",
        True,
        [],
        [],
    ),
    (
        "space before colon",
        "RFC 9112 5.1",
        CREATE,
        [OK + b"X : a\r\n" + L2],
        502,
        b"bad_response",
        True,
        [],
        [],
    ),
    (
        "control byte in the reason phrase",
        "RFC 9112 4",
        CREATE,
        [b"HTTP/1.1 200 O\x0bK\r\n" + L2],
        502,
        b"bad_response",
        True,
        [],
        [],
    ),
    (
        "101 nobody asked for",
        "RFC 9110 15.2.2",
        CREATE,
        [b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"],
        502,
        b"upgrade_failed",
        True,
        [],
        [],
    ),
    (
        "head without an end",
        "RFC 9112",
        CREATE,
        [OK + b"X: " + b"a" * 300_000, END],
        502,
        b"bad_response",
        True,
        [],
        [],
    ),
    (
        "bad chunk size behind the head",
        "RFC 9112 7.1",
        GET,
        [OK + CHUNKED + b"zz\r\n"],
        200,
        b"",
        False,
        [],
        [],
    ),
]


@pytest.mark.parametrize(
    ("sent", "pieces", "status", "body", "whole", "lines", "absent"),
    [row[2:] for row in ANSWERED],
    ids=[row[0] for row in ANSWERED],
)
async def test_answered(
    bench: Bench,
    sent: bytes,
    pieces: list[bytes],
    status: int,
    body: bytes,
    whole: bool,
    lines: list[bytes],
    absent: list[bytes],
) -> None:
    bench.upstream.close_after = END in pieces
    bench.upstream.script = [[piece for piece in pieces if piece != END]]
    async with bench.connect() as client:
        await client.send(sent)
        answer = await client.answer(sent.split(b" ")[0])
        if not whole and answer.status == 502:
            return  # Head and fault came in one read: nothing had been sent to the client yet.
        assert answer.status == status
        head = answer.head.split(b"\r\n")
        assert not [line for line in lines if line not in head]
        names = {line.partition(b":")[0].lower() for line in head[1:]}
        assert not names.intersection(absent)
        assert sum(line.lower().startswith(b"content-length:") for line in head) <= 1
        if status == 502:
            assert (answer.field(b"Proxy-Status") or b"").startswith(b"bits-auth-proxy; error=")
            assert body in (b"", json.loads(answer.body)["code"].encode())
        else:
            # The reset may have overtaken what had come.
            assert answer.body == body or not whole
            assert b"x-request-id" in names or status in (100, 103)
        assert answer.whole is whole
        if not whole:
            assert await client.is_closed()
    # Whatever happened: a call that creates something went up once.
    assert len(bench.upstream.requests) == 1


@pytest.mark.parametrize(
    "answer",
    [
        OK + b"Content-Length: 2\r\n\r\nok" + OK + b"Content-Length: 4\r\n\r\nEVIL",
        OK + CHUNKED + b"2\r\nok\r\n0\r\n\r\n" + OK + b"Content-Length: 4\r\n\r\nEVIL",
        OK + b"Content-Length: 2\r\n\r\nokEVIL",
        b"HTTP/1.1 204 No Content\r\n\r\n" + OK + b"Content-Length: 4\r\n\r\nEVIL",
    ],
)
async def test_bytes_behind_an_answer_reach_nobody_and_end_the_connection(
    bench: Bench, answer: bytes
) -> None:
    bench.upstream.script = [(answer,), (OK + b"Content-Length: 4\r\n\r\ngood",)]
    async with bench.connect() as client, bench.connect() as other:
        await client.send(GET)
        assert (await client.answer()).body in (b"ok", b"")
        for each in (client, other):
            await each.send(GET)
            assert (await each.answer()).body == b"good"
    assert bench.upstream.connections >= 2


async def test_response_trailers_pass_without_what_must_not_come_late(bench: Bench) -> None:
    bench.upstream.script = [
        (
            OK
            + b"Trailer: X-Sum\r\n"
            + CHUNKED
            + b"2\r\nok\r\n0\r\nX-Sum: 9\r\nContent-Type: x/y\r\nSet-Cookie: a=b\r\n\r\n",
        )
    ]
    async with bench.connect() as client:
        await client.send(GET + GET)
        head = await client.until(b"\r\n\r\n")
        assert b"Trailer: X-Sum\r\n" in head
        assert await client.until(b"0\r\n") == b"2\r\nok\r\n0\r\n"
        assert await client.until(b"\r\n\r\n") == b"X-Sum: 9\r\n\r\n"
        assert (await client.answer()).body == b"ok"


@pytest.mark.parametrize(
    ("location", "seen"),
    [
        (b"http://UPSTREAM/v1/y?z#f", b"/v1/y?z#f"),
        (b"HTTP://UPSTREAM", b"/"),
        (b"http://UPSTREAM?q", b"/?q"),
        (b"https://UPSTREAM/x", b"https://UPSTREAM/x"),
        (b"/relative", b"/relative"),
        (b"//other.example/x", b"//other.example/x"),
        (b"http://UPSTREAM.evil.example/", b"http://UPSTREAM.evil.example/"),
        (b"http://UPSTREAM@evil.example/", b"http://UPSTREAM@evil.example/"),
        (b"http://UPSTREAM//evil.example", b"/.//evil.example"),
        (b"http://UPSTREAM/\\evil.example", b"/%5Cevil.example"),
        (b"http://UPSTREAM/\t/evil.example", b"/.//evil.example"),
        (b"//UPSTREAM/\t\\evil.example", b"/%5Cevil.example"),
    ],
)
async def test_a_location_at_the_api_leads_back_here(bench: Bench, location: bytes, seen: bytes) -> None:
    authority = bench.upstream.authority.encode()
    location, seen = location.replace(b"UPSTREAM", authority), seen.replace(b"UPSTREAM", authority)
    bench.upstream.script = [
        (b"HTTP/1.1 302 Found\r\nLocation: " + location + b"\r\nContent-Length: 0\r\n\r\n",)
    ]
    async with bench.connect() as client:
        await client.send(GET)
        assert (await client.answer()).field(b"Location") == seen


async def test_an_answer_before_the_body_has_gone_up_ends_cleanly(bench: Bench) -> None:
    bench.upstream.script = [(b"HTTP/1.1 413 Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno",)]
    bench.upstream.answer_early = True
    async with bench.connect() as client:
        await client.send(b"POST / HTTP/1.1\r\n" + H + b"Content-Length: 100000\r\n\r\n" + b"x" * 1000)
        answer = await client.answer()
        assert (answer.status, answer.body, answer.whole) == (413, b"no", True)
        assert await client.is_closed()


@pytest.mark.parametrize("line", [b"GET /v1/x", b"POST /v1/applications.get", b"POST /v1/applications.list"])
async def test_a_read_on_a_connection_that_died_meanwhile_is_sent_again_once(
    bench: Bench, line: bytes
) -> None:
    read = line + b" HTTP/1.1\r\n" + H + b"Content-Length: 2\r\n\r\n{}"
    bench.upstream.script = [
        (OK + L2,),
        (CUT,),
        (OK + b"Content-Length: 5\r\n\r\nagain",),
        (OK + L2,),
        (CUT,),
    ]
    async with bench.connect() as client:
        await client.send(read)
        assert (await client.answer()).body == b"ok"
        await client.send(read)
        assert (await client.answer()).body == b"again"
        await client.send(read)
        assert (await client.answer()).status == 200
        # Cut again and again: the second time is the last.
        await client.send(read)
        assert (await client.answer()).status == 502
    assert bench.upstream.requests[1] == bench.upstream.requests[2]


async def test_events_arrive_as_they_are_sent() -> None:
    async with set_up() as bench, bench.connect() as client:
        bench.upstream.script = [(OK + b"Content-Type: text/event-stream\r\n" + CHUNKED,)]
        await client.send(GET)
        await client.until(b"\r\n\r\n")
        for number in range(3):
            event = b"data: %d\n\n" % number
            bench.upstream.push(b"%x\r\n%b\r\n" % (len(event), event))
            # Nothing comes behind it, and yet it is here.
            assert await client.until(event) == b"%x\r\n%b" % (len(event), event)
            await client.until(b"\r\n")


async def test_a_body_of_a_mebibyte_passes_both_ways(bench: Bench) -> None:
    big = bytes(range(256)) * 4096
    bench.upstream.script = [(OK + b"Content-Length: %d\r\n\r\n" % len(big) + big,)]
    async with bench.connect() as client:
        await client.send(b"POST / HTTP/1.1\r\n" + H + b"Content-Length: %d\r\n\r\n" % len(big) + big)
        assert (await client.answer()).body == big
    assert bench.upstream.requests[0][1] == big
