"""The network changes under idle connections to the API, in the kernel's own TCP."""

import asyncio
import contextlib
import io
import time
from collections.abc import AsyncIterator, Iterator
from typing import NamedTuple

import pytest

from bits_auth_proxy.forward import upstream
from bits_auth_proxy.settings.addresses import TcpAddress
from bits_auth_proxy.sidecar import Sidecar
from tests.support.rawclient import Answer, raw_client
from tests.support.recorder import Recorder, recording
from tests.support.serving import serving
from tests.support.stand import sidecar_for
from tests.support.waiting import seen
from tests.system.network.namespaces import API, Network, network

IDLE = 5
DEAD_AFTER = 1
"""Seconds, in place of 15, after which the system takes a peer that acknowledges nothing for dead."""
GET = b"GET /v1/x HTTP/1.1\r\nHost: localhost\r\n\r\n"
CREATE = b"POST /v1/applications.create HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}"


class Stand(NamedTuple):
    """A sidecar with idle connections over a network."""

    sidecar: Sidecar
    network: Network

    async def call(self, request: bytes) -> Answer:
        address = self.sidecar.addresses[0]
        assert isinstance(address, TcpAddress)
        async with raw_client((address.host, address.port)) as client:
            await client.send(request)
            return await client.answer()

    def idle(self) -> int:
        return self.sidecar._pool.counts()["idle"]


@pytest.fixture
async def stand(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stand]:
    monkeypatch.setattr(upstream, "_DEAD_AFTER", DEAD_AFTER)
    api = Recorder()
    with network() as between, await between.listen() as sock:
        env = {"BITS_ALLOW_INSECURE_HTTP": "true", "BITS_UPSTREAM__WARM_CONNECTIONS": "0"}
        async with (
            recording() as tokens,
            serving(api.serve, sock=sock, limit=2**20),
            sidecar_for(
                f"http://{API}:{sock.getsockname()[1]}",
                io.StringIO(),
                BITS_TOKEN_URL=f"http://{tokens.authority}/v1/oauth2/token",
                **env,
            ) as sidecar,
        ):
            made = Stand(sidecar, between)
            api.delay = 0.2
            answers = await asyncio.gather(*(made.call(GET) for _ in range(IDLE)))
            assert [answer.status for answer in answers] == [200] * IDLE
            api.delay = 0
            await seen(lambda: made.idle() == IDLE)
            yield made


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    began = time.monotonic()
    yield
    assert time.monotonic() - began < seconds


async def test_after_the_own_address_is_replaced_one_call_takes_seconds_and_the_next_none(
    stand: Stand,
) -> None:
    stand.network.replace_own_address()
    with within(DEAD_AFTER * 5):
        assert (await stand.call(GET)).status == 200
    with within(DEAD_AFTER):
        answers = [await stand.call(CREATE) for _ in range(IDLE)]
    assert [answer.status for answer in answers] == [200] * IDLE
    # Those that were idle before have gone.
    assert stand.idle() == 1


async def test_while_the_network_is_down_calls_fail_in_seconds_and_afterwards_none_does(
    stand: Stand,
) -> None:
    stand.network.pull()
    with within(DEAD_AFTER * 5):
        assert (await stand.call(CREATE)).status == 502
    assert stand.idle() == 0
    stand.network.plug()
    with within(DEAD_AFTER * 5):
        answers = [await stand.call(CREATE) for _ in range(IDLE)]
    assert [answer.status for answer in answers] == [200] * IDLE
