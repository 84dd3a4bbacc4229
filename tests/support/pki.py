"""An authority, and certificate files as operators mount them."""

import datetime as dt
import ssl
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.support.mounts import mount


class Pki:
    """`settings` are those of a listener with a certificate for localhost; `renew` replaces its files."""

    def __init__(self, directory: Path) -> None:
        self.authority = trustme.CA()
        self.directory = directory
        self.ca_file = directory / "ca.pem"
        self.authority.cert_pem.write_to_path(self.ca_file)
        self.renew()

    @property
    def settings(self) -> dict[str, str]:
        return {
            "BITS_LISTEN_TLS__CERT": str(self.directory / "tls.crt"),
            "BITS_LISTEN_TLS__KEY": str(self.directory / "tls.key"),
        }

    @property
    def mutual(self) -> dict[str, str]:
        """The same, with certificates asked of clients."""
        return {**self.settings, "BITS_LISTEN_TLS__CLIENT_CA": str(self.ca_file)}

    def renew(self, name: str = "localhost") -> None:
        """Mount another pair as kubelet does: a new directory, then one rename of the link to it."""
        leaf = self.authority.issue_cert(name, "127.0.0.1")
        chain = b"".join(blob.bytes() for blob in leaf.cert_chain_pems)
        self.mount({"tls.crt": chain, "tls.key": leaf.private_key_pem.bytes()})

    def mount(self, files: dict[str, bytes]) -> None:
        """Mount files of these contents."""
        mount(self.directory, files)

    def client(self, *, identity: trustme.CA | None = None) -> ssl.SSLContext:
        """Return what a client needs that trusts the authority, with a certificate of `identity`."""
        context = ssl.create_default_context(cafile=str(self.ca_file))
        if identity is not None:
            identity.issue_cert("a-client").configure_cert(context)
        return context


def authority_files(
    directory: Path, *, critical: bool = True, is_authority: bool = True
) -> tuple[Path, Path]:
    """Make an authority, and a server's certificate of it; return the file of each.

    `critical` and `is_authority` are what the authority's basicConstraints say.
    """
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

    root = certificate(0).add_extension(
        x509.BasicConstraints(ca=is_authority, path_length=None), critical=critical
    )
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


class Identity:
    """A client's certificate, issued by `authority` under these names, and its private key."""

    def __init__(
        self, authority: trustme.CA, *names: x509.GeneralName, ends: dt.datetime | None = None
    ) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "common-name")]))
            .issuer_name(authority._certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(ends or now + dt.timedelta(days=1))
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        self.certificate = builder.sign(authority._private_key, hashes.SHA256())
        self._pem = self.certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def use(self, context: ssl.SSLContext, directory: Path) -> ssl.SSLContext:
        """Let clients with this context present the certificate; OpenSSL reads it from a file."""
        path = directory / f"{self.certificate.serial_number:x}.pem"
        path.write_bytes(self._pem)
        context.load_cert_chain(path)
        return context


def revocation_list(authority: trustme.CA, *revoked: Identity, ends: dt.timedelta | None = None) -> bytes:
    """Return the authority's CRL in PEM format, which ends that long from now (a day)."""
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority._certificate.subject)
        .last_update(now - dt.timedelta(days=2))
        .next_update(now + (ends or dt.timedelta(days=1)))
    )
    for identity in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(identity.certificate.serial_number)
        builder = builder.add_revoked_certificate(entry.revocation_date(now).build())
    signed = builder.sign(authority._private_key, hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM)
