"""What holds for the token client and the data path alike: suites, authorities, names."""

import asyncio
import base64
import contextlib
import io
import ssl
from pathlib import Path

import pytest
import trustme

from bits_auth_proxy.assembly import build_dialer, build_oauth, egress_proxy, poll_trust, trust
from bits_auth_proxy.auth.bits_oauth import BitsOAuthClient, ClientCredentials, TokenRequestError
from bits_auth_proxy.clock import SystemClock
from bits_auth_proxy.forward.dialing import DialError, client_context
from bits_auth_proxy.forward.write_batcher import WriteBatcher
from bits_auth_proxy.settings.loading import load
from bits_auth_proxy.telemetry.log import Redactor
from bits_auth_proxy.transport import EgressProxy
from tests.support import pythons
from tests.support.commands import proxy_env
from tests.support.connect_proxy import connect_proxy
from tests.support.connector import Keeper
from tests.support.names import Names
from tests.support.pki import authority_files
from tests.support.secure_api import create, secure_api
from tests.support.stand import sidecar_for
from tests.support.tls_refusals import handshaking

TOKEN = b'{"type":"Bearer","access_token":"abc","expires_in":3600}'
TOKEN_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(TOKEN), TOKEN)


async def token_failure(origin: str, context: ssl.SSLContext) -> TokenRequestError:
    """Return why `origin` gives no token."""
    client = BitsOAuthClient(
        token_url=f"{origin}/v1/oauth2/token",
        userinfo_url=f"{origin}/oauth2/userinfo",
        scope=None,
        context=lambda: context,
        clock=SystemClock(),
    )
    with pytest.raises(TokenRequestError) as caught:
        await client.fetch_token(ClientCredentials("id", "canary-secret"))
    await client.close()
    return caught.value


async def test_the_token_client_refuses_a_suite_without_forward_secrecy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pythons.suites_of_openssl(monkeypatch)
    context = client_context(ca_file=None, client_cert=None, client_key=None)
    authority = trustme.CA()
    authority.configure_trust(context)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", key_type=trustme.KeyType.RSA).configure_cert(serving)
    serving.maximum_version = ssl.TLSVersion.TLSv1_2
    serving.set_ciphers("AES128-SHA")
    async with handshaking(serving) as port:
        error = await token_failure(f"https://localhost:{port}", context)
    assert error.kind == "tls"
    assert "HANDSHAKE_FAILURE" in error.detail


async def test_renewed_files_bring_no_other_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pythons.suites_of_openssl(monkeypatch)
    pythons.verification_of_3_13(monkeypatch)
    first, second = trustme.CA(), trustme.CA()
    first.cert_pem.write_to_path(tmp_path / "ca.pem")
    weak = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    second.issue_cert("localhost", key_type=trustme.KeyType.RSA).configure_cert(weak)
    weak.maximum_version = ssl.TLSVersion.TLSv1_2
    weak.set_ciphers("AES128-SHA")
    async with handshaking(weak) as port:
        env = proxy_env(f"https://localhost:{port}", BITS_UPSTREAM__CA_FILE=str(tmp_path / "ca.pem"))
        settings = load(environ=env, env_file=None, credentials_required=True).settings
        context, clock = trust(settings), SystemClock()
        assert context is not None
        second.cert_pem.write_to_path(tmp_path / "ca.pem")
        assert poll_trust(context)
        assert not context.context.verify_flags & ssl.VERIFY_X509_STRICT
        oauth = build_oauth(settings, context=context, clock=clock)
        with pytest.raises(TokenRequestError, match="HANDSHAKE_FAILURE"):
            await oauth.fetch_token(ClientCredentials("id", "canary-secret"))
        await oauth.close()
        batcher = WriteBatcher(asyncio.get_running_loop().call_soon)
        dialer = build_dialer(settings, context=context, clock=clock, batcher=batcher, redactor=Redactor())
        with pytest.raises(DialError, match="HANDSHAKE_FAILURE"):
            await dialer.connect(Keeper())


async def test_both_clients_use_a_suite_with_forward_secrecy_and_aead(tmp_path: Path) -> None:
    async with (
        secure_api(tmp_path, suites="ECDHE-RSA-AES128-GCM-SHA256") as api,
        sidecar_for(api.origin, io.StringIO(), **api.env) as sidecar,
    ):
        assert await create(sidecar) == (200, "")


async def test_an_authority_of_a_form_that_python_3_13_refuses_by_default_is_trusted_by_both_clients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pythons.verification_of_3_13(monkeypatch)
    ca_file, server = authority_files(tmp_path, critical=False)
    async with (
        secure_api(tmp_path, certificate=server) as api,
        sidecar_for(api.origin, io.StringIO(), BITS_UPSTREAM__CA_FILE=str(ca_file)) as sidecar,
    ):
        assert await create(sidecar) == (200, "")


class Heads:
    """Keeps what an API is told of its own name: SNI, and the heads of requests."""

    def __init__(self) -> None:
        self.names: list[str | None] = []
        self.heads: list[bytes] = []

    def attend(self, context: ssl.SSLContext) -> ssl.SSLContext:
        context.sni_callback = lambda _, name, __: self.names.append(name)
        return context

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                self.heads.append(head)
                if b"oauth2/token" in head:
                    await reader.readexactly(29)
                writer.write(TOKEN_ANSWER)
        writer.close()


@pytest.mark.parametrize("through_egress", [False, True])
async def test_the_root_dot_of_a_host_is_for_dns_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, through_egress: bool
) -> None:
    names = Names({"api.test.": "127.0.0.1", "tokens.test.": "127.0.0.1"}, monkeypatch)
    heads, log = Heads(), io.StringIO()
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = heads.attend(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    authority.issue_cert("api.test", "tokens.test").configure_cert(context)
    server = await asyncio.start_server(heads.serve, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    async with server, connect_proxy() as egress:
        egress.names = {"api.test": "127.0.0.1", "tokens.test": "127.0.0.1"}
        env = {
            "BITS_UPSTREAM__CA_FILE": str(tmp_path / "ca.pem"),
            "BITS_TOKEN_URL": f"https://tokens.test.:{port}/v1/oauth2/token",
        }
        if through_egress:
            env["BITS_HTTPS_PROXY"] = f"http://127.0.0.1:{egress.port}"
        async with sidecar_for(f"https://api.test.:{port}", log, **env) as sidecar:
            assert await create(sidecar) == (200, "")
        requests = list(egress.requests)
    assert set(heads.names) == {"api.test", "tokens.test"}
    hosts = {
        line for head in heads.heads for line in head.split(b"\r\n") if line.lower().startswith(b"host:")
    }
    assert hosts == {b"Host: api.test:%d" % port, b"Host: tokens.test:%d" % port}
    if through_egress:
        assert {request.split("\r\n")[0] for request in requests} == {
            f"CONNECT {name}:{port} HTTP/1.1" for name in ("api.test", "tokens.test")
        }
        assert all(".test.:" not in request for request in requests)
    else:
        assert {"api.test.", "tokens.test."} <= set(names.asked)
        assert not {"api.test", "tokens.test"} & set(names.asked)


@pytest.mark.parametrize(
    ("password", "sent"),
    [("p%C3%A4%3Ass", "pä:ss"), ("%C5%81odz", "Łodz"), ("pät%68", "päth"), ("", "")],
)
async def test_the_egress_proxys_password_is_utf_8_for_both_clients_and_never_logged(
    tmp_path: Path, password: str, sent: str
) -> None:
    log = io.StringIO()
    async with secure_api(tmp_path) as api, connect_proxy() as egress:
        proxy = f"http://us%C3%A9r:{password}@127.0.0.1:{egress.port}"
        async with sidecar_for(api.origin, log, **api.env, BITS_HTTPS_PROXY=proxy) as sidecar:
            assert await create(sidecar) == (200, "")
        requests = list(egress.requests)
    value = base64.b64encode(f"usér:{sent}".encode()).decode()
    lines = [[line for line in each.split("\r\n") if line.startswith("Proxy-Auth")] for each in requests]
    assert len(lines) == 2
    assert lines == [[f"Proxy-Authorization: Basic {value}"]] * 2
    assert not password or (password not in log.getvalue() and sent not in log.getvalue())


async def test_bytes_of_another_encoding_in_the_egress_proxys_password_are_sent_as_written() -> None:
    proxy = EgressProxy.parse("http://user:p%E4ss@proxy:3128")
    assert proxy.authorization == "Basic " + base64.b64encode(b"user:p\xe4ss").decode()


def test_the_redactor_knows_every_form_of_the_egress_proxys_password() -> None:
    env = {
        "BITS_API_URL": "http://127.0.0.1:1",
        "BITS_TOKEN_URL": "https://tokens.test/",
        "BITS_HTTPS_PROXY": "http://us%c3%a9r:p%c3%a4%3ass@127.0.0.1:1",
    }
    settings = load(environ=env, env_file=None, credentials_required=False).settings
    redactor = Redactor()
    assert egress_proxy(settings, redactor) is None
    pair = base64.b64encode("usér:pä:ss".encode()).decode()
    for form in ("p%c3%a4%3ass", "p%C3%A4%3Ass", "pä:ss", "pÃ¤:ss", "p%C3%A4:ss", pair, f"Basic {pair}"):
        assert "ss" not in redactor.redact(f"a {form} b").replace("Basic", "")
    # Where there is no password, the user's name may be the secret.
    alone = load(
        environ={"BITS_HTTPS_PROXY": "http://hidden-key@proxy:1"}, env_file=None, credentials_required=False
    )
    egress_proxy(alone.settings, redactor)
    assert redactor.redact("hidden-key") == "[redacted]"
