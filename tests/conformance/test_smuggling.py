"""Request smuggling as the literature has it: what two readers could take for two things is nobody's request.

Behind each of the refused there is a request that a reader of the other opinion would serve. Names are those
of the literature: who goes by Content-Length, who by Transfer-Encoding, who by neither (0), who ends a line
at what (TERM, EXT).
"""

import pytest

from tests.support.bench import Bench

HIDDEN = b"GET /v1/smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
GET = b"GET /v1/x HTTP/1.1\r\nHost: localhost\r\n\r\n"


def post(lines: bytes, body: bytes = b"") -> bytes:
    return b"POST /v1/x HTTP/1.1\r\nHost: localhost\r\n%b\r\n%b" % (lines, body)


def chunked(body: bytes) -> bytes:
    return post(b"Transfer-Encoding: chunked\r\n", body)


CODINGS = {
    "space before the colon": b"Transfer-Encoding : chunked",
    "tab before the colon": b"Transfer-Encoding\t: chunked",
    "space before the name": b" Transfer-Encoding: chunked",
    "folded before the colon": b"Transfer-Encoding\r\n : chunked",
    "folded value": b"Transfer-Encoding:\r\n chunked",
    "folded behind": b"Transfer-Encoding: chunked\r\n\tx",
    "behind a bare LF": b"X: x\nTransfer-Encoding: chunked",
    "behind a bare CR": b"X: x\rTransfer-Encoding: chunked",
    "before a bare LF": b"Transfer-Encoding: chunked\nX: x",
    "before a bare CR": b"Transfer-Encoding: chunked\rX: x",
    "NUL behind": b"Transfer-Encoding: chunked\x00",
    "NUL before": b"\x00Transfer-Encoding: chunked",
    "vertical tab": b"Transfer-Encoding: \x0bchunked",
    "form feed": b"Transfer-Encoding: chunked\x0c",
    "byte above 0x7f": b"Transfer-Encoding: \xffchunked",
    "no-break space": b"Transfer-Encoding:\xa0chunked",
    "space within": b"Transfer-Encoding: chun ked",
    "another word": b"Transfer-Encoding: xchunked",
    "quoted": b'Transfer-Encoding: "chunked"',
    "parameter": b"Transfer-Encoding: chunked;a=b",
    "twice": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    "twice, the second odd": b"Transfer-Encoding: chunked\r\nTransfer-encoding: x",
    "twice, the first odd": b"Transfer-Encoding: x\r\nTransfer-Encoding: chunked",
    "identity": b"Transfer-Encoding: identity",
    "identity behind": b"Transfer-Encoding: chunked, identity",
    "identity before": b"Transfer-Encoding: identity, chunked",
    "comma before": b"Transfer-Encoding: ,chunked",
    "comma behind": b"Transfer-Encoding: chunked,",
    "empty": b"Transfer-Encoding:",
    "semicolon for the colon": b"Transfer-Encoding; chunked",
}
LENGTHS = {
    "two that differ": b"Content-Length: %d\r\nContent-Length: 0",
    "two in a list": b"Content-Length: %d, 0",
    "list of two alike": b"Content-Length: %d, %%d",
    "plus": b"Content-Length: +%d",
    "minus": b"Content-Length: -%d",
    "minus nought": b"Content-Length: -0\r\nX: %d",
    "hexadecimal": b"Content-Length: 0x%x",
    "exponent": b"Content-Length: %de0",
    "fraction": b"Content-Length: %d.0",
    "underscore": b"Content-Length: 0_%d",
    "two numbers": b"Content-Length: %d 0",
    "full-width digits": b"Content-Length: \xef\xbc\x94\r\nX: %d",
    "NUL behind": b"Content-Length: %d\x00",
    "vertical tab before": b"Content-Length:\x0b%d",
    "space before the colon": b"Content-Length : %d",
    "space before the name": b" Content-Length: %d",
    "folded": b"Content-Length:\r\n %d",
    "bare LF before": b"X: x\nContent-Length: %d",
    "bare CR behind": b"Content-Length: %d\rX: x",
    "of 2^64 more": b"Content-Length: 18446744073709551662\r\nX: %d",
    "empty": b"Content-Length:\r\nX: %d",
    "quoted": b'Content-Length: "%d"',
}
CHUNKS = {
    "size of 2^64 more": b"10000000000000005\r\nhello\r\n0\r\n\r\n",
    "size of seventeen digits": b"fffffffffffffffff\r\nhello\r\n0\r\n\r\n",
    "0x": b"0x5\r\nhello\r\n0\r\n\r\n",
    "plus": b"+5\r\nhello\r\n0\r\n\r\n",
    "minus": b"-5\r\nhello\r\n0\r\n\r\n",
    "underscore": b"0_5\r\nhello\r\n0\r\n\r\n",
    "space before the size": b" 5\r\nhello\r\n0\r\n\r\n",
    "space behind the size": b"5 \r\nhello\r\n0\r\n\r\n",
    "tab behind the size": b"5\t\r\nhello\r\n0\r\n\r\n",
    "no size": b"\r\nhello\r\n0\r\n\r\n",
    "only an extension": b";a=b\r\nhello\r\n0\r\n\r\n",
    "comma": b"5,5\r\nhello\r\n0\r\n\r\n",
    "TERM.EXT: LF ends the extension": b"2;\nxx\r\n4c\r\n0\r\n\r\n",
    "TERM.EXT: CR ends the extension": b"2;\rxx\r\n4c\r\n0\r\n\r\n",
    "EXT.TERM: LF within the extension": b"2;a\nb\r\nxx\r\n0\r\n\r\n",
    "EXT.TERM: CR within the extension": b"2;a\rb\r\nxx\r\n0\r\n\r\n",
    "EXT.TERM: LF within a quoted value": b'2;a="\n"\r\nxx\r\n0\r\n\r\n',
    "NUL within the extension": b"2;a\x00b\r\nxx\r\n0\r\n\r\n",
    "TERM.SPILL: LF behind the size": b"5\nhello\r\n0\r\n\r\n",
    "CR behind the size": b"5\rhello\r\n0\r\n\r\n",
    "SPILL.TERM: LF behind the content": b"5\r\nhello\n0\r\n\r\n",
    "CR behind the content": b"5\r\nhello\r0\r\n\r\n",
    "two bytes behind the content": b"5\r\nhelloXX0\r\n\r\n",
    "nothing behind the content": b"5\r\nhello0\r\n\r\n",
    "content longer than its size": b"3\r\nhello\r\n0\r\n\r\n",
    "LF behind the last size": b"5\r\nhello\r\n0\n\r\n",
    "LF for the empty line": b"5\r\nhello\r\n0\r\n\n",
    "CR for the empty line": b"5\r\nhello\r\n0\r\n\r",
    "a request in the trailers": b"5\r\nhello\r\n0\r\n" + HIDDEN,
    "Content-Length in the trailers": b"5\r\nhello\r\n0\r\nContent-Length: 46\r\n\r\n",
    "Transfer-Encoding in the trailers": b"5\r\nhello\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n",
    "LF behind a trailer": b"5\r\nhello\r\n0\r\nX: y\n\r\n",
    "folded trailer": b"5\r\nhello\r\n0\r\nX: y\r\n z\r\n\r\n",
    "NUL in a trailer": b"5\r\nhello\r\n0\r\nX: y\x00z\r\n\r\n",
    "space before a trailer's colon": b"5\r\nhello\r\n0\r\nX : y\r\n\r\n",
}
LINES = {
    "LF ends the request line": b"GET /v1/x HTTP/1.1\nHost: localhost\r\n\r\n",
    "LF ends the head": b"GET /v1/x HTTP/1.1\r\nHost: localhost\r\n\n",
    "CR CR LF ends a line": b"GET /v1/x HTTP/1.1\r\r\nHost: localhost\r\n\r\n",
    "LF CR ends a line": b"GET /v1/x HTTP/1.1\n\rHost: localhost\r\n\r\n",
    "a request in a value": b"GET /v1/x HTTP/1.1\r\nHost: localhost\r\nX: x\r" + HIDDEN,
    "a request in the target": b"GET /v1/x\r\n" + HIDDEN,
    "a request in the target's spaces": b"GET /v1/x GET /v1/smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "HTTP/1.10": b"GET /v1/x HTTP/1.10\r\nHost: localhost\r\n\r\n",
    "HTTP/01.1": b"GET /v1/x HTTP/01.1\r\nHost: localhost\r\n\r\n",
    "HTTP/1.1.1": b"GET /v1/x HTTP/1.1.1\r\nHost: localhost\r\n\r\n",
    "HTTP/1": b"GET /v1/x HTTP/1\r\nHost: localhost\r\n\r\n",
    "tab before the version": b"GET /v1/x\tHTTP/1.1\r\nHost: localhost\r\n\r\n",
    "Host by two names": b"GET /v1/x HTTP/1.1\r\nHost: localhost\r\nhost: evil.example\r\n\r\n",
    "Host with a space before the colon": b"GET /v1/x HTTP/1.1\r\nHost: localhost\r\nHost : evil\r\n\r\n",
    "Expect obfuscated (0.CL)": post(b"Expect: y 100-continue\r\nContent-Length: 10\r\n"),
    "Expect twice (0.CL)": post(b"Expect: 100-continue\r\nExpect: x\r\nContent-Length: 10\r\n"),
}
LENGTH = len(HIDDEN)
BOTH = b"5\r\nhello\r\n0\r\n\r\n"
REFUSED = {
    "CL.TE": post(b"Content-Length: %d\r\nTransfer-Encoding: chunked\r\n" % len(BOTH), BOTH),
    "TE.CL": post(
        b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n", b"2e\r\n" + HIDDEN + b"\r\n0\r\n\r\n"
    ),
    "CL.TE, CL nought": post(b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n", BOTH),
    "TE in HTTP/1.0": b"POST /v1/x HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n" + BOTH,
    **{f"TE.TE: {name}": post(line + b"\r\n", BOTH) for name, line in CODINGS.items()},
    **{
        f"TE.CL: {name}": post(line + b"\r\nContent-Length: %d\r\n" % len(BOTH), BOTH)
        for name, line in CODINGS.items()
    },
    **{
        f"CL.CL: {name}": post((line % LENGTH).replace(b"%d", b"46") + b"\r\n")
        for name, line in LENGTHS.items()
    },
    **{f"chunks: {name}": chunked(body) for name, body in CHUNKS.items()},
    **{f"lines: {name}": data for name, data in LINES.items()},
}
# One request, whatever is in it: what the API gets as its body.
FORWARDED = {
    "a request in the body of a GET (CL.0)": (
        b"GET /v1/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % LENGTH + HIDDEN,
        HIDDEN,
    ),
    "a request in the body (CL.0)": (post(b"Content-Length: %d\r\n" % LENGTH, HIDDEN), HIDDEN),
    "a request in a chunk": (chunked(b"%x\r\n%b\r\n0\r\n\r\n" % (LENGTH, HIDDEN)), HIDDEN),
    "length named in Connection": (
        post(b"Connection: Content-Length\r\nContent-Length: %d\r\n" % LENGTH, HIDDEN),
        HIDDEN,
    ),
    "coding named in Connection": (
        post(b"Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n", b"2e\r\n%b\r\n0\r\n\r\n" % HIDDEN),
        HIDDEN,
    ),
    "underscores, which are other names": (
        post(b"Transfer_Encoding: chunked\r\nContent-Length: %d\r\n" % LENGTH, HIDDEN),
        HIDDEN,
    ),
    "Content-Encoding: chunked": (
        post(b"Content-Encoding: chunked\r\nContent-Length: %d\r\n" % LENGTH, HIDDEN),
        HIDDEN,
    ),
    "h2c upgrade with a body": (
        post(b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nContent-Length: %d\r\n" % LENGTH, HIDDEN),
        HIDDEN,
    ),
    "WebSocket upgrade with a body": (
        b"GET /v1/x HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (LENGTH, HIDDEN),
        HIDDEN,
    ),
    "trailers that are dropped": (chunked(b"2e\r\n%b\r\n0\r\nHost: evil\r\nX: y\r\n\r\n" % HIDDEN), HIDDEN),
    "chunk extension with a request": (
        chunked(b'2e;a="GET /v1/smuggled HTTP/1.1"\r\n%b\r\n0\r\n\r\n' % HIDDEN),
        HIDDEN,
    ),
}  # fmt: skip


async def lines_at_the_api(bench: Bench) -> list[bytes]:
    """What the API got, a last request of another client's included."""
    async with bench.connect() as client:
        await client.send(GET)
        answer = await client.answer()
        assert (answer.status, answer.body) == (200, b"ok")
    return [head.partition(b"\r\n")[0] for head, _ in bench.upstream.requests]


@pytest.mark.parametrize("sent", REFUSED.values(), ids=REFUSED)
async def test_refused(bench: Bench, sent: bytes) -> None:
    async with bench.connect() as client:
        await client.send(sent + HIDDEN)
        answer = await client.answer()
        assert answer.status in (400, 417, 501, 505)
        assert answer.field(b"Connection") == b"close"
        assert await client.is_closed()
    assert b"GET /v1/smuggled HTTP/1.1" not in await lines_at_the_api(bench)
    # What had come of it before its fault did reaches the API as a part of one request, never a whole one.
    whole = [body for head, body in bench.upstream.requests if head.startswith(b"POST") and body]
    assert whole == []


@pytest.mark.parametrize(("sent", "body"), FORWARDED.values(), ids=FORWARDED)
async def test_one_request(bench: Bench, sent: bytes, body: bytes) -> None:
    async with bench.connect() as client:
        await client.send(sent + GET)
        assert (await client.answer()).status == 200
        assert (await client.answer()).status == 200
    lines = await lines_at_the_api(bench)
    assert len(lines) == 3
    assert b"GET /v1/smuggled HTTP/1.1" not in lines
    got = bench.upstream.requests[0][1]
    assert body in got
    assert got in (body, b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))


async def test_a_refusal_in_the_middle_answers_the_earlier_ones_first(bench: Bench) -> None:
    bench.upstream.script = [()]
    async with bench.connect() as client:
        await client.send(GET + GET + chunked(b"5\nhello\r\n0\r\n\r\n") + HIDDEN)
        for count in (1, 2):
            await bench.seen(lambda count=count: len(bench.upstream.requests) == count)  # type: ignore[misc] # typed
            bench.upstream.push(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % count)
            answer = await client.answer()
            assert (answer.status, answer.body) == (200, b"%d" % count)
        assert (await client.answer()).status == 400
        assert await client.is_closed()
    assert [head.partition(b" ")[0] for head, _ in bench.upstream.requests][:2] == [b"GET", b"GET"]
    assert not any(b"smuggled" in head for head, _ in bench.upstream.requests)
