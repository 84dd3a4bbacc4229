"""Where other machines reach the listener and no hosts are set, a page that rebinds DNS reads nothing."""

import json

import pytest

from tests.support.bench import Bench, set_up
from tests.support.rawclient import Answer


async def call(bench: Bench, method: str, host: str, target: str = "/v1/x") -> Answer:
    async with bench.connect() as client:
        await client.send(f"{method} {target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n".encode())
        return await client.answer(method.encode())


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8080", "EVIL.Example.", "a.b.c.d.e", "1.2.3.x"]
)
async def test_a_page_of_another_name_reads_nothing(method: str, host: str) -> None:
    async with set_up(BITS_LISTEN="0.0.0.0:0") as bench:
        answer = await call(bench, method, host)
        assert answer.status == 421
        assert bench.upstream.requests == []
        if method != "HEAD":
            assert "BITS_ALLOWED_HOSTS" in json.loads(answer.body)["detail"]


@pytest.mark.parametrize(
    ("method", "host"),
    [
        # A page that posts says where it comes from, and is rejected for that.
        ("POST", "gateway.shop.example"),
        ("PUT", "gateway.shop.example"),
        # Names that no page can have.
        ("GET", "localhost:8080"),
        ("GET", "sidecar"),
        ("GET", "sidecar:8080"),
        ("GET", "192.0.2.7:8080"),
        ("GET", "[2001:db8::7]:8080"),
        ("GET", "bits.shop.svc"),
        ("GET", "bits.shop.svc.cluster.local"),
        ("GET", "host.docker.internal:8080"),
        ("GET", "laptop.local."),
    ],
)
async def test_who_cannot_be_such_a_page_is_served(method: str, host: str) -> None:
    async with set_up(BITS_LISTEN="0.0.0.0:0") as bench:
        assert (await call(bench, method, host)).status == 200


async def test_the_apis_own_name_is_no_other_name() -> None:
    async with set_up(BITS_LISTEN="0.0.0.0:0") as bench:
        authority = bench.upstream.authority
        assert (await call(bench, "GET", authority)).status == 200
        assert (await call(bench, "GET", authority, f"http://{authority}/v1/x")).status == 200


async def test_the_hosts_that_are_set_decide_alone() -> None:
    async with set_up(BITS_LISTEN="0.0.0.0:0", BITS_ALLOWED_HOSTS="gateway.shop.example") as bench:
        assert (await call(bench, "GET", "gateway.shop.example")).status == 200
        assert (await call(bench, "GET", "sidecar")).status == 421
        assert "allowed_hosts_unset" not in bench.log.getvalue()


@pytest.mark.parametrize(("listen", "warned"), [("0.0.0.0:0", True), ("127.0.0.1:0", False)])
async def test_it_is_said_at_the_start(listen: str, *, warned: bool) -> None:
    async with set_up(BITS_LISTEN=listen) as bench:
        lines = [json.loads(line) for line in bench.log.getvalue().splitlines()]
        found = [line for line in lines if line["event"] == "allowed_hosts_unset"]
        assert [line["listen"] for line in found] == ([str(bench.sidecar.addresses[0])] if warned else [])
