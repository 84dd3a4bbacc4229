"""One connection to the API: when it serves again, and when not."""

import asyncio
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

from bits_auth_proxy.forward.problems import Problem
from bits_auth_proxy.forward.tls import TlsChannel
from bits_auth_proxy.forward.upstream import UpstreamConnection
from bits_auth_proxy.forward.write_batcher import WriteBatcher
from bits_auth_proxy.http1.messages import Field, ResponseHead
from tests.support.connector import MemoryTransport, unexpected
from tests.support.key_updates import REPLY, KeyUpdates
from tests.support.waiting import seen
from tests.unit.forward.test_tls import CONTEXT, Server

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Keeper:
    """The pool."""

    def __init__(self) -> None:
        self.released = 0
        self.gone = 0
        self.distrusted: list[float] = []

    def release(self, connection: UpstreamConnection) -> None:
        self.released += 1

    def lost(self, connection: UpstreamConnection) -> None:
        self.gone += 1

    def distrust(self, since: float) -> None:
        self.distrusted.append(since)


class Sink:
    """An exchange that ends with the answer."""

    def __init__(self, connection: UpstreamConnection) -> None:
        self._connection = connection
        self.done = False

    def response_interim(self, head: ResponseHead) -> None:
        pass

    def response_head(self, head: ResponseHead, length: int) -> None:
        pass

    def response_body(self, content: bytes) -> None:
        pass

    def response_end(self, trailers: list[Field]) -> None:
        self.done = True

    def response_flush(self) -> None:
        if self.done:
            self._connection.finish()

    def upstream_lost(self, problem: Problem, *, answered: bool) -> None:
        raise AssertionError(problem)

    def upstream_blocked(self) -> None:
        pass

    def upstream_writable(self) -> None:
        pass


class Wire(MemoryTransport):
    """Keeps what is written."""

    def __init__(self, protocol: asyncio.BaseProtocol) -> None:
        super().__init__(protocol)
        self.written = b""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)


class Pair:
    """A connection over TLS, whose handshake is done, and its server in memory."""

    def __init__(self, keylog: str | None = None) -> None:
        loop = asyncio.get_running_loop()
        self.server, self.keeper = Server(keylog=keylog), Keeper()
        self._buffer = memoryview(bytearray(65_536))
        self._batcher = WriteBatcher(loop.call_soon, unexpected)
        self.connection = UpstreamConnection(
            loop=loop,
            keeper=self.keeper,
            tls=TlsChannel(CONTEXT, "api.bits.bi"),
            batcher=self._batcher,
            read_buffer=self._buffer,
            now=0.0,
        )
        self._wire = Wire(self.connection)
        self.connection.connection_made(self._wire)
        while not self.connection.is_ready:
            self.read(self.server.handshake(self.written()))
        # TLS 1.3: the session tickets.
        self.read(self.server.handshake(self.written()))

    def read(self, data: bytes) -> None:
        self._buffer[: len(data)] = data
        self.connection.buffer_updated(len(data))

    def written(self) -> bytes:
        self._batcher.flush()
        data, self._wire.written = self._wire.written, b""
        return data


@pytest.mark.parametrize("ends", [False, True])
async def test_an_answer_with_the_end_of_tls_right_behind_leaves_no_connection_to_use(ends: bool) -> None:
    pair = Pair()
    connection, server, keeper = pair.connection, pair.server, pair.keeper
    sink = Sink(connection)
    connection.begin(sink, b"GET", b"GET / HTTP/1.1\r\n\r\n")
    pair.read(server.send(ANSWER) + (server.close() if ends else b""))
    assert sink.done
    assert keeper.released == (0 if ends else 1)
    connection.close()
    await asyncio.sleep(0)
    assert keeper.gone == 1


async def test_key_updates_are_answered_and_an_api_that_reads_no_answers_is_cut(
    tmp_path: Path,
) -> None:
    keylog = tmp_path / "keys"
    pair = Pair(str(keylog))
    connection = pair.connection
    updates = KeyUpdates(pair.server.session, keylog, "SERVER")
    for _ in range(100):
        pair.read(updates.request(20))
        # OpenSSL sends the last one with its next record.
        assert len(pair.written()) in (19 * REPLY, 20 * REPLY)
    assert connection.can_serve()
    connection.begin(Sink(connection), b"GET", b"GET / HTTP/1.1\r\n\r\n")
    pair.read(updates.data(ANSWER))
    assert pair.keeper.released == 1
    connection.pause_writing()
    written = 0
    while connection.is_open:
        pair.read(updates.request(20))
        written += len(pair.written())
        assert written <= 20_000
    assert written >= 100 * REPLY
    await asyncio.sleep(0)
    assert pair.keeper.gone == 1


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_an_answer_that_lies_unread_when_a_write_fails_is_taken(
    factory: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(unread_at_a_failed_write())


async def unread_at_a_failed_write() -> None:
    loop, keeper = asyncio.get_running_loop(), Keeper()
    batcher = WriteBatcher(loop.call_soon, unexpected)
    connection = UpstreamConnection(
        loop=loop,
        keeper=keeper,
        tls=None,
        batcher=batcher,
        read_buffer=memoryview(bytearray(65_536)),
        now=0.0,
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        await loop.create_connection(lambda: connection, *listener.getsockname())
        api, _ = listener.accept()
    sink = Sink(connection)
    connection.begin(sink, b"POST", b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n")
    batcher.flush()
    api.sendall(ANSWER)
    # With the request unread, this is a reset.
    api.close()
    connection.send(b"body")
    batcher.flush()
    assert not sink.done
    await seen(lambda: sink.done)
    assert keeper.released == 0
    assert keeper.distrusted == []


async def test_a_dead_peer_is_noticed_in_seconds_and_its_siblings_are_distrusted() -> None:
    loop, keeper = asyncio.get_running_loop(), Keeper()
    connection = UpstreamConnection(
        loop=loop,
        keeper=keeper,
        tls=None,
        batcher=WriteBatcher(loop.call_soon, unexpected),
        read_buffer=memoryview(bytearray(1024)),
        now=7.0,
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        transport, _ = await loop.create_connection(lambda: connection, *listener.getsockname())
    sock = transport.get_extra_info("socket")
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    if sys.platform == "linux":
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 15_000
        # An API that does not read a long request for a while is not dead.
        connection.begin(Sink(connection), b"POST", b"POST / HTTP/1.1\r\n\r\n")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 15_000
        connection.send(b"more")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 0
        connection.begin(Sink(connection), b"POST", b"POST / HTTP/1.1\r\n\r\n")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 15_000
        connection._sink = None
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 15
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == 5
    connection.connection_lost(TimeoutError("Connection timed out"))
    assert keeper.distrusted == [7.0]
    transport.abort()
    await asyncio.sleep(0)
