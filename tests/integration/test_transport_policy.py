"""What holds for the token client and the data path alike: suites, authorities, names."""

import datetime as dt
import io
import ssl
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from bits_auth_proxy.auth.bits_oauth import BitsOAuthClient, ClientCredentials, TokenRequestError
from bits_auth_proxy.clock import SystemClock
from bits_auth_proxy.forward.dialing import client_context
from tests.support import pythons
from tests.support.secure_api import create, secure_api
from tests.support.stand import sidecar_for
from tests.support.tls_refusals import handshaking


async def token_failure(origin: str, context: ssl.SSLContext) -> TokenRequestError:
    """Return why `origin` gives no token."""
    client = BitsOAuthClient(
        token_url=f"{origin}/v1/oauth2/token",
        userinfo_url=f"{origin}/oauth2/userinfo",
        scope=None,
        context=context,
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


async def test_both_clients_use_a_suite_with_forward_secrecy_and_aead(tmp_path: Path) -> None:
    async with (
        secure_api(tmp_path, suites="ECDHE-RSA-AES128-GCM-SHA256") as api,
        sidecar_for(api.origin, io.StringIO(), **api.env) as sidecar,
    ):
        assert await create(sidecar) == (200, "")


def authority(directory: Path, *, critical: bool) -> tuple[Path, Path]:
    """Make an authority whose basicConstraints are not `critical`; return its file, and that of a server."""
    now = dt.datetime.now(dt.UTC)
    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    names = [x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) for name in ("authority", "server")]

    def certificate(index: int) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(names[index])
            .issuer_name(names[0])
            .public_key(keys[index].public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=1))
        )

    root = certificate(0).add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=critical)
    leaf = certificate(1).add_extension(
        x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False
    )
    pem = [
        each.sign(keys[0], hashes.SHA256()).public_bytes(serialization.Encoding.PEM) for each in (root, leaf)
    ]
    key = keys[1].private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    ca_file, server = directory / "old-ca.pem", directory / "server.pem"
    ca_file.write_bytes(pem[0])
    server.write_bytes(pem[1] + key)
    return ca_file, server


async def test_an_authority_of_a_form_that_python_3_13_refuses_by_default_is_trusted_by_both_clients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pythons.verification_of_3_13(monkeypatch)
    ca_file, server = authority(tmp_path, critical=False)
    async with (
        secure_api(tmp_path, certificate=server) as api,
        sidecar_for(api.origin, io.StringIO(), BITS_UPSTREAM__CA_FILE=str(ca_file)) as sidecar,
    ):
        assert await create(sidecar) == (200, "")
