"""Which client certificates the listener accepts, and for how long."""

import asyncio
import datetime as dt
import socket
import ssl
from pathlib import Path

import pytest
import trustme
from cryptography import x509

from tests.integration.test_tls_listener import GET, connect, place, rejected
from tests.support.bench import Bench, set_up
from tests.support.commands import proxy_env, run
from tests.support.pki import Identity, Pki, revocation_list
from tests.support.stand import emulating
from tests.support.waiting import HANGS

SPIFFE = "spiffe://cluster.local/ns/shop/sa/checkout"
UNTRUSTED = (ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    return Pki(tmp_path)


def context_of(pki: Pki, identity: Identity) -> ssl.SSLContext:
    return identity.use(pki.client(), pki.directory)


async def served(bench: Bench, context: ssl.SSLContext) -> bool:
    """Return whether a request on a new connection gets the API's answer."""
    before = len(bench.upstream.requests)
    try:
        async with connect(bench, context) as client:
            await client.send(GET)
            answered = (await client.answer()).status == 200
    except UNTRUSTED:
        answered = False
    assert answered == (len(bench.upstream.requests) > before)
    return answered


# Names.


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(
    ("names", "accepted"),
    [
        ([x509.DNSName("checkout.shop.example")], True),
        ([x509.DNSName("Checkout.SHOP.example")], True),
        ([x509.DNSName("other.example"), x509.DNSName("checkout.shop.example")], True),
        ([x509.UniformResourceIdentifier(SPIFFE)], True),
        ([x509.UniformResourceIdentifier("spiffe://Cluster.Local/ns/shop/sa/checkout")], True),
        ([x509.UniformResourceIdentifier(f"{SPIFFE}/x")], False),
        ([x509.UniformResourceIdentifier(SPIFFE.upper())], False),
        ([x509.UniformResourceIdentifier("spiffe://cluster.local/ns/shop/sa/Checkout")], False),
        ([x509.DNSName("shop.example")], False),
        ([x509.DNSName("x.checkout.shop.example")], False),
        # A client's identity is a name. A pattern in its certificate is none of those that are allowed.
        ([x509.DNSName("*.shop.example")], False),
        # A name counts only as what it is.
        ([x509.RFC822Name("checkout.shop.example")], False),
        ([x509.UniformResourceIdentifier("checkout.shop.example")], False),
        ([x509.DNSName("common-name")], False),
        ([], False),
    ],
)
async def test_one_of_the_names_must_be_allowed(
    pki: Pki, names: list[x509.GeneralName], version: ssl.TLSVersion, *, accepted: bool
) -> None:
    allowed = f"checkout.shop.example, {SPIFFE}"
    async with set_up(**pki.mutual, BITS_LISTEN_TLS__ALLOWED_NAMES=allowed) as bench:
        context = context_of(pki, Identity(pki.authority, *names))
        context.minimum_version = context.maximum_version = version
        assert await served(bench, context) == accepted
        if not accepted:
            await bench.seen(lambda: rejected(bench) == 1)
            assert "none of the allowed names" in bench.log.getvalue()


@pytest.mark.parametrize(
    ("allowed", "said"),
    [
        ("*.shop.example", "wildcard"),
        ("spiffe://cluster.local/*", "wildcard"),
        ("https://shop.example", "spiffe://"),
        ("spiffe://", "spiffe://"),
        ("spiffe://cluster.local/ns?x=1", "spiffe://"),
        ("checkout_\xe9.example", "DNS name"),
        ("a b", "DNS name"),
        ("checkout.shop.example:443", "DNS name"),
    ],
)
async def test_names_that_no_certificate_can_have_are_refused_at_the_start(
    pki: Pki, allowed: str, said: str
) -> None:
    env = proxy_env("http://127.0.0.1:9", **pki.mutual, BITS_LISTEN_TLS__ALLOWED_NAMES=allowed)
    code, _, stderr = await run("run", env=env)
    assert code == 64
    assert "BITS_LISTEN_TLS__ALLOWED_NAMES" in stderr
    assert said in stderr


@pytest.mark.parametrize("variable", ["BITS_LISTEN_TLS__ALLOWED_NAMES", "BITS_LISTEN_TLS__CRL"])
async def test_without_a_client_authority_they_have_no_effect_and_are_refused(
    pki: Pki, variable: str
) -> None:
    env = proxy_env("http://127.0.0.1:9", **pki.settings, **{variable: str(pki.ca_file)})
    if variable.endswith("NAMES"):
        env[variable] = "a.example"
    code, _, stderr = await run("run", env=env)
    assert code == 64
    assert f"{variable}: has no effect without BITS_LISTEN_TLS__CLIENT_CA" in stderr


# Revocation.


def with_crl(pki: Pki, *revoked: Identity, ends: dt.timedelta | None = None) -> dict[str, str]:
    path = pki.directory / "ca.crl"
    path.write_bytes(revocation_list(pki.authority, *revoked, ends=ends))
    return {**pki.mutual, "BITS_LISTEN_TLS__CRL": str(path)}


async def reload(bench: Bench) -> None:
    bench.sidecar.reload()
    await bench.seen(lambda: not bench.sidecar._watcher.looking)


async def test_a_revoked_certificate_is_refused(pki: Pki) -> None:
    good, revoked = Identity(pki.authority), Identity(pki.authority)
    async with set_up(**with_crl(pki, revoked)) as bench:
        assert await served(bench, context_of(pki, good))
        assert not await served(bench, context_of(pki, revoked))
        await bench.seen(lambda: "revoked" in bench.log.getvalue())


@pytest.mark.parametrize("change", ["crl", "authority"])
async def test_whom_a_change_concerns_is_served_no_further_request(pki: Pki, change: str) -> None:
    identity = Identity(pki.authority)
    env = with_crl(pki) if change == "crl" else pki.mutual
    async with set_up(**env) as bench:
        context = context_of(pki, identity)
        async with connect(bench, context) as idle, connect(bench, context) as busy:
            for client in (idle, busy):
                await client.send(GET)
                assert (await client.answer()).status == 200
            await busy.send(GET[:20])
            if change == "crl":
                with_crl(pki, identity)
            else:
                trustme.CA().cert_pem.write_to_path(pki.ca_file)
            await reload(bench)
            for client, rest in ((idle, GET), (busy, GET[20:])):
                await client.send(rest)
                assert await client.is_closed()
        assert len(bench.upstream.requests) == 2
        assert not await served(bench, context)


async def test_a_request_that_is_being_served_is_served_to_its_end_and_is_the_last(pki: Pki) -> None:
    identity = Identity(pki.authority)
    async with set_up(**with_crl(pki)) as bench:
        bench.upstream.delay = 0.2
        async with connect(bench, context_of(pki, identity)) as client:
            await client.send(GET + GET)
            await bench.upstream.arrived.wait()
            with_crl(pki, identity)
            await reload(bench)
            answer = await client.answer()
            assert answer.status == 200
            assert answer.field(b"Connection") == b"close"
            assert await client.is_closed()
        assert len(bench.upstream.requests) == 1


async def test_a_request_that_waits_behind_the_last_answer_is_not_served(pki: Pki) -> None:
    identity = Identity(pki.authority)
    async with set_up(**with_crl(pki)) as bench:
        bench.upstream.script = [(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nok",)]
        async with connect(bench, context_of(pki, identity)) as client:
            await client.send(GET + GET)
            # The head of the first answer promises a second one.
            assert b"Connection" not in await client.until(b"\r\n\r\nok")
            with_crl(pki, identity)
            await reload(bench)
            bench.upstream.push(b"ok")
            assert await client.until(b"ok") == b"ok"
            assert await client.is_closed()
        assert len(bench.upstream.requests) == 1


async def test_a_renewed_server_certificate_ends_no_connection(pki: Pki) -> None:
    context = context_of(pki, Identity(pki.authority))
    async with set_up(**with_crl(pki)) as bench, connect(bench, context) as client:
        pki.renew()
        await reload(bench)
        assert "listen_certificate_changed" in bench.log.getvalue()
        for _ in range(2):
            await client.send(GET)
            assert (await client.answer()).status == 200


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"nothing", "no certificate revocation list in PEM format"),
        (b"", "no certificate revocation list in PEM format"),
        (b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n", "no certificate revocation list"),
        ("expired", "expired on"),
        ("a certificate", "contains a certificate"),
        (None, "can't be read"),
    ],
)
async def test_a_list_that_cannot_be_used_leaves_the_old_one_in_use(
    pki: Pki, content: bytes | str | None, said: str
) -> None:
    good, revoked = Identity(pki.authority), Identity(pki.authority)
    async with set_up(**with_crl(pki, revoked)) as bench:
        path = pki.directory / "ca.crl"
        if content == "expired":
            path.write_bytes(revocation_list(pki.authority, ends=-dt.timedelta(hours=1)))
        elif content == "a certificate":
            # OpenSSL would trust it.
            path.write_bytes(path.read_bytes() + trustme.CA().cert_pem.bytes())
        elif isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.unlink()
        await reload(bench)
        assert "listen_certificate_refused" in bench.log.getvalue()
        assert said in bench.log.getvalue()
        assert str(path) in bench.log.getvalue()
        assert await served(bench, context_of(pki, good))
        assert not await served(bench, context_of(pki, revoked))


async def test_an_expired_list_ends_the_start(pki: Pki) -> None:
    async with emulating() as (_, api):
        env = proxy_env(api, **with_crl(pki, ends=-dt.timedelta(hours=1)))
        code, _, stderr = await run("run", env=env)
    assert code == 64
    assert "BITS_LISTEN_TLS__CRL" in stderr
    assert "expired on" in stderr


# The end of a certificate.


def resumed(bench: Bench, context: ssl.SSLContext, session: ssl.SSLSession | None) -> ssl.SSLSession | None:
    """Send a request, on a resumed session if there is one; return the session, None if it was not served."""
    with (
        socket.create_connection(place(bench.sidecar), timeout=HANGS) as plain,
        context.wrap_socket(plain, server_hostname="localhost", session=session) as sock,
    ):
        sock.sendall(GET)
        if not sock.recv(65_536).startswith(b"HTTP/1.1 200"):
            return None
        assert sock.session_reused == (session is not None)
        return sock.session


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_no_session_is_resumed_past_the_certificates_end(pki: Pki, version: ssl.TLSVersion) -> None:
    async with set_up(**pki.mutual) as bench:
        # The proxy's clock says when the certificate ends; OpenSSL looks at the real one.
        context = context_of(pki, Identity(pki.authority))
        context.minimum_version = context.maximum_version = version
        session = await asyncio.to_thread(resumed, bench, context, None)
        assert await asyncio.to_thread(resumed, bench, context, session) is not None
        bench.clock.jump_wall(10 * 365 * 86_400)
        assert await asyncio.to_thread(resumed, bench, context, session) is None
        await bench.seen(lambda: rejected(bench) == 1)
        assert "has expired" in bench.log.getvalue()


@pytest.mark.usefixtures("brisk")
async def test_a_connection_ends_with_its_certificate(pki: Pki) -> None:
    async with set_up(**pki.mutual, BITS_LIMITS__KEEPALIVE_TIMEOUT="86400") as bench:
        ends = dt.datetime.fromtimestamp(bench.clock.wall() + 600, dt.UTC)
        # OpenSSL looks at the real clock, by which this certificate must be valid.
        lasting = max(ends, dt.datetime.now(dt.UTC) + dt.timedelta(hours=1))
        bench.clock.jump_wall((lasting - ends).total_seconds())
        identity = Identity(pki.authority, ends=lasting)
        async with connect(bench, context_of(pki, identity)) as client:
            await client.send(GET)
            assert (await client.answer()).status == 200
            await bench.pass_time(590)
            await client.send(GET)
            assert (await client.answer()).status == 200
            await bench.pass_time(11)
            assert await client.is_closed()
