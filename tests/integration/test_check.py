"""What `check` finds, and what it tells the user to change."""

import asyncio
import contextlib
import datetime as dt
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest
import trustme
from aiohttp import web

from bits_auth_proxy.auth.bits_oauth import BitsOAuthClient, ClientCredentials
from bits_auth_proxy.cli import examination
from bits_auth_proxy.cli.examination import Finding, examine
from bits_auth_proxy.forward.dialing import client_context
from bits_auth_proxy.settings.fields import fields
from bits_auth_proxy.transport import EgressProxy
from tests.support.clock import FakeClock
from tests.support.commands import CLIENT_ID, CLIENT_SECRET
from tests.support.connect_proxy import connect_proxy
from tests.support.names import Names
from tests.support.pki import authority_files
from tests.support.stand import emulating

NOW = dt.datetime.now(dt.UTC)
DAY = dt.timedelta(days=1)


def trusting() -> ssl.SSLContext:
    """Return the TLS context that `check` uses, with the system's trust store."""
    return client_context(ca_file=None, client_cert=None, client_key=None)


SETTINGS = {field.name for field in fields()}


async def findings(
    api: str,
    *,
    token_url: str | None = None,
    context: ssl.SSLContext | None = None,
    through: str | None = None,
    skew: float = 0.0,
    scope: str | None = None,
    secret: str = CLIENT_SECRET,
    expected_customer: str | None = None,
) -> list[Finding]:
    """Examine the way to `api`, with this machine's clock `skew` seconds ahead."""
    clock = FakeClock(wall=time.time() + skew)
    oauth = BitsOAuthClient(
        token_url=token_url or f"{api}/v1/oauth2/token",
        userinfo_url=f"{api}/oauth2/userinfo",
        scope=scope,
        context=None if context is None else lambda: context,
        egress_for=lambda _: None if through is None else EgressProxy.parse(f"http://{through}"),
        clock=clock,
    )
    try:
        steps = examine(
            api_url=api,
            egress=through,
            context=context,
            oauth=oauth,
            token_variable="BITS_API_URL" if token_url is None else "BITS_TOKEN_URL",
            credentials=ClientCredentials(CLIENT_ID, secret),
            clock=clock,
            expected_customer=expected_customer,
        )
        found = [finding async for finding in steps]
    finally:
        await oauth.close()
    # One failure, and it is the last.
    assert [finding.ok for finding in found[:-1]] == [True] * (len(found) - 1)
    assert all(finding.hint for finding in found if not finding.ok)
    assert all(name in SETTINGS for finding in found for name in finding.settings)
    assert secret not in str(found)
    return found


@contextlib.asynccontextmanager
async def answering(
    token: Mapping[str, object], *, context: ssl.SSLContext | None = None, status: int = 200, **fields: str
) -> AsyncIterator[str]:
    """Serve an API whose token endpoint answers `token`; yield its origin."""

    async def serve(request: web.Request) -> web.Response:
        assert request.path.endswith(("token", "userinfo"))
        return web.json_response(token, status=status, headers=fields)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", serve)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    try:
        yield f"{'http' if context is None else 'https'}://localhost:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


async def test_a_scope_that_the_endpoint_does_not_know_is_the_scopes_fault() -> None:
    async with emulating() as (_, api):
        *_, failed = await findings(api, scope="admin")
    assert failed.text == "the response is 400 invalid_scope"
    assert "BITS_SCOPE" in failed.hint
    assert failed.settings == ("scope",)


async def test_when_every_step_passes_the_token_is_described_but_not_shown() -> None:
    token = {
        "type": "Bearer",
        "access_token": "canary-token",
        "expires_in": 1800,
        "scope": "application",
        "customerId": "bits:customer::7",
    }
    async with answering(token) as api:
        dns, tcp, described, owner = await findings(api, scope="application")
    assert (dns.step, tcp.step, described.step, owner.step) == ("dns", "tcp", "token", "owner")
    assert "127.0.0.1" in dns.text
    assert "canary-token" not in f"{dns}{tcp}{described}{owner}"
    assert described.text == "Bearer, scope application, valid for 1800 s, fingerprint 4b598de5"
    assert owner.text == "bits:customer::7"


@pytest.mark.parametrize("expected", ["bits:customer::7", "bits:customer::8"])
async def test_the_owner_must_be_the_expected_customer(expected: str) -> None:
    token = {"type": "Bearer", "access_token": "t", "customerId": "bits:customer::7"}
    async with answering(token) as api:
        *_, owner = await findings(api, expected_customer=expected)
    assert owner.ok is (expected == "bits:customer::7")
    if not owner.ok:
        assert owner.text == "bits:customer::7, and bits:customer::8 is expected"
        assert "expected_customer_id" in owner.settings


async def test_a_lifetime_that_the_response_leaves_out_is_reported_as_assumed() -> None:
    async with answering({"type": "Bearer", "access_token": "t", "customerId": "c"}) as api:
        *_, described, _ = await findings(api)
    assert "valid for 3600 s (assumed, because the response does not say)" in described.text


@pytest.mark.parametrize(
    ("skew", "expected"),
    [(0, None), (50, None), (-50, None), (600, "600 s ahead of the API"), (-600, "600 s behind the API")],
)
async def test_clocks_that_differ_by_more_than_a_minute_are_reported_but_no_failure(
    skew: float, expected: str | None
) -> None:
    async with emulating() as (_, api):
        found = await findings(api, skew=skew)
    assert found[-1].ok
    texts = [finding.text for finding in found if finding.step == "clock"]
    assert len(texts) == (0 if expected is None else 1)
    # The Date field has whole seconds.
    assert all(abs(float(text.split()[3]) - 600) <= 2 and text.endswith(str(expected)[5:]) for text in texts)


async def test_a_granted_scope_that_is_too_small_names_both_and_the_setting() -> None:
    token = {"type": "Bearer", "access_token": "t", "scope": "application.read"}
    async with answering(token) as api:
        *_, failed = await findings(api, scope="application")
    assert failed.text == (
        "requested scope 'application', granted 'application.read': 'application' is missing"
    )
    assert "BITS_SCOPE" in failed.hint


async def test_a_name_without_an_address() -> None:
    (failed,) = await findings("http://no-such-host.invalid:80")
    assert failed.step == "dns"
    assert failed.text.startswith("no-such-host.invalid: ")
    assert "BITS_API_URL" in failed.hint


async def test_credentials_that_are_refused() -> None:
    async with emulating() as (_, api):
        *_, failed = await findings(api, secret="canary-wrong")
    assert (failed.step, failed.text) == ("token", "the response is 401 invalid_client")
    assert "BITS_CLIENT_SECRET" in failed.hint


@pytest.mark.parametrize("path", ["/v1/oauth2/tokens", "/"])
async def test_another_path_than_the_token_endpoints(path: str) -> None:
    async with emulating() as (_, api):
        *_, failed = await findings(api, token_url=api + path)
    assert failed.step == "token"
    assert "BITS_TOKEN_URL" in failed.hint


@pytest.mark.parametrize(
    ("valid_from", "valid_to", "expected"),
    [(NOW - 2 * DAY, NOW - DAY, "certificate has expired"), (NOW + DAY, NOW + 2 * DAY, "not yet valid")],
)
async def test_a_certificate_of_another_time_points_at_the_clock(
    valid_from: dt.datetime, valid_to: dt.datetime, expected: str
) -> None:
    authority = trustme.CA()
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", not_before=valid_from, not_after=valid_to).configure_cert(serving)
    context = trusting()
    authority.configure_trust(context)
    async with answering({}, context=serving) as api:
        *_, failed = await findings(api, context=context)
    assert failed.step == "tls"
    assert expected in failed.text
    assert "clock" in failed.hint


async def test_a_certificate_of_an_unknown_authority_points_at_the_ca_file() -> None:
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost").configure_cert(serving)
    async with answering({}, context=serving) as api:
        *_, failed = await findings(api, context=trusting())
    assert failed.step == "tls"
    assert "BITS_UPSTREAM__CA_FILE" in failed.hint


async def test_plain_http_where_tls_is_expected() -> None:
    async with answering({}) as api:
        *_, failed = await findings(api.replace("http:", "https:"), context=trusting())
    assert failed.step == "tls"
    assert "TLS 1.2" in failed.hint


async def test_an_egress_proxy_that_does_not_listen() -> None:
    server = await asyncio.start_server(lambda _, __: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    server.close()
    (failed,) = await findings("https://localhost:1", context=trusting(), through=f"127.0.0.1:{port}")
    assert failed.step == "proxy"
    assert "HTTPS_PROXY" in failed.hint
    assert "BITS_NO_PROXY" in failed.hint


async def test_an_egress_proxy_that_opens_no_tunnel() -> None:
    async with connect_proxy() as egress:
        egress.reply = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"
        passed, failed = await findings(
            "https://localhost:1", context=trusting(), through=f"127.0.0.1:{egress.port}"
        )
    assert (passed.step, failed.step) == ("proxy", "token")
    assert "407" in failed.text
    assert "HTTPS_PROXY" in failed.hint


@pytest.mark.parametrize(
    ("valid_from", "valid_to", "expected"),
    [(NOW - 2 * DAY, NOW - DAY, "certificate has expired"), (NOW + DAY, NOW + 2 * DAY, "not yet valid")],
)
async def test_the_token_endpoints_certificate_of_another_time_names_its_url_and_no_authority(
    valid_from: dt.datetime, valid_to: dt.datetime, expected: str
) -> None:
    authority = trustme.CA()
    untimely = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", not_before=valid_from, not_after=valid_to).configure_cert(untimely)
    context = trusting()
    authority.configure_trust(context)
    async with answering({}) as api, answering({}, context=untimely) as tokens:
        *_, failed = await findings(api, token_url=f"{tokens}/v1/oauth2/token", context=context)
    assert failed.step == "token"
    assert expected in failed.text
    assert tokens.removeprefix("https://") in failed.text
    assert "the certificate that BITS_TOKEN_URL presents" in failed.hint
    assert "CA_FILE" not in failed.hint
    assert failed.settings == ("token_url",)


async def test_the_token_endpoints_certificate_of_an_unknown_authority_names_its_url() -> None:
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("localhost").configure_cert(serving)
    async with answering({}) as api, answering({}, context=serving) as tokens:
        *_, failed = await findings(api, token_url=f"{tokens}/token", context=trusting())
    assert "BITS_TOKEN_URL" in failed.hint
    assert "BITS_UPSTREAM__CA_FILE" in failed.hint
    assert "BITS_API_URL" not in failed.hint


async def test_a_certificate_for_another_host_points_at_the_host() -> None:
    authority = trustme.CA()
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("other.test").configure_cert(serving)
    context = trusting()
    authority.configure_trust(context)
    async with answering({}, context=serving) as api:
        *_, failed = await findings(api, context=context)
    assert "is for another host" in failed.hint
    assert "CA_FILE" not in failed.hint


async def test_an_authority_whose_certificate_is_no_authoritys_is_named(tmp_path: Path) -> None:
    ca_file, server = authority_files(tmp_path, is_authority=False)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(server)
    context = client_context(ca_file=str(ca_file), client_cert=None, client_key=None)
    async with answering({}, context=serving) as api:
        *_, failed = await findings(api, context=context)
    assert failed.text.endswith("invalid CA certificate")
    assert "BITS_UPSTREAM__CA_FILE" in failed.hint
    assert "basicConstraints" in failed.hint


async def test_what_only_the_strict_check_of_python_3_13_refuses_is_named_should_it_ever_be_on(
    tmp_path: Path,
) -> None:
    ca_file, server = authority_files(tmp_path, critical=False)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(server)
    context = client_context(ca_file=str(ca_file), client_cert=None, client_key=None)
    async with answering({}, context=serving) as api:
        *_, failed = await findings(api, context=context)
        assert failed.step == "token"
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        *_, failed = await findings(api, context=context)
    assert failed.step == "tls"
    assert "basicConstraints" in failed.hint


@pytest.mark.parametrize(
    ("status", "error", "said"),
    [
        (400, "unauthorized_client", "grant"),
        (400, "invalid_request", "request"),
        (403, None, "forbids"),
        (500, None, "its side"),
        (503, "temporarily_unavailable", "its side"),
    ],
)
async def test_an_answer_that_is_not_the_pairs_fault_does_not_blame_it(
    status: int, error: str | None, said: str
) -> None:
    async with answering({} if error is None else {"error": error}, status=status) as api:
        *_, failed = await findings(api)
    assert failed.text.startswith(f"the response is {status}")
    assert said in failed.hint
    assert [word for word in ("BITS_CLIENT", "DNS", "is not the address") if word in failed.hint] == []
    assert not set(failed.settings) & {"client_id", "client_secret"}


async def test_silent_dns_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    names = Names({}, monkeypatch)
    names.silent = True
    monkeypatch.setattr(examination, "_TIMEOUT", 0.2)
    (failed,) = await findings("https://api.test", context=trusting())
    assert (failed.step, failed.text) == ("dns", "api.test: DNS did not answer within 0.2 s")


async def test_silent_dns_of_the_egress_proxy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    names = Names({}, monkeypatch)
    names.silent = True
    monkeypatch.setattr(examination, "_TIMEOUT", 0.2)
    (failed,) = await findings("https://api.test", context=trusting(), through="proxy.test:3128")
    assert (failed.step, failed.text) == ("proxy", "proxy.test: DNS did not answer within 0.2 s")
    assert "HTTPS_PROXY" in failed.hint


async def test_a_server_that_closes_in_the_handshake_may_require_a_client_certificate() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65_536)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    api = f"localhost:{server.sockets[0].getsockname()[1]}"
    async with server:
        *_, failed = await findings(f"https://{api}", context=trusting())
    assert failed.text == f"{api}: the connection was closed during the TLS handshake"
    assert "BITS_UPSTREAM__CLIENT_CERT" in failed.hint


@pytest.mark.parametrize(
    ("status", "said"), [(401, "different environments"), (503, "its side"), (403, "forbids")]
)
async def test_an_owner_that_is_not_told_has_its_own_reasons(status: int, said: str) -> None:
    async with emulating() as (_, tokens), answering({}, status=status) as api:
        *_, failed = await findings(api, token_url=f"{tokens}/v1/oauth2/token")
    assert (failed.step, failed.text) == ("owner", f"the response is {status}")
    assert said in failed.hint


async def test_the_root_dot_of_the_api_is_for_dns_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    Names({"localhost.": "127.0.0.1"}, monkeypatch)
    authority = trustme.CA()
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(serving)
    context = trusting()
    authority.configure_trust(context)
    token = {"type": "Bearer", "access_token": "t", "customerId": "c"}
    async with answering(token, context=serving) as api:
        found = await findings(api.replace("localhost", "localhost."), context=context)
    assert [finding.ok for finding in found] == [True] * 4
