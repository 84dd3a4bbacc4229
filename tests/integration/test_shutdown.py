"""How serving ends: what is in flight ends well, what is idle goes, what is endless is cut."""

import asyncio
import contextlib
import signal
from collections import Counter
from pathlib import Path

from bits_auth_proxy.forward.listener import bind
from bits_auth_proxy.settings.addresses import UnixAddress
from tests.support.bench import Bench, set_up
from tests.support.commands import command, proxy_env
from tests.support.rawclient import raw_client
from tests.support.recorder import OK_ANSWER, let_it_be_read, recording

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
    async with set_up(BITS_DRAIN_DELAY="2") as bench, bench.connect() as client:
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
        # Far less than the drain's two minutes.
        async with asyncio.timeout(30):
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
    admin = tmp_path / "admin.sock"
    env = {"BITS_LISTEN": f"unix:{path}", "BITS_ADMIN_LISTEN": f"unix:{admin}", "BITS_SOCKET_MODE": "660"}
    async with set_up(**env) as bench:
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
        bench.sidecar.stop()
        assert await bench.sidecar.wait()
        assert not Path(path).exists()
        assert admin.is_socket()
        # What clients may do is no reason for them to reach the admin socket.
        assert admin.stat().st_mode & 0o777 == 0o600
    assert not admin.exists()


async def test_sigterm_with_sixty_four_busy_clients_loses_no_exchange() -> None:
    answered: Counter[bytes] = Counter()
    told, fresh, refused = 0, 0, 0
    stopping = asyncio.Event()
    async with recording() as api:
        api.delay = 0.05
        env = proxy_env(f"http://{api.authority}", BITS_DRAIN_DELAY="3", BITS_ACCESS_LOG="off")
        async with command("run", env=env) as running:
            host, _, port = (await running.event("started"))["listen"][0].rpartition(":")

            async def client(number: int) -> None:
                """Call again and again, on a new connection when told that this one ends."""
                nonlocal told, fresh, refused
                for turn in range(10_000):
                    try:
                        async with raw_client((host, int(port))) as peer:
                            new = stopping.is_set()
                            for call in range(10_000):
                                mark = b"%d-%d-%d" % (number, turn, call)
                                await peer.send(GET[:-2] + b"X-Mark: " + mark + b"\r\n\r\n")
                                answer = await peer.answer()
                                assert (answer.status, answer.body, answer.whole) == (200, b"ok", True)
                                answered[mark] += 1
                                fresh += new
                                if answer.field(b"Connection") == b"close":
                                    told += 1
                                    break
                    except ConnectionRefusedError:
                        refused += 1
                        return
                    except (asyncio.IncompleteReadError, ConnectionError):
                        # Accepted at the very end, and closed before its request was read.
                        assert stopping.is_set()

            async with asyncio.TaskGroup() as group:
                for number in range(64):
                    group.create_task(client(number))
                await asyncio.sleep(0.5)
                stopping.set()
                running.send_signal(signal.SIGTERM)
            assert await running.ended() == 0
        arrived = Counter(head.partition(b"X-Mark: ")[2].partition(b"\r\n")[0] for head, _ in api.requests)
    # Whatever came to the API was answered, once, and to its client.
    assert arrived == answered
    assert len(answered) > 64
    assert told >= 64
    assert fresh >= 64
    assert refused == 64
    assert '"cut": 0' in running.output


async def test_endless_streams_and_tunnels_are_cut_at_the_timeout_and_the_rest_is_not() -> None:
    stream = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n"
    upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
    async with set_up(BITS_DRAIN_TIMEOUT="2") as bench, contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(bench.connect()) for _ in range(5)]
        bench.upstream.script = [(stream,), (stream,), (b"HTTP/1.1 101 S\r\n" + upgrade + b"\r\nx",), ()]
        for client in clients[:2]:
            await client.send(GET)
            await client.until(b"x\r\n")
        await clients[2].send(GET[:-2] + upgrade + b"\r\n")
        await clients[2].until(b"\r\n\r\nx")
        await clients[3].send(GET)
        await bench.seen(lambda: len(bench.upstream.requests) == 4)
        ending = asyncio.ensure_future(bench.sidecar.wait())
        bench.sidecar.stop()
        assert await clients[4].is_closed()
        bench.upstream.push(OK_ANSWER)
        assert (await clients[3].answer()).status == 200
        await let_it_be_read()
        assert not ending.done()
        assert await ending
        for client in clients[:3]:
            assert await client.is_closed()
        assert '"event": "stopped", "cut": 3' in bench.log.getvalue()
