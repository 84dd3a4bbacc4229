"""What stands for the pool's neighbours: connections to an API that exists in memory only, and a keeper."""

import asyncio

from bits_auth_proxy.forward.dialing import DialError
from bits_auth_proxy.forward.ports import ConnectionKeeper
from bits_auth_proxy.forward.problems import Problem
from bits_auth_proxy.forward.upstream import UpstreamConnection
from bits_auth_proxy.forward.write_batcher import WriteBatcher
from tests.support.clock import FakeClock
from tests.support.timers import settle


class MemoryTransport(asyncio.Transport):
    """A transport without a socket; like a real one it tells of its end in the loop's next turn."""

    def __init__(self, protocol: asyncio.BaseProtocol) -> None:
        super().__init__()
        self._protocol = protocol
        self._closing = False

    def is_closing(self) -> bool:
        return self._closing

    def is_reading(self) -> bool:
        return not self._closing

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def write(self, data: bytes | bytearray | memoryview) -> None:
        pass

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None)

    def abort(self) -> None:
        self.close()


class Keeper:
    """Implements `ports.ConnectionKeeper` for connections that are not made."""

    def release(self, connection: UpstreamConnection) -> None:
        raise AssertionError

    def lost(self, connection: UpstreamConnection) -> None:
        pass


class FakeConnector:
    """Implements `pool.Connector`. Attempts end in the order in which they were begun."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self._pending: list[tuple[ConnectionKeeper, asyncio.Future[UpstreamConnection]]] = []
        self.attempts = 0

    async def connect(self, keeper: ConnectionKeeper) -> UpstreamConnection:
        attempt: asyncio.Future[UpstreamConnection] = asyncio.get_running_loop().create_future()
        self._pending.append((keeper, attempt))
        self.attempts += 1
        return await attempt

    @property
    def pending(self) -> int:
        return len(self._pending)

    async def succeed(self, *, keep_alive_timeout: int | None = None) -> UpstreamConnection:
        """Let the oldest attempt end well; return its connection."""
        await settle()
        keeper, attempt = self._pending.pop(0)
        loop = asyncio.get_running_loop()
        connection = UpstreamConnection(
            loop=loop,
            keeper=keeper,
            tls=None,
            batcher=WriteBatcher(loop.call_soon),
            read_buffer=memoryview(bytearray(1024)),
            now=self._clock.now(),
        )
        connection.connection_made(MemoryTransport(connection))
        connection.keep_alive_timeout = keep_alive_timeout
        attempt.set_result(connection)
        await settle()
        return connection

    async def fail(self, problem: Problem) -> None:
        """Let the oldest attempt fail."""
        await settle()
        self._pending.pop(0)[1].set_exception(DialError(problem, "as the test says"))
        await settle()

    async def crash(self, error: Exception) -> None:
        """Let the oldest attempt end with what no connector raises."""
        await settle()
        self._pending.pop(0)[1].set_exception(error)
        await settle()
