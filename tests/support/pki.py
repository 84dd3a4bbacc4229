"""An authority, and certificate files as operators mount them."""

import ssl
from pathlib import Path

import trustme

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
