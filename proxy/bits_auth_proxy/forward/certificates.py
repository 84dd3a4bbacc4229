"""The certificate that a listener presents, and how it is reloaded when its files change."""

import hashlib
import ssl
from pathlib import Path
from typing import Final, NamedTuple

from bits_auth_proxy.errors import SettingError
from bits_auth_proxy.forward.tls import no_password, restrict

_READS: Final = 3
"""How many times to try to load files that are being replaced meanwhile."""


class CertificateError(SettingError):
    """A file can't be used. `name` is its name in `CertificateFiles`; the text quotes nothing from it."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text)
        self.name: Final = name


class CertificateFiles(NamedTuple):
    """PEM files: the certificate with its chain, its private key, and the CAs of clients' certificates.

    With `client_ca`, clients must present a certificate.
    """

    cert: Path
    key: Path
    client_ca: Path | None = None


class ServerCertificate:
    """The TLS settings of new connections. Open connections keep the settings that they began with."""

    __slots__ = ("_files", "_seen", "context")

    def __init__(self, files: CertificateFiles) -> None:
        """Load the files. Raises CertificateError."""
        self._files = files
        self._seen = b""
        """A digest of the files when they were last read, or empty if they can't be read."""
        self.context = self._load()

    def poll(self) -> bool:
        """Reload the files if they have changed; return whether they had and are in use now.

        Raises CertificateError, once for each change, if they can't be used. In this case, the certificate
        that was loaded before stays in use.
        """
        try:
            changed = self._digest() != self._seen
        except CertificateError:
            known, self._seen = not self._seen, b""
            if known:
                return False
            raise
        if changed:
            self.context = self._load()
        return changed

    def _load(self) -> ssl.SSLContext:
        # OpenSSL reads the files one after the other, but must not pair an old certificate with a new key.
        for _ in range(_READS):
            self._seen = self._digest()
            try:
                return server_context(self._files)
            except CertificateError:
                if self._digest() == self._seen:
                    raise
        raise CertificateError("cert", "the files keep changing")

    def _digest(self) -> bytes:
        digest = hashlib.sha256()
        for name, path in zip(self._files._fields, self._files, strict=True):
            if path is not None:
                digest.update(hashlib.sha256(_content(name, path)).digest())
        return digest.digest()


def server_context(files: CertificateFiles) -> ssl.SSLContext:
    """Return TLS settings for a listener. Raises CertificateError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    restrict(context)
    # Read the certificate separately first, because OpenSSL does not say which of the two files is at fault.
    _load_certificates(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), "cert", files.cert)
    try:
        context.load_cert_chain(files.cert, files.key, password=no_password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise CertificateError("key", f"{files.key} is not the key of the certificate") from None
        text = f"{files.key} contains no usable private key in PEM format"
        raise CertificateError("key", f"{text} ({error.reason})" if error.reason else text) from None
    except OSError as error:
        raise CertificateError("key", f"{files.key} can't be used: {error.strerror}") from None
    if files.client_ca is not None:
        _load_certificates(context, "client_ca", files.client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _load_certificates(context: ssl.SSLContext, name: str, path: Path) -> None:
    content = _content(name, path)
    try:
        context.load_verify_locations(cadata=content.decode("ascii"))
    except (ssl.SSLError, ValueError):  # ValueError: the file is empty or not ASCII.
        raise CertificateError(name, f"{path} contains no certificate in PEM format") from None


def _content(name: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CertificateError(name, f"{path} can't be read: {error.strerror}") from None
