"""The way to the API: TLS of one's own authority, and tunnels through an http proxy."""

import contextlib
import io
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from bits_auth_proxy.assembly import egress_proxy
from bits_auth_proxy.settings.loading import load
from bits_auth_proxy.sidecar import Sidecar
from bits_auth_proxy.telemetry.log import Redactor
from tests.support.commands import proxy_env, run
from tests.support.connect_proxy import ConnectProxy, connect_proxy
from tests.support.secure_api import SecureApi, create, secure_api
from tests.support.stand import sidecar_for
from tests.support.waiting import seen


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[SecureApi]:
    async with secure_api(tmp_path) as serving:
        yield serving


@pytest.fixture
async def egress() -> AsyncIterator[ConnectProxy]:
    async with connect_proxy() as proxy:
        yield proxy


@contextlib.asynccontextmanager
async def through(api: SecureApi, proxy: str, log: io.StringIO, **more: str) -> AsyncIterator[Sidecar]:
    async with sidecar_for(api.origin, log, **{**api.env, "BITS_HTTPS_PROXY": proxy, **more}) as sidecar:
        yield sidecar


async def test_https_with_an_authority_of_ones_own(api: SecureApi) -> None:
    async with sidecar_for(api.origin, io.StringIO(), **api.env) as sidecar:
        assert [await create(sidecar) for _ in range(3)] == [(200, "")] * 3


async def test_an_authority_that_is_not_trusted_yields_no_token(api: SecureApi) -> None:
    log = io.StringIO()
    async with sidecar_for(api.origin, log, BITS_TOKEN_WAIT="0.3") as sidecar:
        assert (await create(sidecar))[0] == 503
        await seen(lambda: '"kind": "tls"' in log.getvalue())


async def test_the_client_certificate_is_for_the_token_endpoint_too(tmp_path: Path) -> None:
    async with secure_api(tmp_path, demanding=True) as api:
        env = {**api.env, "BITS_UPSTREAM__CLIENT_CERT": str(tmp_path / "client.pem")}
        async with sidecar_for(api.origin, io.StringIO(), **env) as sidecar:
            assert await create(sidecar) == (200, "")
        log = io.StringIO()
        async with sidecar_for(api.origin, log, **api.env, BITS_TOKEN_WAIT="0.3") as sidecar:
            assert (await create(sidecar))[0] == 503
            await seen(lambda: '"event": "token_refresh_failed"' in log.getvalue())


async def test_token_and_calls_go_through_the_tunnel(api: SecureApi, egress: ConnectProxy) -> None:
    async with through(api, f"http://127.0.0.1:{egress.port}", io.StringIO()) as sidecar:
        assert [await create(sidecar) for _ in range(3)] == [(200, "")] * 3
    authority = api.origin.removeprefix("https://")
    assert {request.split("\r\n")[0] for request in egress.requests} == {f"CONNECT {authority} HTTP/1.1"}
    # One for the token, one for all calls.
    assert len(egress.requests) == 2
    assert "authorization" not in egress.requests[1].lower()


async def test_the_proxy_is_told_its_credentials_and_the_log_is_not(
    api: SecureApi, egress: ConnectProxy
) -> None:
    log = io.StringIO()
    async with through(api, f"http://user:pass%3Aword9@127.0.0.1:{egress.port}", log) as sidecar:
        assert await create(sidecar) == (200, "")
    expected = aiohttp.encode_basic_auth("user", "pass:word9")
    assert all(f"Proxy-Authorization: {expected}\r\n" in request for request in egress.requests)
    assert len(egress.requests) == 2
    assert "word9" not in log.getvalue()
    assert expected not in log.getvalue()


def test_the_log_knows_its_password_as_written_and_as_it_is() -> None:
    env = {"BITS_API_URL": "https://api.example", "BITS_HTTPS_PROXY": "http://user:pa:ss%40word@127.0.0.1:1"}
    settings = load(environ=env, env_file=None, credentials_required=False).settings
    redactor = Redactor()
    assert egress_proxy(settings, redactor) is not None
    assert redactor.redact("pa:ss%40word, pa:ss@word") == "[redacted], [redacted]"


async def test_no_proxy_goes_directly(api: SecureApi, egress: ConnectProxy) -> None:
    async with through(
        api, f"http://127.0.0.1:{egress.port}", io.StringIO(), BITS_NO_PROXY="localhost"
    ) as sidecar:
        assert await create(sidecar) == (200, "")
    assert egress.requests == []


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n", "answered with 407"),
        (b"HTTP/1.1 200 OK\r\n\r\nsurprise", "sent data after its response"),
        (b"SSH-2.0-OpenSSH_9.2 nothing here\r\n\r\n", "is not HTTP/1.1"),
        (b"HTTP/1.1 200 OK\r\nX-Half", "closed the connection"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 20_000, "response is too large"),
    ],
)
async def test_a_proxy_that_opens_no_tunnel_is_a_502_that_says_so(
    api: SecureApi, egress: ConnectProxy, reply: bytes, said: str
) -> None:
    egress.reply = reply
    log = io.StringIO()
    async with through(
        api,
        f"http://127.0.0.1:{egress.port}",
        log,
        BITS_TOKEN_URL=api.origin.replace("localhost", "127.0.0.1") + "/v1/oauth2/token",
        BITS_NO_PROXY="127.0.0.1",
    ) as sidecar:
        status, proxy_status = await create(sidecar)
    assert status == 502
    assert proxy_status == "bits-auth-proxy; error=destination_unavailable"
    assert said in log.getvalue()


async def test_check_walks_through_the_proxy(api: SecureApi, egress: ConnectProxy) -> None:
    env = proxy_env(api.origin, **api.env, HTTPS_PROXY=f"http://127.0.0.1:{egress.port}")
    code, stdout, stderr = await run("check", env=env)
    assert (code, stderr) == (0, "")
    assert [line.split()[1] for line in stdout.splitlines()] == ["settings", "proxy", "token", "owner"]


async def test_check_shows_the_certificate_without_one(api: SecureApi) -> None:
    code, stdout, _ = await run("check", env=proxy_env(api.origin, **api.env))
    assert code == 0
    assert "ok    tls       TLSv1.3, certificate valid until " in stdout
    code, stdout, _ = await run("check", env=proxy_env(api.origin))
    assert code == 1
    assert "FAIL  tls" in stdout
    assert "BITS_UPSTREAM__CA_FILE" in stdout
