"""Which hosts and authorities are served, on each kind of listener (RFC 9112 section 3.2)."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from bits_auth_proxy.settings.addresses import TcpAddress
from tests.support.bench import Bench, set_up
from tests.support.rawclient import Answer, raw_client


@asynccontextmanager
async def listening(kind: str, path: Path, **env: str) -> AsyncIterator[Bench]:
    """The proxy on loopback, on all addresses or on a Unix socket."""
    where = {"loopback": "127.0.0.1:0", "all": "0.0.0.0:0", "unix": f"unix:{path / 's'}"}[kind]
    async with set_up(BITS_LISTEN=where, **env) as bench:
        address = bench.sidecar.addresses[0]
        if isinstance(address, TcpAddress):
            yield bench._replace(connect=lambda: raw_client(("127.0.0.1", address.port)))
        else:
            yield bench


async def answer(bench: Bench, sent: bytes) -> Answer:
    async with bench.connect() as client:
        await client.send(sent.replace(b"API", bench.upstream.authority.encode()))
        return await client.answer(sent.partition(b" ")[0])


@pytest.mark.parametrize("kind", ["loopback", "all", "unix"])
@pytest.mark.parametrize(
    ("target", "host", "line"),
    [
        (b"http://API/v1/x?y", b"API", b"GET /v1/x?y HTTP/1.1"),
        (b"http://API", b"API", b"GET / HTTP/1.1"),
        (b"HTTP://API/v1/x", b"", b"GET /v1/x HTTP/1.1"),
        (b"http://localhost/v1/x", b"evil.example", b"GET /v1/x HTTP/1.1"),
        (b"http://localhost:80/v1/x", b"localhost", b"GET /v1/x HTTP/1.1"),
        (b"http://[0:0:0:0:0:0:0:1]/v1/x", b"x", b"GET /v1/x HTTP/1.1"),
    ],
)
async def test_the_authority_of_an_absolute_target_counts_and_host_does_not(
    tmp_path: Path, kind: str, target: bytes, host: bytes, line: bytes
) -> None:
    async with listening(kind, tmp_path) as bench:
        got = await answer(bench, b"GET " + target + b" HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
        assert got.status == 200
        ((head, _),) = bench.upstream.requests
    assert head.startswith(line + b"\r\n")
    assert head.count(b"\r\nHost: %b\r\n" % bench.upstream.authority.encode()) == 1


@pytest.mark.parametrize(("kind", "status"), [("loopback", 421), ("all", 421), ("unix", 200)])
async def test_a_foreign_authority_meets_the_same_rule_as_a_host(
    tmp_path: Path, kind: str, status: int
) -> None:
    async with listening(kind, tmp_path) as bench:
        for sent in (
            b"GET http://other.example/v1/x HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"GET /v1/x HTTP/1.1\r\nHost: other.example\r\n\r\n",
        ):
            assert (await answer(bench, sent)).status == status


@pytest.mark.parametrize("kind", ["all", "unix"])
async def test_allowed_hosts_hold_on_every_listener(tmp_path: Path, kind: str) -> None:
    async with listening(kind, tmp_path, BITS_ALLOWED_HOSTS="Bits.Internal., [2001:DB8:0::1]:8080") as bench:
        for host, status in (
            (b"bits.internal", 200),
            (b"BITS.internal.:9", 200),
            (b"[2001:db8:0:0::1]:8080", 200),
            (b"[2001:db8:0:0::1]:8081", 421),
            (b"[2001:db8:0:0::1]", 421),
            (b"other.example", 421),
            (b"localhost", 421),
        ):
            for sent in (
                b"GET /v1/x HTTP/1.1\r\nHost: " + host + b"\r\n\r\n",
                b"GET http://" + host + b"/v1/x HTTP/1.1\r\nHost: x\r\n\r\n",
            ):
                assert (await answer(bench, sent)).status == status, sent


@pytest.mark.parametrize("kind", ["all", "unix"])
async def test_a_client_that_takes_us_for_its_http_proxy_is_served(tmp_path: Path, kind: str) -> None:
    """Its target and its Host are both the API's own, which is not among the allowed hosts."""
    async with listening(kind, tmp_path, BITS_ALLOWED_HOSTS="bits.internal") as bench:
        for target, status in (
            (b"http://API/v1/x", 200),
            (b"HTTP://API?y", 200),
            (b"http://other.example/", 421),
            (b"http://127.0.0.1:1/", 421),
            (b"/v1/x", 421),
        ):
            got = await answer(bench, b"GET " + target + b" HTTP/1.1\r\nHost: API\r\n\r\n")
            assert got.status == status, target


@pytest.mark.parametrize(("kind", "status"), [("loopback", 400), ("all", 400), ("unix", 200)])
async def test_an_empty_host_is_for_unix_sockets(tmp_path: Path, kind: str, status: int) -> None:
    async with listening(kind, tmp_path, BITS_ALLOWED_HOSTS="localhost") as bench:
        got = await answer(bench, b"GET /v1/x HTTP/1.1\r\nHost:\r\n\r\n")
        assert got.status == status
        if status == 400:
            assert json.loads(got.body)["code"] == "bad_host"


@pytest.mark.parametrize(
    "authority", [b"", b":80", b"a@localhost", b"local|host", b"localhost:x", b"localhost:123456", b"[::1"]
)
@pytest.mark.parametrize("kind", ["loopback", "all", "unix"])
async def test_an_authority_that_is_none_is_refused(tmp_path: Path, kind: str, authority: bytes) -> None:
    async with listening(kind, tmp_path) as bench:
        sent = b"GET http://" + authority + b"/v1/x HTTP/1.1\r\nHost: localhost\r\n\r\n"
        assert (await answer(bench, sent)).status == 400
        assert bench.upstream.requests == []


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        ("host.docker.internal", "host.docker.internal"),
        ("host.docker.internal:8080", "host.docker.internal:8080"),
        ("a" * 5000, "a" * 100 + " "),
        ("[::2]", "[::2]"),
        ("<b>.example", None),
    ],
)
async def test_a_refusal_names_the_host_and_the_setting(host: str, shown: str | None) -> None:
    async with set_up() as bench:
        got = await answer(bench, f"GET /v1/x HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        problem = json.loads(got.body)
        lines = [json.loads(line) for line in bench.log.getvalue().splitlines()]
        (line,) = [each for each in lines if each["event"] == "request_rejected"]
    if shown is None:
        assert got.status == 400
        assert host not in got.body.decode() + bench.log.getvalue()
        return
    assert got.status == 421
    for detail in (problem["detail"], line["detail"]):
        assert f"the host {shown}" in detail
        assert "BITS_ALLOWED_HOSTS" in detail
        assert len(detail) < 300


async def test_the_api_is_told_the_authority_of_an_absolute_target() -> None:
    async with set_up(BITS_FORWARDED_HEADERS="true") as bench:
        await answer(bench, b"GET http://localhost:8080/v1/x HTTP/1.1\r\nHost: evil.example\r\n\r\n")
        assert b"\r\nX-Forwarded-Host: localhost:8080\r\n" in bench.upstream.requests[0][0]


async def test_a_unix_socket_has_no_address_to_tell(tmp_path: Path) -> None:
    async with listening("unix", tmp_path, BITS_FORWARDED_HEADERS="true") as bench:
        await answer(bench, b"GET /v1/x HTTP/1.1\r\nHost:\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n")
        ((head, _),) = bench.upstream.requests
    told = [line for line in head.split(b"\r\n") if line.lower().startswith(b"x-forwarded")]
    assert told == [b"X-Forwarded-Proto: http"]
