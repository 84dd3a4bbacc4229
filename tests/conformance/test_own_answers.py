"""What the proxy answers itself although nothing is wrong, and what it adds to answers for the pages of browsers."""

import json

import pytest

from tests.support.bench import Bench, set_up

H = b"Host: localhost\r\n"
ORIGIN = b"Origin: https://app.example\r\n"
PREFLIGHT = (
    b"OPTIONS /v1/applications.create HTTP/1.1\r\n" + H + ORIGIN + b"Access-Control-Request-Method: POST\r\n"
)
DATE = b"Tue, 14 Nov 2023 22:13:20 GMT"
"""The wall clock of the bench."""


# Max-Forwards (RFC 9110 section 7.6.2).


async def test_options_that_may_go_no_further_is_answered_here(bench: Bench) -> None:
    async with bench.connect() as client:
        for target in (b"*", b"/v1/x", b"http://localhost"):
            await client.send(b"OPTIONS " + target + b" HTTP/1.1\r\n" + H + b"Max-Forwards: 0\r\n\r\n")
            answer = await client.answer()
            assert (answer.status, answer.body) == (200, b"")
            assert b"POST" in (answer.field(b"Allow") or b"")
            assert answer.field(b"Date") == DATE
            assert answer.field(b"Proxy-Status") == b"bits-auth-proxy"
            assert answer.field(b"X-Request-ID")
    assert bench.upstream.requests == []
    assert 'status="200"} 3.0' in bench.metrics()


@pytest.mark.parametrize(("given", "sent"), [(b"5", b"4"), (b"1", b"0"), (b"007", b"6"), (b"10\t", b"9")])
async def test_options_that_goes_on_counts_the_hop(bench: Bench, given: bytes, sent: bytes) -> None:
    async with bench.connect() as client:
        await client.send(b"OPTIONS /v1/x HTTP/1.1\r\n" + H + b"MAX-forwards: " + given + b"\r\nX: y\r\n\r\n")
        assert (await client.answer()).status == 200
    ((head, _),) = bench.upstream.requests
    assert b"\r\nMAX-forwards: " + sent + b"\r\nX: y\r\n" in head


async def test_other_methods_may_send_what_they_like(bench: Bench) -> None:
    async with bench.connect() as client:
        await client.send(b"GET /v1/x HTTP/1.1\r\n" + H + b"Max-Forwards: 0\r\n\r\n")
        assert (await client.answer()).status == 200
    assert b"\r\nMax-Forwards: 0\r\n" in bench.upstream.requests[0][0]


async def test_options_beyond_the_allow_list_is_refused_whatever_its_hops() -> None:
    async with set_up(BITS_ALLOW="POST /v1/*") as bench:
        for target in (b"*", b"/v1/x"):
            for hops in (b"", b"Max-Forwards: 0\r\n", b"Max-Forwards: 3\r\n"):
                async with bench.connect() as client:
                    await client.send(b"OPTIONS " + target + b" HTTP/1.1\r\n" + H + hops + b"\r\n")
                    answer = await client.answer()
                    assert (answer.status, json.loads(answer.body)["code"]) == (403, "denied")
        assert bench.upstream.requests == []


async def test_own_answers_keep_their_place_among_pipelined_requests(bench: Bench) -> None:
    get = b"GET /v1/x HTTP/1.1\r\n" + H + b"\r\n"
    own = b"OPTIONS * HTTP/1.1\r\n" + H + b"Max-Forwards: 0\r\n\r\n"
    async with bench.connect() as client:
        await client.send(get + own + own + get + own)
        answers = [await client.answer() for _ in range(5)]
        assert [answer.body for answer in answers] == [b"ok", b"", b"", b"ok", b""]
        await client.send(own[:20])
        await client.send(own[20:] + get)
        assert [(await client.answer()).body for _ in range(2)] == [b"", b"ok"]
    assert len(bench.upstream.requests) == 3


@pytest.mark.parametrize(
    "sent",
    [
        b"OPTIONS * HTTP/1.1\r\n" + H + b"Max-Forwards: 0\r\nContent-Length: 4\r\n\r\nGET ",
        b"OPTIONS * HTTP/1.1\r\n" + H + b"Max-Forwards: 0\r\nConnection: close\r\n\r\n",
        b"OPTIONS * HTTP/1.0\r\nMax-Forwards: 0\r\n\r\n",
    ],
)
async def test_an_own_answer_ends_the_connection_where_it_must(bench: Bench, sent: bytes) -> None:
    async with bench.connect() as client:
        await client.send(sent)
        answer = await client.answer()
        assert (answer.status, answer.field(b"Connection")) == (200, b"close")
        assert await client.is_closed()


# Date (RFC 9110 section 6.6.1).


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /v1/x HTTP/1.1\r\n" + H + b"\r\n",
        b"HEAD /v1/x HTTP/1.1\r\n" + H + b"\r\n",
        b"GET /v1/x HTTP/1.0\r\n\r\n",
        b"GET /v1//x HTTP/1.1\r\n" + H + b"\r\n",
        b"nonsense\r\n\r\n",
    ],
)
async def test_every_answer_has_a_date(bench: Bench, sent: bytes) -> None:
    async with bench.connect() as client:
        await client.send(sent)
        answer = await client.answer(sent.partition(b" ")[0])
        assert answer.head.count(b"\r\nDate: " + DATE + b"\r\n") == 1


async def test_a_failure_has_a_date_too_and_dates_go_on(bench: Bench) -> None:
    bench.upstream.script = [(b"HTTP/1.1 nonsense\r\n\r\n",)]
    await bench.pass_time(61)
    async with bench.connect() as client:
        await client.send(b"GET /v1/x HTTP/1.1\r\n" + H + b"\r\n")
        answer = await client.answer()
        assert (answer.status, answer.field(b"Date")) == (502, b"Tue, 14 Nov 2023 22:14:21 GMT")


async def test_a_date_that_belonged_to_the_last_hop_is_replaced(bench: Bench) -> None:
    bench.upstream.script = [
        (b"HTTP/1.1 200 OK\r\nConnection: date\r\nDate: x\r\nContent-Length: 0\r\n\r\n",),
    ]
    async with bench.connect() as client:
        await client.send(b"GET /v1/x HTTP/1.1\r\n" + H + b"\r\n")
        answer = await client.answer()
        assert answer.head.lower().count(b"\r\ndate:") == 1
        assert answer.field(b"Date") == DATE


# Pages of origins that are allowed (Fetch section 3.2).


async def test_a_preflight_of_an_allowed_origin_is_answered_here() -> None:
    async with (
        set_up(BITS_ALLOWED_ORIGINS="https://app.example", BITS_ALLOW="POST /v1/*") as bench,
        bench.connect() as client,
    ):
        for _ in range(2):
            await client.send(
                PREFLIGHT + b"Access-Control-Request-Headers: content-type,x-tenant\r\n"
                b"Access-Control-Request-Private-Network: true\r\nSec-Fetch-Site: cross-site\r\n\r\n"
            )
            answer = await client.answer()
            assert answer.status == 200
            assert answer.field(b"Access-Control-Allow-Origin") == b"https://app.example"
            assert answer.field(b"Access-Control-Allow-Methods") == b"POST"
            assert answer.field(b"Access-Control-Allow-Headers") == b"content-type,x-tenant"
            assert answer.field(b"Access-Control-Allow-Private-Network") == b"true"
            assert int(answer.field(b"Access-Control-Max-Age") or 0) > 0
            assert b"Origin" in (answer.field(b"Vary") or b"")
        assert bench.upstream.requests == []


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (PREFLIGHT.replace(b"app.example", b"evil.example"), 403),
        (PREFLIGHT.replace(b"POST", b"DELETE"), 403),
        (PREFLIGHT.replace(b"POST", b"PROPFIND"), 501),
        (PREFLIGHT.replace(b"POST", b"TRACE"), 405),
        (PREFLIGHT.replace(b"/v1/applications.create", b"/v1/oauth2/token"), 403),
        (PREFLIGHT.replace(b"/v1/applications.create", b"/v2/x"), 403),
        (PREFLIGHT.replace(b"/v1/applications.create", b"/v1//x"), 400),
        (PREFLIGHT.replace(b"localhost", b"evil.example"), 421),
    ],
)
async def test_a_preflight_gets_no_more_than_its_call_would(sent: bytes, status: int) -> None:
    async with (
        set_up(BITS_ALLOWED_ORIGINS="https://app.example", BITS_ALLOW="POST /v1/*") as bench,
        bench.connect() as client,
    ):
        await client.send(sent + b"\r\n")
        answer = await client.answer()
        assert answer.status == status
        assert answer.field(b"Access-Control-Allow-Methods") is None
        if b"evil" in sent and status == 403:
            assert answer.field(b"Access-Control-Allow-Origin") is None
        assert bench.upstream.requests == []


async def test_names_of_fields_that_are_none_are_not_echoed() -> None:
    async with set_up(BITS_ALLOWED_ORIGINS="https://app.example") as bench, bench.connect() as client:
        await client.send(PREFLIGHT + b"Access-Control-Request-Headers: <x>\r\n\r\n")
        answer = await client.answer()
        assert answer.field(b"Access-Control-Allow-Headers") is None


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"POST /v1/applications.create HTTP/1.1\r\n" + H + ORIGIN + b"Content-Length: 2\r\n\r\n{}", 200),
        (b"OPTIONS /v1/x HTTP/1.1\r\n" + H + ORIGIN + b"\r\n", 200),
        (b"GET /v1//x HTTP/1.1\r\n" + H + ORIGIN + b"\r\n", 400),
        (b"GET /v1/oauth2/token HTTP/1.1\r\n" + H + ORIGIN + b"\r\n", 403),
    ],
)
async def test_a_page_of_an_allowed_origin_may_read_answers_and_refusals(sent: bytes, status: int) -> None:
    async with set_up(BITS_ALLOWED_ORIGINS="https://app.example") as bench, bench.connect() as client:
        await client.send(sent)
        answer = await client.answer()
        assert answer.status == status
        assert answer.field(b"Access-Control-Allow-Origin") == b"https://app.example"
        assert answer.field(b"Access-Control-Expose-Headers") == b"*"
        assert answer.field(b"Vary") == b"Origin"


async def test_a_page_of_an_allowed_origin_may_read_failures() -> None:
    async with set_up(BITS_ALLOWED_ORIGINS="https://app.example") as bench, bench.connect() as client:
        bench.upstream.script = [(b"HTTP/1.1 nonsense\r\n\r\n",)]
        await client.send(b"GET /v1/x HTTP/1.1\r\n" + H + ORIGIN + b"\r\n")
        answer = await client.answer()
        assert answer.status == 502
        assert answer.field(b"Access-Control-Allow-Origin") == b"https://app.example"


async def test_the_apis_own_policy_stays() -> None:
    async with set_up(BITS_ALLOWED_ORIGINS="https://app.example") as bench, bench.connect() as client:
        bench.upstream.script = [
            (b"HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nContent-Length: 0\r\n\r\n",)
        ]
        await client.send(b"GET /v1/x HTTP/1.1\r\n" + H + ORIGIN + b"\r\n")
        answer = await client.answer()
        assert answer.head.lower().count(b"access-control-allow-origin") == 1
        assert answer.field(b"Access-Control-Allow-Origin") == b"*"


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /v1/x HTTP/1.1\r\n" + H + b"Origin: https://evil.example\r\n\r\n",
        b"GET /v1/x HTTP/1.1\r\nHost: evil.example\r\nOrigin: https://evil.example\r\n\r\n",
        b"GET ftp://x/ HTTP/1.1\r\n" + H + b"Origin: https://evil.example\r\n\r\n",
        b"GET /v1/x HTTP/1.1\r\n" + H + b"\r\n",
    ],
)
async def test_no_other_page_may_read_anything(sent: bytes) -> None:
    async with set_up(BITS_ALLOWED_ORIGINS="https://app.example") as bench, bench.connect() as client:
        await client.send(sent)
        assert b"access-control" not in (await client.answer()).head.lower()
