"""The same valid requests through Debian's nginx and through the sidecar, to the same recording API.

Both ends of the sidecar must see what both ends of nginx see, after the documented differences are applied.
Any other difference is a failure, and so is a documented difference that changes nothing.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import NamedTuple

import pytest
import pytest_asyncio

from bits_auth_proxy.settings.addresses import TcpAddress
from tests.support.bench import set_up
from tests.support.recorder import TOKEN
from tests.system.differential.cases import CASES, Case
from tests.system.differential.differences import DIFFERENCES
from tests.system.differential.nginx import NGINX
from tests.system.differential.peers import running
from tests.system.differential.wire import Response, Seen, observe

_LIMIT = 2**20
_PSEUDONYM = re.compile(rb"\bbits-auth-proxy-[0-9a-f]+\Z")


class Pair(NamedTuple):
    """What was seen with nginx, with the differences applied, and with the sidecar; and which applied."""

    expected: Seen
    seen: Seen
    differences: tuple[str, ...]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pairs() -> AsyncIterator[dict[str, Pair]]:
    """Run all cases through both proxies, which are started once."""
    made = {}
    # nginx can only replace the field.
    async with (
        set_up(BITS_CLIENT_AUTHORIZATION="replace") as bench,
        running(NGINX, bench.upstream.authority, TOKEN) as nginx,
    ):
        # So that a 401 does not lead to another token, which nginx would not have.
        bench.upstream.same_token = True
        address = bench.sidecar.addresses[0]
        assert isinstance(address, TcpAddress)
        for case in CASES:
            through_nginx = await observe(
                await asyncio.open_unix_connection(nginx, limit=_LIMIT), bench.upstream, case
            )
            through_sidecar = await observe(
                await asyncio.open_connection(address.host, address.port, limit=_LIMIT), bench.upstream, case
            )
            made[case.name] = _pair(case, through_nginx, through_sidecar)
        yield made


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_sidecar_does_as_nginx_does(case: Case, pairs: dict[str, Pair]) -> None:
    pair = pairs[case.name]
    assert pair.seen == pair.expected
    assert not pair.seen.fault


def test_each_documented_difference_is_seen(pairs: dict[str, Pair]) -> None:
    used = {name for pair in pairs.values() for name in pair.differences}
    assert [entry.name for entry in DIFFERENCES if entry.name not in used] == []


def test_the_cases_are_many_and_most_are_forwarded(pairs: dict[str, Pair]) -> None:
    assert len(pairs) == len(CASES)
    assert sum(len(pair.seen.requests) == 1 for pair in pairs.values()) >= 200


def _pair(case: Case, through_nginx: Seen, through_sidecar: Seen) -> Pair:
    expected = through_nginx
    differences = []
    for entry in DIFFERENCES:
        changed = entry.apply(case, expected)
        if changed != expected:
            differences.append(entry.name)
        expected = changed
    return Pair(expected, _told_simply(case, through_sidecar), tuple(differences))


def _told_simply(case: Case, seen: Seen) -> Seen:
    """Return `seen` without values that differ in each run, and without the bodies of our own problems."""
    if seen.response is None:
        return seen
    made = [
        value
        for request in seen.requests
        for name, value in request.fields
        if name == b"X-Request-ID" and value not in case.request
    ]

    def simple(name: bytes, value: bytes) -> tuple[bytes, bytes]:
        if name == b"X-Request-ID" and value in made:
            return name, b"made"
        return name, _PSEUDONYM.sub(b"ours", value) if name == b"Via" else value

    response = seen.response
    if any(name == b"Proxy-Status" for name, _ in response.fields):
        response = Response(response.version, response.status, response.reason, ())
    return seen._replace(
        requests=tuple(
            request._replace(fields=tuple(simple(*field) for field in request.fields))
            for request in seen.requests
        ),
        response=response._replace(fields=tuple(simple(*field) for field in response.fields)),
    )
