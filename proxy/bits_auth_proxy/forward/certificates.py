"""TLS settings that come from files: noticing that these were renewed, and the listener's certificate."""

import hashlib
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from bits_auth_proxy.errors import SettingError
from bits_auth_proxy.files import read_file
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


class TrustFiles(NamedTuple):
    """PEM files for connections to the API: whom to trust, and the proxy's own certificate and its key."""

    ca_file: Path | None
    client_cert: Path | None
    client_key: Path | None


class WatchedContext:
    """The TLS settings of new connections. Open connections keep the settings that they began with."""

    __slots__ = ("_files", "_make", "_read", "_seen", "context")

    def __init__(
        self,
        files: CertificateFiles | TrustFiles,
        *,
        make: Callable[[], ssl.SSLContext],
        read: Callable[[Path], bytes] = read_file,
    ) -> None:
        """Make the settings. Raises SettingError, as `make` may; `read` raises OSError."""
        self._files = files
        self._make = make
        self._read = read
        self._seen = b""
        """A digest of the files when they were last read, or empty if they can't be read."""
        self.context = self._load()

    @property
    def watched(self) -> bool:
        """Whether there are files that may change."""
        return any(self._files)

    def poll(self) -> bool:
        """Reload the files if they have changed; return whether they had and are in use now.

        Raises SettingError, once for each change, when they can't be used: what was loaded before
        stays in use.
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
                return self._make()
            except SettingError:
                if self._digest() == self._seen:
                    raise
        raise CertificateError("cert", "the files keep changing")

    def _digest(self) -> bytes:
        digest = hashlib.sha256()
        for name, path in zip(self._files._fields, self._files, strict=True):
            if path is not None:
                digest.update(hashlib.sha256(_content(name, path, self._read)).digest())
        return digest.digest()


class ServerCertificate(WatchedContext):
    """The TLS settings of a listener. Its errors are CertificateErrors."""

    __slots__ = ()

    def __init__(self, files: CertificateFiles, *, read: Callable[[Path], bytes] = read_file) -> None:
        """Load the files with `read`, which raises OSError. Raises CertificateError."""
        super().__init__(files, make=lambda: server_context(files, read=read), read=read)


def server_context(files: CertificateFiles, *, read: Callable[[Path], bytes] = read_file) -> ssl.SSLContext:
    """Return TLS settings for a listener. Raises CertificateError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    restrict(context)
    # Read the certificate separately first, because OpenSSL does not say which of the two files is at fault.
    _load_certificates(
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), "cert", _content("cert", files.cert, read), files.cert
    )
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
        content = _content("client_ca", files.client_ca, read)
        _load_certificates(context, "client_ca", content, files.client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _load_certificates(context: ssl.SSLContext, name: str, content: bytes, path: Path) -> None:
    try:
        context.load_verify_locations(cadata=content.decode("ascii"))
    except (ssl.SSLError, ValueError):  # ValueError: the file is empty or not ASCII.
        raise CertificateError(name, f"{path} contains no certificate in PEM format") from None


def _content(name: str, path: Path, read: Callable[[Path], bytes]) -> bytes:
    try:
        return read(path)
    except OSError as error:
        raise CertificateError(name, f"{path} can't be read: {error.strerror}") from None
