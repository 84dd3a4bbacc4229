"""The real sidecar before an upstream that records."""

import contextlib
import io
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple

from bits_auth_proxy.settings.addresses import TcpAddress
from bits_auth_proxy.sidecar import Sidecar
from tests.support.clock import FakeClock
from tests.support.rawclient import RawClient, raw_client
from tests.support.recorder import Recorder, recording
from tests.support.stand import sidecar_for
from tests.support.waiting import seen


class Bench(NamedTuple):
    """A recorder, the sidecar before it on a clock of its own, a way to connect, and the log."""

    upstream: Recorder
    sidecar: Sidecar
    connect: Callable[[], AbstractAsyncContextManager[RawClient]]
    log: io.StringIO
    clock: FakeClock

    def metrics(self) -> str:
        return self.sidecar._telemetry.render("")[0].decode()

    def in_flight(self) -> int:
        (line,) = (
            line for line in self.metrics().splitlines() if "requests_in_flight " in line and line[0] != "#"
        )
        return int(float(line.split()[1]))

    def prove(self) -> None:
        """Let the token have served the calls of the tests, as it has in a proxy that is in use."""
        refresher = self.sidecar._refresher
        token = refresher.current(self.clock.now())
        assert token is not None
        for operation in ("x", "applications.create"):
            refresher.accept(token, operation)

    async def pass_time(self, seconds: float) -> None:
        """Let time pass, and the ticker see it."""
        self.clock.advance(seconds)
        await self.seen(lambda: self.sidecar._context.now >= self.clock.now())

    async def seen(self, condition: Callable[[], bool]) -> None:
        """Wait until `condition` holds: what leads to it is under way on sockets."""
        await seen(condition, self.metrics)


@contextlib.asynccontextmanager
async def set_up(**env: str) -> AsyncIterator[Bench]:
    """Serve both; the sidecar has a token, which the API has accepted."""
    log = io.StringIO()
    clock = FakeClock()
    async with (
        recording() as upstream,
        sidecar_for(f"http://{upstream.authority}", log, clock, **env) as sidecar,
    ):
        address = sidecar.addresses[0]
        where = (address.host, address.port) if isinstance(address, TcpAddress) else address.path
        bench = Bench(upstream, sidecar, lambda: raw_client(where), log, clock)
        await bench.seen(lambda: sidecar._refresher.current(sidecar._clock.now()) is not None)
        bench.prove()
        yield bench
        # Whatever a test does, each exchange is counted in and out, once.
        await bench.seen(lambda: bench.in_flight() == 0)
