"""The log of a running sidecar: what a request's line says, which are written, and that none floods it."""

import asyncio
import errno
import io
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bits_auth_proxy.telemetry.repeat_limit import BURST
from tests.integration.test_token_faults import control
from tests.support.bench import Bench, set_up
from tests.support.commands import CLIENT_SECRET
from tests.support.credentials import mount
from tests.support.stand import APPLICATION, CREATE, standing
from tests.support.waiting import seen

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE_ID}-00f067aa0ba902b7-01"
NOT_FOUND = b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\ngone"


def lines(bench: Bench, event: str) -> list[dict[str, Any]]:
    found = (json.loads(line) for line in bench.log.getvalue().splitlines())
    return [line for line in found if line["event"] == event]


async def call(bench: Bench, *fields: bytes) -> bytes:
    """Send a request with these fields; return the head that the API got."""
    async with bench.connect() as client:
        head = b"".join(field + b"\r\n" for field in fields)
        await client.send(
            b"POST /v1/applications.get HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n"
            + head
            + b"\r\nabc"
        )
        await client.answer()
    return bench.upstream.requests[-1][0]


async def test_a_requests_line_says_what_it_was_how_long_and_how_much() -> None:
    async with set_up(BITS_ACCESS_LOG="all") as bench:
        bench.upstream.script = [(NOT_FOUND,)]
        await call(bench, b"X-Request-ID: mine-1", b"Traceparent: " + TRACEPARENT.encode())
        (line,) = lines(bench, "request")
    assert line.pop("timestamp")
    assert line == {
        "level": "info",
        "event": "request",
        "request_id": "mine-1",
        "operation": "applications.get",
        "method": "POST",
        "status": 404,
        "seconds": 0.0,
        "upstream_seconds": 0.0,
        "token_wait_seconds": 0.0,
        "request_bytes": 3,
        "response_bytes": 4,
        "trace_id": TRACE_ID,
    }


@pytest.mark.parametrize(
    ("value", "trace_id"),
    [
        (TRACEPARENT, TRACE_ID),
        # A version to come may have more (W3C Trace Context section 4.3).
        (f"cc-{TRACE_ID}-00f067aa0ba902b7-01-what-the-future", TRACE_ID),
        (f"00-{TRACE_ID}-00f067aa0ba902b7-01-what", None),
        (f"ff-{TRACE_ID}-00f067aa0ba902b7-01", None),
        (f"00-{'0' * 32}-00f067aa0ba902b7-01", None),
        (f"00-{TRACE_ID}-{'0' * 16}-01", None),
        (TRACEPARENT.upper(), None),
        (f"{TRACEPARENT}, {TRACEPARENT}", None),
        ('00-"},{"event":"forged"}-00f067aa0ba902b7-01', None),
        ("", None),
    ],
)
async def test_traceparent_passes_untouched_and_its_trace_id_is_told(
    value: str, trace_id: str | None
) -> None:
    async with set_up(BITS_ACCESS_LOG="all") as bench:
        sent = await call(bench, b"TraceParent: " + value.encode(), b"tracestate: a=1,b=2")
        assert b"\r\nTraceParent: " + value.encode() + b"\r\ntracestate: a=1,b=2\r\n" in sent
        (line,) = lines(bench, "request")
    assert line.get("trace_id") == trace_id


@pytest.mark.parametrize(("mode", "statuses"), [("all", [200, 404]), ("errors", [404]), ("off", [])])
async def test_the_mode_says_which_requests_are_logged(mode: str, statuses: list[int]) -> None:
    async with set_up(BITS_ACCESS_LOG=mode) as bench:
        await call(bench)
        bench.upstream.script = [(NOT_FOUND,)]
        await call(bench)
        assert [line["status"] for line in lines(bench, "request")] == statuses


async def test_a_refusals_line_and_its_answer_have_the_same_request_id(bench: Bench) -> None:
    async with bench.connect() as client:
        await client.send(b"GET //odd HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = await client.answer()
    (line,) = lines(bench, "request_rejected")
    assert (line["reason"], line["peer"]) == ("ambiguous_path", "127.0.0.1")
    assert json.loads(answer.body)["request_id"] == line["request_id"]


async def test_what_repeats_is_written_a_few_times_and_then_told_as_a_number() -> None:
    async with set_up() as bench:
        bench.upstream.script = [(NOT_FOUND,)]
        for _ in range(3 * BURST):
            await call(bench)
        assert len(lines(bench, "request")) == BURST
        await bench.pass_time(10)
        await call(bench)
        assert len(lines(bench, "request")) == BURST + 1
        (told,) = lines(bench, "repeats_suppressed")
        assert (told["of"], told["kind"], told["count"]) == ("request", "404", 2 * BURST)


async def test_in_all_mode_every_request_is_written() -> None:
    async with set_up(BITS_ACCESS_LOG="all") as bench:
        bench.upstream.script = [(NOT_FOUND,)]
        for _ in range(3 * BURST):
            await call(bench)
        assert len(lines(bench, "request")) == 3 * BURST
        assert lines(bench, "repeats_suppressed") == []


async def test_an_unreadable_credential_file_is_told_once_until_it_is_back(tmp_path: Path) -> None:
    mount(tmp_path, CLIENT_SECRET)
    secret = tmp_path / "client_secret"
    async with standing(BITS_CREDENTIALS_DIR=str(tmp_path)) as stand:

        async def told() -> list[dict[str, Any]]:
            for _ in range(2):
                stand.sidecar.reload()
                await seen(lambda: not stand.sidecar._watcher.looking)
            found = (json.loads(line) for line in stand.log.getvalue().splitlines())
            return [line for line in found if line["event"] == "credentials_unreadable"]

        assert await told() == []
        secret.unlink()
        (line,) = await told()
        assert str(secret) in line["detail"]
        secret.write_text(CLIENT_SECRET)
        assert len(await told()) == 1
        secret.unlink()
        assert len(await told()) == 2
        numbers = stand.sidecar._telemetry.numbers()
        assert numbers["credentials_read_failures_total"] == 4
        assert numbers["credentials_changes_total"] == 0


async def test_a_request_that_waited_for_a_token_in_vain_says_how_long() -> None:
    async with standing(token_delay=5, BITS_TOKEN_WAIT="0.2") as stand:
        async with aiohttp.ClientSession(stand.url) as session, session.post(CREATE) as answer:
            assert answer.status == 503
        (line,) = (
            line for line in map(json.loads, stand.log.getvalue().splitlines()) if line["event"] == "request"
        )
        assert line["problem"] == "token_unavailable"
        assert 0.2 <= line["token_wait_seconds"] <= line["seconds"]
        assert stand.sidecar._telemetry.numbers()["token_wait_duration_seconds_count"] == 1


async def test_an_outage_of_the_api_does_not_flood_the_log() -> None:
    async with standing() as stand, aiohttp.ClientSession(stand.url) as session:

        async def one() -> int:
            async with session.post(CREATE, json=APPLICATION) as answer:
                await answer.read()
                return answer.status

        assert await one() == 200
        await control(stand.api, "faults", next_cut=500)
        for _ in range(10):
            assert set(await asyncio.gather(*(one() for _ in range(50)))) == {502}
    # What was left out is told at the latest when it stops.
    told = [json.loads(line) for line in stand.log.getvalue().splitlines()]
    written = sum(line["event"] == "request" for line in told)
    left_out = [line for line in told if line["event"] == "repeats_suppressed"]
    assert written <= BURST * (len(left_out) + 1)
    assert {line["kind"] for line in left_out} == {"connection_lost"}
    assert written + sum(line["count"] for line in left_out) == 500


class FullDisk(io.StringIO):
    full = False

    def write(self, text: str) -> int:
        if self.full:
            raise OSError(errno.ENOSPC, "no space left")
        return super().write(text)


async def test_a_log_that_cannot_be_written_stops_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    log = FullDisk()
    monkeypatch.setattr("tests.support.bench.io.StringIO", lambda: log)
    async with set_up(BITS_ACCESS_LOG="all") as bench:
        bench.upstream.script = [(NOT_FOUND,)]
        log.full = True
        async with bench.connect() as client:
            for _ in range(2):
                await client.send(b"GET /v1/x HTTP/1.1\r\nHost: localhost\r\n\r\n")
                assert (await client.answer()).status == 404
            await client.send(b"GET /v1//x HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert (await client.answer()).status == 400
        log.full = False
        assert "internal_errors_total 0.0" in bench.metrics()
        assert bench.sidecar._pool.counts()["active"] == 0
