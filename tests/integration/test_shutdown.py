"""How serving ends: what is in flight ends well, what is idle goes, what is endless is cut."""

import asyncio
from pathlib import Path

from config.addresses import UnixAddress
from proxy.forward.listener import bind
from tests.fakes.bench import Bench, set_up
from tests.fakes.recorder import OK_ANSWER

GET = b"GET /v1/x HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def test_idle_clients_go_at_once_and_the_exchange_in_flight_ends(bench: Bench) -> None:
    bench.upstream.script = [()]
    async with bench.connect() as idle, bench.connect() as busy:
        await busy.send(GET)
        await bench.upstream.arrived.wait()
        ending = asyncio.ensure_future(bench.sidecar.wait())
        bench.sidecar.stop()
        assert await idle.is_closed()
        assert not ending.done()
        bench.upstream.push(OK_ANSWER)
        answer = await busy.answer()
        assert (answer.status, answer.body, answer.field(b"Connection")) == (200, b"ok", b"close")
        assert await busy.is_closed()
        assert await ending
    assert '"event": "stopped", "cut": 0' in bench.log.getvalue()


async def test_after_the_delay_nobody_is_accepted() -> None:
    async with set_up(BITS_DRAIN_DELAY="0.2") as bench, bench.connect() as client:
        await client.send(GET)
        assert (await client.answer()).status == 200
        ending = asyncio.ensure_future(bench.sidecar.wait())
        bench.sidecar.stop()
        # During the delay calls are served still, and told to go elsewhere next time.
        await asyncio.sleep(0)
        async with bench.connect() as late:
            await late.send(GET)
            answer = await late.answer()
            assert (answer.status, answer.field(b"Connection")) == (200, b"close")
        assert await ending
        try:
            async with bench.connect():
                refused = False
        except ConnectionRefusedError:
            refused = True
        assert refused


async def test_what_does_not_end_is_cut_at_the_timeout() -> None:
    async with set_up(BITS_DRAIN_TIMEOUT="0.2") as bench, bench.connect() as client:
        bench.upstream.script = [(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n",)]
        await client.send(GET)
        await client.until(b"x\r\n")
        bench.sidecar.stop()
        assert await bench.sidecar.wait()
        assert await client.is_closed()
        assert '"event": "stopped", "cut": 1' in bench.log.getvalue()


async def test_a_second_stop_ends_the_drain_at_once() -> None:
    async with set_up(BITS_DRAIN_DELAY="60", BITS_DRAIN_TIMEOUT="60") as bench, bench.connect() as client:
        bench.upstream.script = [()]
        await client.send(GET)
        await bench.upstream.arrived.wait()
        bench.sidecar.stop()
        ending = asyncio.ensure_future(bench.sidecar.wait())
        await asyncio.sleep(0)
        bench.sidecar.stop()
        async with asyncio.timeout(2):
            assert await ending is False
        assert await client.is_closed()


async def test_sixty_four_busy_clients_lose_nothing(bench: Bench) -> None:
    bench.upstream.script = [()]
    async with asyncio.TaskGroup() as group:
        arrived = 0

        async def call() -> None:
            nonlocal arrived
            async with bench.connect() as client:
                await client.send(GET)
                arrived += 1
                assert (await client.answer()).status == 200

        calls = [group.create_task(call()) for _ in range(64)]
        await bench.seen(lambda: len(bench.upstream.requests) == 64)
        bench.sidecar.stop()
        ending = group.create_task(bench.sidecar.wait())
        bench.upstream.push_all(OK_ANSWER)
        await asyncio.gather(*calls)
        assert await ending
    assert arrived == 64


async def test_a_socket_left_behind_is_replaced_and_one_in_use_is_not(tmp_path: Path) -> None:
    path = str(tmp_path / "bits.sock")
    # Left behind: closed, and still there.
    with bind(path):
        pass
    assert Path(path).is_socket()
    async with set_up(BITS_LISTEN=f"unix:{path}", BITS_SOCKET_MODE="660") as bench:
        assert bench.sidecar.addresses == [UnixAddress(path)]
        assert Path(path).stat().st_mode & 0o777 == 0o660
        try:
            bind(path).close()
            taken = True
        except OSError:
            taken = False
        assert not taken
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(GET)
        assert (await reader.readline()).startswith(b"HTTP/1.1 200 ")
        writer.close()
        await writer.wait_closed()
    assert not Path(path).exists()
