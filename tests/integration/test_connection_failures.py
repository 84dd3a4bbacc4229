"""What the log and `check` say of a connection that fails: the host, the port and the cause."""

import asyncio
import contextlib
import ssl
import warnings
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trustme

from bits_auth_proxy.auth.bits_oauth import BitsOAuthClient, ClientCredentials, TokenRequestError
from bits_auth_proxy.clock import SystemClock
from bits_auth_proxy.forward.dialing import Dialer, DialError, client_context
from bits_auth_proxy.forward.write_batcher import WriteBatcher
from bits_auth_proxy.tls_faults import TlsFault
from bits_auth_proxy.transport import EgressProxy
from tests.support.connect_proxy import connect_proxy
from tests.support.connector import Keeper
from tests.support.names import Names
from tests.support.tls_refusals import handshaking

AUTHORITY = trustme.CA()


def trusting() -> ssl.SSLContext:
    context = client_context(ca_file=None, client_cert=None, client_key=None)
    AUTHORITY.configure_trust(context)
    return context


def serving(name: str = "localhost") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.issue_cert(name).configure_cert(context)
    return context


async def token_failure(
    origin: str, *, egress: EgressProxy | None = None, timeout: float = 20
) -> TokenRequestError:
    """Return why `origin` gives no token."""
    client = BitsOAuthClient(
        token_url=f"{origin}/v1/oauth2/token",
        userinfo_url=f"{origin}/oauth2/userinfo",
        scope=None,
        context=trusting,
        egress_for=lambda _: egress,
        clock=SystemClock(),
        timeout=timeout,
    )
    try:
        with pytest.raises(TokenRequestError) as caught:
            await client.fetch_token(ClientCredentials("id", "canary-secret"))
    finally:
        await client.close()
    return caught.value


async def dial_failure(
    host: str, port: int, *, tls: bool = True, egress: EgressProxy | None = None, timeout: float = 20
) -> str:
    """Return why the data path gets no connection."""
    dialer = Dialer(
        host=host,
        port=port,
        context=trusting if tls else None,
        timeout=timeout,
        clock=SystemClock(),
        batcher=WriteBatcher(asyncio.get_running_loop().call_soon),
        proxy=egress,
    )
    with pytest.raises(DialError) as caught:
        await dialer.connect(Keeper())
    return caught.value.detail


@contextlib.asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[int]:
    """Answer each connection's first bytes with `answer`, nothing if it is empty; yield the port."""
    release = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.read(65_536)
            writer.write(answer)
            await release.wait()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]
        release.set()


async def closed_port() -> int:
    async with answering(b"") as port:
        return port


async def test_a_refused_connection_names_host_and_port() -> None:
    port = await closed_port()
    error = await token_failure(f"https://localhost:{port}")
    assert (error.kind, error.detail) == ("connect", f"localhost:{port}: no connection: Connection refused")
    assert await dial_failure("localhost", port) == f"localhost:{port}: Connection refused"
    error = await token_failure(f"http://[::1]:{port}")
    assert error.detail.startswith(f"[::1]:{port}: ")


async def test_through_an_egress_proxy_both_are_named() -> None:
    port = await closed_port()
    absent = EgressProxy.parse(f"http://user:hidden@127.0.0.1:{port}")
    route = f"api.test:443 through the egress proxy 127.0.0.1:{port}: "
    error = await token_failure("https://api.test.", egress=absent)
    assert (error.kind, error.detail) == (
        "proxy",
        f"{route}no connection to the egress proxy: Connection refused",
    )
    assert await dial_failure("api.test.", 443, egress=absent) == f"{route}Connection refused"
    async with connect_proxy() as proxy:
        proxy.reply = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"
        refusing = EgressProxy.parse(f"http://127.0.0.1:{proxy.port}")
        text = f"api.test:443 through the egress proxy {refusing}: the egress proxy answered with 407"
        error = await token_failure("https://api.test", egress=refusing)
        assert (error.kind, error.detail) == ("proxy", text)
        assert await dial_failure("api.test", 443, egress=refusing) == text


async def test_a_name_that_does_not_exist_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    Names({}, monkeypatch)
    error = await token_failure("https://api.test.")
    assert error.kind == "dns"
    assert error.detail == "api.test.: DNS: Name or service not known"
    assert await dial_failure("api.test.", 443) == "api.test.: Name or service not known"
    proxy = EgressProxy.parse("http://proxy.test:3128")
    error = await token_failure("https://api.test", egress=proxy)
    assert (error.kind, error.detail) == ("dns", "proxy.test: DNS: Name or service not known")
    assert await dial_failure("api.test", 443, egress=proxy) == "proxy.test: Name or service not known"


async def test_silent_dns_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    names = Names({}, monkeypatch)
    names.silent = True
    error = await token_failure("https://api.test", timeout=0.2)
    assert (error.kind, error.detail) == ("dns", "api.test: DNS did not answer within 0.2 s")
    text = "api.test: DNS did not answer within 0.1 s"
    assert await dial_failure("api.test", 443, timeout=0.1) == text


async def test_a_silent_server_is_named_with_what_it_owes() -> None:
    async with answering(b"") as port:
        error = await token_failure(f"https://localhost:{port}", timeout=0.2)
        assert error.kind == "timeout"
        assert error.detail == f"localhost:{port}: no connection within 0.2 s"
        error = await token_failure(f"http://localhost:{port}", timeout=0.2)
        assert error.kind == "timeout"
        assert error.detail == f"localhost:{port}: no complete response within 0.2 s"
        assert (
            await dial_failure("localhost", port, timeout=0.1)
            == f"localhost:{port}: no connection within 0.1 s"
        )


async def test_a_server_with_older_tls_alone_is_named() -> None:
    context = serving()
    context.set_ciphers("DEFAULT@SECLEVEL=0")
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    async with handshaking(context) as port:
        error = await token_failure(f"https://localhost:{port}")
        dialed = await dial_failure("localhost", port)
    assert (error.kind, error.tls_fault) == ("tls", TlsFault.VERSION)
    assert error.detail == (f"localhost:{port}: TLS: no common TLS version (TLSV1_ALERT_PROTOCOL_VERSION)")
    assert dialed == f"localhost:{port}: no common TLS version (TLSV1_ALERT_PROTOCOL_VERSION)"


async def test_a_server_that_speaks_no_tls_is_named() -> None:
    async with answering(b"HTTP/1.1 400 Bad Request\r\n\r\n") as port:
        error = await token_failure(f"https://localhost:{port}")
        dialed = await dial_failure("localhost", port)
    assert (error.kind, error.tls_fault) == ("tls", TlsFault.NOT_TLS)
    assert "the server does not speak TLS" in error.detail
    assert "the server does not speak TLS" in dialed


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_server_that_requires_a_client_certificate_is_named(version: ssl.TLSVersion) -> None:
    context = serving()
    context.maximum_version = version
    AUTHORITY.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    async with handshaking(context, distant=version is ssl.TLSVersion.TLSv1_3) as port:
        error = await token_failure(f"https://localhost:{port}")
    assert error.kind == "tls"
    assert error.detail.startswith(f"localhost:{port}: TLS: ")
    assert "requires a client certificate" in error.detail
    # TLS 1.2 has no alert of its own for it.
    expected = TlsFault.HANDSHAKE if version is ssl.TLSVersion.TLSv1_2 else TlsFault.CLIENT_CERTIFICATE
    assert error.tls_fault is expected


async def test_a_server_that_closes_in_the_handshake_is_named() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65_536)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        error = await token_failure(f"https://localhost:{port}")
    assert (error.kind, error.tls_fault) == ("connect", TlsFault.HANDSHAKE)
    assert error.detail == f"localhost:{port}: the connection was closed during the TLS handshake"


async def test_certificates_are_named_with_host_and_port(tmp_path: Path) -> None:
    async with handshaking(serving("other.test")) as port:
        error = await token_failure(f"https://localhost:{port}")
        dialed = await dial_failure("localhost", port)
    assert error.tls_fault is TlsFault.NAME
    assert error.detail.startswith(f"localhost:{port}: TLS certificate: Hostname mismatch")
    assert dialed.startswith(f"localhost:{port}: Hostname mismatch")


@pytest.mark.parametrize(
    ("location", "shown"),
    [
        ("https://user:hidden@login.test:8443/path-7?code=hidden#hidden", " to https://login.test:8443,"),
        ("HTTPS://LOGIN.test/hidden", " to https://login.test,"),
        ("//login.test/hidden", " to http://login.test,"),
        ("/hidden", " to http://127.0.0.1:{port},"),
        ("mailto:hidden", ","),
        ("http://[hidden", ","),
        ("http://hid den/\x7f", ","),
    ],
)
async def test_a_redirect_shows_the_origin_of_its_target_alone(location: str, shown: str) -> None:
    answer = f"HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"
    async with answering(answer.encode()) as port:
        error = await token_failure(f"http://127.0.0.1:{port}")
    assert error.kind == "redirect"
    target = shown.format(port=port)
    assert error.detail == f"the response is a redirect (302){target} which is not followed"


async def test_a_redirect_without_a_target() -> None:
    async with answering(b"HTTP/1.1 301 Moved\r\nContent-Length: 0\r\n\r\n") as port:
        error = await token_failure(f"http://127.0.0.1:{port}")
    assert error.detail == "the response is a redirect (301), which is not followed"
