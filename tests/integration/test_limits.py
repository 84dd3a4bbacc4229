"""Limits and deadlines of the data path, on a clock that the tests move."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

import pytest

from bits_auth_proxy.forward.downstream import READ_SIZE, ClientConnection
from bits_auth_proxy.settings.addresses import TcpAddress
from tests.support.bench import Bench, set_up
from tests.support.rawclient import RawClient
from tests.support.recorder import CUT, OK_ANSWER
from tests.support.waiting import HANGS, at_rest

HEAD = b" HTTP/1.1\r\nHost: localhost\r\n"
GET = b"GET /v1/x" + HEAD + b"\r\n"
READ = b"POST /v1/applications.get" + HEAD + b"Content-Length: 2\r\n\r\n{}"


def code(body: bytes) -> str:
    found: str = json.loads(body)["code"]
    return found


async def test_a_head_that_does_not_come_to_an_end_is_answered_408(bench: Bench) -> None:
    async with bench.connect() as client:
        await client.send(b"GET /v1/x" + HEAD)
        await bench.seen(lambda: not bench.sidecar._clients.gone.is_set())
        bench.clock.advance(10.5)
        answer = await client.answer()
        assert (answer.status, code(answer.body)) == (408, "request_timeout")
        assert await client.is_closed()
    assert 'rejected_requests_total{reason="request_timeout"} 1.0' in bench.metrics()


async def test_an_idle_client_is_disconnected_without_a_word(bench: Bench) -> None:
    async with bench.connect() as client:
        await client.send(GET)
        assert (await client.answer()).status == 200
        bench.clock.advance(74)
        await client.send(GET)
        assert (await client.answer()).status == 200
        bench.clock.advance(76)
        assert await client.is_closed()


async def test_a_body_that_stops_coming_is_answered_408(bench: Bench) -> None:
    bench.upstream.script = [()]
    async with bench.connect() as client:
        await client.send(b"POST /v1/x" + HEAD + b"Content-Length: 100000\r\n\r\nhalf")
        await bench.upstream.arrived.wait()
        bench.clock.advance(61)
        answer = await client.answer()
        assert (answer.status, code(answer.body)) == (408, "request_timeout")
    async with asyncio.timeout(HANGS):
        await bench.upstream.gone.wait()


async def test_an_api_that_does_not_answer_is_a_504(bench: Bench) -> None:
    bench.upstream.script = [()]
    async with bench.connect() as client:
        await client.send(READ)
        await bench.upstream.arrived.wait()
        bench.clock.advance(61)
        answer = await client.answer()
        assert (answer.status, code(answer.body)) == (504, "response_timeout")
        assert answer.field(b"Proxy-Status") == b"bits-auth-proxy; error=http_response_timeout"


async def test_an_answer_that_stops_coming_is_cut(bench: Bench) -> None:
    bench.upstream.script = [(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",)]
    async with bench.connect() as client:
        await client.send(GET)
        await client.until(b"half")
        bench.clock.advance(61)
        assert await client.is_closed()


async def test_an_api_that_refuses_connections_is_a_502(bench: Bench) -> None:
    bench.upstream.stop()
    async with bench.connect() as client:
        await client.send(GET)
        answer = await client.answer()
        assert (answer.status, code(answer.body)) == (502, "connection_refused")
        assert int(answer.field(b"Retry-After") or 0) >= 1
        # The client's own connection is as good as before.
        await client.send(GET)
        assert (await client.answer()).status == 502


async def test_more_requests_than_connections_queue_and_past_the_queue_get_503() -> None:
    async with set_up(BITS_UPSTREAM__MAX_CONNECTIONS="1", BITS_UPSTREAM__QUEUE_LIMIT="1") as bench:
        bench.upstream.script = [()]
        async with bench.connect() as first, bench.connect() as second, bench.connect() as third:
            await first.send(GET)
            await bench.upstream.arrived.wait()
            await second.send(GET)
            await bench.seen(lambda: bench.in_flight() == 2)
            await third.send(GET)
            answer = await third.answer()
            assert (answer.status, code(answer.body)) == (503, "overloaded")
            bench.upstream.push(OK_ANSWER)
            assert (await first.answer()).status == 200
            # The connection goes to who waits.
            await bench.seen(lambda: len(bench.upstream.requests) == 2)
            bench.upstream.push(OK_ANSWER)
            assert (await second.answer()).status == 200
        assert bench.upstream.connections == 1


async def test_clients_that_dribble_small_bodies_keep_no_connection_to_the_api_from_others() -> None:
    async with set_up(BITS_UPSTREAM__MAX_CONNECTIONS="1") as bench, contextlib.AsyncExitStack() as stack:
        slow = [await stack.enter_async_context(bench.connect()) for _ in range(10)]
        for client in slow:
            await client.send(b"POST /v1/x" + HEAD + b"Content-Length: 3\r\n\r\n")
        await bench.seen(lambda: bench.in_flight() == 10)
        for _ in range(2):
            for client in slow:
                await client.send(b"x")
            async with bench.connect() as client:
                await client.send(GET)
                assert (await client.answer()).status == 200
        for client in slow:
            await client.send(b"x")
        assert [(await client.answer()).status for client in slow] == [200] * 10
        # The bodies went up whole.
        assert [body for _, body in bench.upstream.requests if body] == [b"xxx"] * 10
        assert bench.upstream.connections == 1


async def test_a_small_body_that_waits_for_the_100_needs_no_connection_to_get_it() -> None:
    async with (
        set_up(BITS_UPSTREAM__MAX_CONNECTIONS="1") as bench,
        bench.connect() as first,
        bench.connect() as second,
    ):
        bench.upstream.script = [()]
        await first.send(GET)
        await bench.upstream.arrived.wait()
        await second.send(b"POST /v1/x" + HEAD + b"Expect: 100-continue\r\nContent-Length: 4\r\n\r\n")
        assert (await second.answer()).status == 100
        await second.send(b"body")
        bench.upstream.push(OK_ANSWER)
        assert (await first.answer()).status == 200
        await bench.seen(lambda: len(bench.upstream.requests) == 2)
        bench.upstream.push(OK_ANSWER)
        assert (await second.answer()).status == 200
        assert bench.upstream.requests[1][1] == b"body"


async def test_when_no_more_bodies_can_be_held_they_are_streamed() -> None:
    async with (
        set_up(BITS_LIMITS__REPLAY_TOTAL="4") as bench,
        bench.connect() as first,
        bench.connect() as second,
    ):
        await first.send(b"POST /v1/x" + HEAD + b"Content-Length: 6\r\n\r\n1234")
        await bench.seen(lambda: bench.sidecar._context.replay_budget.free == 0)
        assert not bench.upstream.arrived.is_set()
        await second.send(b"POST /v1/x" + HEAD + b"Content-Length: 2\r\n\r\n5")
        await bench.upstream.arrived.wait()
        for client in (second, first):
            await client.send(b"66" if client is first else b"6")
            assert (await client.answer()).status == 200
        assert [body for _, body in bench.upstream.requests] == [b"56", b"123466"]
        assert bench.sidecar._context.replay_budget.free == 4


WEBSOCKET = b"GET /v1/x" + HEAD + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"


@contextlib.asynccontextmanager
async def from_another_address(bench: Bench) -> AsyncIterator[RawClient]:
    address = bench.sidecar.addresses[0]
    assert isinstance(address, TcpAddress)
    reader, writer = await asyncio.open_connection(address.host, address.port, local_addr=("127.0.0.2", 0))
    client = RawClient(reader, writer)
    try:
        yield client
    finally:
        client.leave()
        await asyncio.wait([asyncio.ensure_future(client.is_closed())])


async def test_one_client_address_has_no_more_than_its_share_of_requests_in_flight() -> None:
    async with set_up(BITS_LIMITS__PER_CLIENT="2") as bench, contextlib.AsyncExitStack() as stack:
        tunnel, slow, third, fourth = [await stack.enter_async_context(bench.connect()) for _ in range(4)]
        bench.upstream.script = [(SWITCH,), (), (OK_ANSWER,)]
        await tunnel.send(WEBSOCKET)
        await tunnel.until(b"\r\n\r\n")
        await slow.send(GET)
        await bench.seen(lambda: len(bench.upstream.requests) == 2)
        await third.send(READ)
        answer = await third.answer()
        assert (answer.status, code(answer.body)) == (503, "overloaded")
        assert answer.field(b"Retry-After") is not None
        assert b"BITS_LIMITS__PER_CLIENT" in answer.body
        assert await third.is_closed()
        assert 'request_problems_total{problem="overloaded"} 1.0' in bench.metrics()
        # Others are served, and so is who has room again.
        other = await stack.enter_async_context(from_another_address(bench))
        await other.send(GET)
        assert (await other.answer()).status == 200
        tunnel.leave()
        await bench.seen(lambda: bench.in_flight() == 1)
        for _ in range(3):
            await fourth.send(READ)
            assert (await fourth.answer()).status == 200


@pytest.mark.parametrize(
    ("sent", "script"),
    [
        (GET, (OK_ANSWER,)),
        (GET + GET, (OK_ANSWER,)),
        (GET, (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ncut", CUT)),
        (b"OPTIONS /v1/x" + HEAD + b"Max-Forwards: 0\r\n\r\n", ()),
        (b"BREW /" + HEAD + b"\r\n", ()),
        (b"POST /v1/x" + HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", ()),
    ],
    ids=["answered", "pipelined", "cut", "answered here", "rejected", "malformed"],
)
async def test_every_end_of_a_request_gives_its_share_back(sent: bytes, script: tuple[bytes, ...]) -> None:
    async with set_up(BITS_LIMITS__PER_CLIENT="1") as bench:
        bench.upstream.script = [script]
        async with bench.connect() as client:
            await client.send(sent)
            assert (await client.answer()).status != 503
        await bench.seen(lambda: bench.in_flight() == 0)
        bench.upstream.script = [(OK_ANSWER,)]
        async with bench.connect() as client:
            await client.send(GET)
            assert (await client.answer()).status == 200


async def test_who_waits_too_long_for_a_connection_gets_503() -> None:
    async with set_up(BITS_UPSTREAM__MAX_CONNECTIONS="1") as bench:
        bench.upstream.script = [()]
        async with bench.connect() as first, bench.connect() as second:
            await first.send(GET)
            await bench.upstream.arrived.wait()
            await second.send(GET)
            await bench.seen(lambda: bench.in_flight() == 2)
            bench.clock.advance(6)
            answer = await second.answer()
            assert (answer.status, code(answer.body)) == (503, "overloaded")


async def test_past_the_connection_limit_clients_wait_to_be_accepted() -> None:
    async with (
        set_up(BITS_LIMITS__MAX_CONNECTIONS="2") as bench,
        bench.connect() as first,
        bench.connect() as second,
        bench.connect() as third,
    ):
        clients = [first, second, third]
        for client in clients:
            await client.send(GET)
        answers = [asyncio.ensure_future(client.answer()) for client in clients]
        # Who was accepted first is not said: two of the three were, one waits.
        await bench.seen(lambda: sum(answer.done() for answer in answers) == 2)
        done, waiting = await asyncio.wait(answers, timeout=0.1)
        assert (len(done), len(waiting)) == (2, 1)
        served = [client for client, each in zip(clients, answers, strict=True) if each in done]
        served[0].leave()
        assert (await waiting.pop()).status == 200


async def test_of_a_refused_client_that_goes_on_sending_256_kib_are_discarded(bench: Bench) -> None:
    async with bench.connect() as client:
        sending = asyncio.ensure_future(client.send(b"POST /" + b"a" * 9000 + HEAD + bytes(2**24)))
        assert (await client.answer()).status == 414
        (connection,) = bench.sidecar._clients.open
        assert isinstance(connection, ClientConnection)
        await at_rest(lambda: connection._lingered)
        assert 0 < connection._lingered - 2**18 <= READ_SIZE
        assert not sending.done()
        bench.clock.advance(2.5)
        await bench.seen(bench.sidecar._clients.gone.is_set)
        await sending


async def test_a_refused_client_that_stays_is_cut_after_two_seconds(bench: Bench) -> None:
    async with bench.connect() as client:
        await client.send(b"BREW /" + HEAD + b"\r\n")
        assert (await client.answer()).status == 501
        bench.clock.advance(2.5)
        await bench.seen(bench.sidecar._clients.gone.is_set)


async def test_one_connections_fault_does_not_stop_the_others_deadlines(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bench.connect() as faulty, bench.connect() as idle:
        for client in (faulty, idle):
            await client.send(GET)
            assert (await client.answer()).status == 200
        victim = next(iter(bench.sidecar._clients.open))
        check = type(victim).check

        def fail(self: object, now: float) -> None:
            if self is victim:
                raise RuntimeError("a fault of ours")
            check(self, now)  # type: ignore[arg-type] # of the same class

        monkeypatch.setattr(type(victim), "check", fail)
        bench.clock.advance(80)
        assert await faulty.is_closed()
        assert await idle.is_closed()
        await bench.seen(lambda: "a fault of ours" in bench.log.getvalue())


async def test_a_body_above_the_replay_bound_is_not_sent_again_after_a_401(bench: Bench) -> None:
    refusal = b"HTTP/1.1 401 No\r\nContent-Length: 2\r\n\r\nno"
    for size, answered in ((60_000, 200), (70_000, 401)):
        before = len(bench.upstream.requests)
        bench.upstream.script = [*([(OK_ANSWER,)] * before), (refusal,), (OK_ANSWER,)]
        async with bench.connect() as client:
            await client.send(b"POST /v1/applications.create" + HEAD + b"Content-Length: %d\r\n\r\n" % size)
            await client.send(b"x" * size)
            answer = await client.answer()
            assert answer.status == answered
        assert len(bench.upstream.requests) - before == (2 if answered == 200 else 1)


async def test_bodies_held_for_replay_are_bounded_over_all_requests() -> None:
    refusal = b"HTTP/1.1 401 No\r\nContent-Length: 2\r\n\r\nno"
    async with set_up(BITS_LIMITS__REPLAY_TOTAL="100") as bench, bench.connect() as client:
        first = bench.sidecar._refresher.status().token
        bench.upstream.script = [(refusal,), (OK_ANSWER,), (refusal,), (OK_ANSWER,)]
        await client.send(b"POST /v1/x" + HEAD + b"Content-Length: 101\r\n\r\n" + b"x" * 101)
        assert (await client.answer()).status == 401
        # The next token comes at once.
        await bench.seen(lambda: bench.sidecar._refresher.status().token is not first)
        bench.clock.advance(100)
        bench.prove()
        bench.upstream.script = [(OK_ANSWER,), (refusal,), (OK_ANSWER,)]
        await client.send(b"POST /v1/x" + HEAD + b"Content-Length: 100\r\n\r\n" + b"x" * 100)
        assert (await client.answer()).status == 200


async def test_an_idle_connection_is_not_used_past_its_time(bench: Bench) -> None:
    async with bench.connect() as client:
        await client.send(GET)
        assert (await client.answer()).status == 200
        bench.clock.advance(54)
        await client.send(GET)
        assert (await client.answer()).status == 200
        used = bench.upstream.connections
        bench.clock.advance(56)
        await client.send(GET)
        assert (await client.answer()).status == 200
        assert bench.upstream.connections == used + 1


async def test_the_apis_own_keep_alive_timeout_is_heeded_a_second_early(bench: Bench) -> None:
    bench.upstream.script = [(b"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=5\r\nContent-Length: 2\r\n\r\nok",)]
    async with bench.connect() as client:
        await client.send(GET)
        assert (await client.answer()).status == 200
        used = bench.upstream.connections
        bench.clock.advance(4.1)
        await client.send(GET)
        assert (await client.answer()).status == 200
        assert bench.upstream.connections == used + 1


async def test_a_warm_connection_waits_for_the_first_request_and_for_the_next(bench: Bench) -> None:
    await bench.seen(lambda: bench.sidecar._pool.counts()["idle"] == 1)
    async with bench.connect() as client:
        bench.upstream.script = [(OK_ANSWER, CUT)]
        await client.send(GET)
        assert (await client.answer()).status == 200
        await bench.seen(lambda: bench.sidecar._pool.counts()["idle"] == 1)
        assert 'upstream_connects_total{outcome="ok"} 2.0' in bench.metrics()
