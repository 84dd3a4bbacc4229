"""The connection to the API through a real egress proxy."""

import contextlib
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bits_auth_proxy.sidecar import Sidecar
from tests.support.commands import proxy_env, run
from tests.support.ports import free_port
from tests.support.secure_api import SecureApi, create, secure_api
from tests.support.stand import sidecar_for
from tests.support.waiting import seen
from tests.system.egress.tinyproxy import Tinyproxy, tinyproxy

LOGIN = "acme s3cret"


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[SecureApi]:
    async with secure_api(tmp_path) as serving:
        yield serving


def port_of(api: SecureApi) -> int:
    return int(api.origin.rpartition(":")[2])


@contextlib.asynccontextmanager
async def through(
    api: SecureApi, egress: Tinyproxy, log: io.StringIO, user: str = "", **more: str
) -> AsyncIterator[Sidecar]:
    env = {**api.env, "BITS_HTTPS_PROXY": f"http://{user}127.0.0.1:{egress.port}", **more}
    async with sidecar_for(api.origin, log, **env) as sidecar:
        yield sidecar


async def test_token_and_calls_go_through_tunnels(api: SecureApi, tmp_path: Path) -> None:
    async with tinyproxy(tmp_path, connect_port=port_of(api)) as egress:
        async with through(api, egress, io.StringIO()) as sidecar:
            assert [await create(sidecar) for _ in range(3)] == [(200, "")] * 3
        await seen(lambda: len(egress.tunnels) >= 2)
        authority = api.origin.removeprefix("https://")
        assert len(egress.tunnels) == 2
        assert all(f"CONNECT {authority} HTTP/1.1" in each for each in egress.tunnels)


async def test_a_proxy_that_asks_for_credentials_gets_them(api: SecureApi, tmp_path: Path) -> None:
    log = io.StringIO()
    async with tinyproxy(tmp_path, connect_port=port_of(api), login=LOGIN) as egress:
        async with through(api, egress, log, "acme:s3cret@") as sidecar:
            assert await create(sidecar) == (200, "")
        await seen(lambda: len(egress.tunnels) >= 2)
        assert len(egress.tunnels) == 2
        code, stdout, _ = await run(
            "check",
            env=proxy_env(api.origin, **api.env, HTTPS_PROXY=f"http://acme:s3cret@127.0.0.1:{egress.port}"),
        )
        assert code == 0, stdout
    assert "s3cret" not in log.getvalue() + stdout


@pytest.mark.parametrize("user", ["", "acme:wrong@"])
async def test_without_the_right_ones_there_is_no_token_and_the_log_says_why(
    api: SecureApi, tmp_path: Path, user: str
) -> None:
    log = io.StringIO()
    async with tinyproxy(tmp_path, connect_port=port_of(api), login=LOGIN) as egress:
        async with through(api, egress, log, user, BITS_TOKEN_WAIT="0.5") as sidecar:
            status, proxy_status = await create(sidecar)
            await seen(lambda: "token_refresh_failed" in log.getvalue())
        await egress.says("CONNECT")
    assert status == 503
    assert proxy_status.startswith("bits-auth-proxy; error=")
    failures = [json.loads(line) for line in log.getvalue().splitlines() if "token_refresh_failed" in line]
    assert failures
    assert all("401" in each["detail"] or "407" in each["detail"] for each in failures)


async def test_no_proxy_goes_directly(api: SecureApi, tmp_path: Path) -> None:
    async with tinyproxy(tmp_path, connect_port=port_of(api)) as egress:
        async with through(api, egress, io.StringIO(), BITS_NO_PROXY="localhost") as sidecar:
            assert await create(sidecar) == (200, "")
        assert egress.tunnels == []


async def test_a_proxy_that_was_away_is_used_again(api: SecureApi, tmp_path: Path) -> None:
    port = free_port()
    async with (
        tinyproxy(tmp_path, connect_port=port_of(api), port=port) as egress,
        through(api, egress, io.StringIO(), BITS_UPSTREAM__WARM_CONNECTIONS="0") as sidecar,
    ):
        assert await create(sidecar) == (200, "")
        await egress.stop()
        assert await create(sidecar) == (502, "bits-auth-proxy; error=connection_refused")
        async with tinyproxy(tmp_path, connect_port=port_of(api), port=port):
            assert await create(sidecar) == (200, "")
