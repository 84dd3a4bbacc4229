"""The real sidecar before an upstream that records."""

import contextlib
import io
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple

import pytest

from config.addresses import TcpAddress
from tests.fakes.rawclient import RawClient, raw_client
from tests.fakes.recorder import Recorder, recording
from tests.fakes.stand import sidecar_for


class Bench(NamedTuple):
    """A recorder, a way to connect to the proxy before it, and the proxy's log."""

    upstream: Recorder
    connect: Callable[[], AbstractAsyncContextManager[RawClient]]
    log: io.StringIO


@contextlib.asynccontextmanager
async def set_up(**env: str) -> AsyncIterator[Bench]:
    log = io.StringIO()
    async with recording() as upstream, sidecar_for(f"http://{upstream.authority}", log, **env) as sidecar:
        address = sidecar.addresses[0]
        assert isinstance(address, TcpAddress)
        yield Bench(upstream, lambda: raw_client((address.host, address.port)), log)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with set_up() as made:
        yield made
