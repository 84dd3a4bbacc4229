"""The same valid requests through nginx, Caddy, HAProxy and the sidecar: which pass, and which do not."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from bits_auth_proxy.settings.addresses import TcpAddress
from tests.support.bench import set_up
from tests.support.recorder import TOKEN
from tests.system.differential import nginx, peers, verdicts
from tests.system.differential.cases import CASES, Case
from tests.system.differential.wire import Streams, observe

_LIMIT = 2**20
_PEERS = {
    verdicts.NGINX: nginx.NGINX,
    verdicts.CADDY: peers.CADDY,
    verdicts.HAPROXY: peers.HAPROXY,
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def found() -> AsyncIterator[dict[str, dict[str, str]]]:
    """Run all cases through all proxies; yield each case's verdicts by proxy."""
    async with contextlib.AsyncExitStack() as stack:
        bench = await stack.enter_async_context(set_up(BITS_CLIENT_AUTHORIZATION="replace"))
        # So that a 401 does not lead to another token, which the others would not have.
        bench.upstream.same_token = True
        address = bench.sidecar.addresses[0]
        assert isinstance(address, TcpAddress)
        sockets = {
            name: await stack.enter_async_context(peers.running(peer, bench.upstream.authority, TOKEN))
            for name, peer in _PEERS.items()
        }

        async def connect(name: str) -> Streams:
            if name == verdicts.SIDECAR:
                return await asyncio.open_connection(address.host, address.port, limit=_LIMIT)
            return await asyncio.open_unix_connection(sockets[name], limit=_LIMIT)

        yield {
            case.name: {
                name: verdicts.verdict(case, await observe(await connect(name), bench.upstream, case))
                for name in verdicts.PROXIES
            }
            for case in CASES
        }


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_proxies_agree_except_where_it_is_documented(
    case: Case, found: dict[str, dict[str, str]]
) -> None:
    seen = found[case.name]
    expected = verdicts.expected(case)
    if expected is None:
        assert len(set(seen.values())) == 1, seen
    else:
        assert seen == expected


def test_each_documented_disagreement_is_about_a_case() -> None:
    names = {case.name for case in CASES}
    assert [name for row in verdicts.DISAGREEMENTS for name in row.cases if name not in names] == []
