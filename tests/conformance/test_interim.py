"""Interim responses of the API (RFC 9110 section 15.2): passed on, bounded by their size, and a sign of life."""

import json

import pytest

from tests.support.bench import Bench, set_up

GET = b"GET /v1/x HTTP/1.1\r\nHost: localhost\r\n\r\n"
HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
PROCESSING = b"HTTP/1.1 102 Processing\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.mark.parametrize("interim", [HINTS, PROCESSING, CONTINUE, b"HTTP/1.1 199 Odd\r\nX: y\r\n\r\n"])
@pytest.mark.parametrize("count", [1, 32, 33, 500])
async def test_any_number_of_them_passes(bench: Bench, interim: bytes, count: int) -> None:
    bench.upstream.script = [(interim * count + OK,)]
    async with bench.connect() as client:
        await client.send(GET)
        statuses = [(await client.answer()).status for _ in range(count + 1)]
        assert statuses == [int(interim[9:12])] * count + [200]


@pytest.mark.parametrize(
    "endless", [PROCESSING * 3000, b"HTTP/1.1 103 Early Hints\r\n" + b"Link: " + b"a" * 30_000 + b"\r\n\r\n"]
)
async def test_their_size_is_bounded(bench: Bench, endless: bytes) -> None:
    bench.upstream.script = [(endless * 3 + OK,)]
    async with bench.connect() as client:
        await client.send(
            b"POST /v1/applications.create HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"
        )
        while (answer := await client.answer()).status < 200:
            pass
        assert (answer.status, json.loads(answer.body)["code"]) == (502, "bad_response")


async def test_the_bound_is_for_each_request_anew(bench: Bench) -> None:
    bench.upstream.script = [(HINTS * 1000 + OK,)]
    async with bench.connect() as client:
        for _ in range(3):
            await client.send(GET)
            assert [(await client.answer()).status for _ in range(1001)][-1] == 200
    assert bench.upstream.connections == 1


async def test_an_old_client_gets_none(bench: Bench) -> None:
    bench.upstream.script = [(CONTINUE + HINTS + OK,)]
    async with bench.connect() as client:
        await client.send(b"GET /v1/x HTTP/1.0\r\n\r\n")
        assert (await client.answer()).status == 200


async def test_a_client_that_was_told_to_continue_is_told_once(bench: Bench) -> None:
    bench.upstream.script = [(CONTINUE + HINTS + OK,)]
    async with bench.connect() as client:
        await client.send(
            b"POST /v1/x HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
        )
        assert (await client.answer()).status == 100
        await client.send(b"{}")
        assert [(await client.answer()).status for _ in range(2)] == [103, 200]


async def test_they_are_a_sign_of_life() -> None:
    async with set_up(BITS_UPSTREAM__RESPONSE_TIMEOUT="60") as bench, bench.connect() as client:
        bench.upstream.script = [()]
        await client.send(GET)
        await bench.upstream.arrived.wait()
        for _ in range(4):
            await bench.pass_time(50)
            bench.upstream.push(PROCESSING)
            assert (await client.answer()).status == 102
        await bench.pass_time(50)
        bench.upstream.push(OK)
        assert (await client.answer()).status == 200


async def test_without_one_the_time_runs_out() -> None:
    async with set_up(BITS_UPSTREAM__RESPONSE_TIMEOUT="60") as bench, bench.connect() as client:
        bench.upstream.script = [()]
        await client.send(GET)
        await bench.upstream.arrived.wait()
        await bench.pass_time(50)
        bench.upstream.push(PROCESSING)
        assert (await client.answer()).status == 102
        await bench.pass_time(61)
        answer = await client.answer()
        assert (answer.status, json.loads(answer.body)["code"]) == (504, "response_timeout")
