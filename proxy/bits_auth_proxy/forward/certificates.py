"""TLS settings that come from files: noticing that these were renewed, and the listener's certificate."""

import hashlib
import ssl
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from bits_auth_proxy.errors import SettingError
from bits_auth_proxy.files import read_file
from bits_auth_proxy.forward.revocation import list_ends
from bits_auth_proxy.forward.tls import no_password, restrict

_SHOWN_NAMES: Final = 200
"""Characters of a client's names that an error shows."""
_READS: Final = 3
"""How many times to try to load files that are being replaced meanwhile."""


class CertificateError(SettingError):
    """A file can't be used. `name` is its name in `CertificateFiles`; the text quotes nothing from it."""

    def __init__(self, name: str, text: str) -> None:
        super().__init__(text)
        self.name: Final = name


class CertificateFiles(NamedTuple):
    """PEM files: the certificate with its chain, its private key, and the CAs of clients' certificates.

    With `client_ca`, clients must present a certificate, and with `crl`, one that these lists do not revoke.
    """

    cert: Path
    key: Path
    client_ca: Path | None = None
    crl: Path | None = None


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
        self._seen: tuple[bytes, ...] = ()
        """A digest of each file when they were last read, or empty if they can't be read."""
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
            changed = self._digests() != self._seen
        except CertificateError:
            known, self._seen = not self._seen, ()
            if known:
                return False
            raise
        if changed:
            self.context = self._load()
        return changed

    def _load(self) -> ssl.SSLContext:
        # OpenSSL reads the files one after the other, but must not pair an old certificate with a new key.
        for _ in range(_READS):
            self._seen = self._digests()
            try:
                return self._make()
            except SettingError:
                if self._digests() == self._seen:
                    raise
        raise CertificateError("cert", "the files keep changing")

    def _digests(self) -> tuple[bytes, ...]:
        return tuple(
            b"" if path is None else hashlib.sha256(_content(name, path, self._read)).digest()
            for name, path in zip(self._files._fields, self._files, strict=True)
        )


class ServerCertificate(WatchedContext):
    """The TLS settings of a listener. Its errors are CertificateErrors."""

    __slots__ = ("_allowed_names", "trust")

    def __init__(
        self,
        files: CertificateFiles,
        *,
        allowed_names: Collection[str] | None = None,
        read: Callable[[Path], bytes] = read_file,
    ) -> None:
        """Load the files with `read`, which raises OSError. Raises CertificateError.

        `allowed_names` are in the form that `client_names` returns; one of them must be in a client's
        certificate. None allows every certificate that `client_ca` has signed.
        """
        super().__init__(files, make=lambda: server_context(files, read=read), read=read)
        self._allowed_names = None if allowed_names is None else frozenset(allowed_names)
        self.trust = self._seen[2:]
        """Changes when what decides about clients' certificates does."""

    def poll(self) -> bool:  # noqa: D102 - as in WatchedContext
        changed = super().poll()
        if changed:
            self.trust = self._seen[2:]
        return changed

    def objection(self, peer: Mapping[str, Any]) -> str:
        """Return why a client may not come in, or nothing; `peer` is its certificate, verified by OpenSSL."""
        names = client_names(peer)
        if not peer or self._allowed_names is None or not self._allowed_names.isdisjoint(names):
            return ""
        shown = ", ".join(names)[:_SHOWN_NAMES] or "no name"
        return f"the client's certificate has none of the allowed names, but {shown}"


def client_names(peer: Mapping[str, Any]) -> list[str]:
    """Return the DNS names and the SPIFFE ids in a certificate, as `SSLObject.getpeercert` returns it.

    They are in the form in which names are compared: DNS names and trust domains ignore case (RFC 4343;
    SPIFFE ID section 2.1), the paths of SPIFFE ids do not. A pattern in a certificate is a name
    like any other.
    """
    names = []
    for kind, name in peer.get("subjectAltName", ()):
        if kind == "DNS":
            names.append(name.lower())
        elif kind == "URI":
            scheme, separator, rest = name.partition("://")
            domain, slash, path = rest.partition("/")
            if separator and scheme.lower() == "spiffe":
                names.append(f"spiffe://{domain.lower()}{slash}{path}")
    return names


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
    if files.crl is not None:
        _load_revocations(context, files.crl, _content("crl", files.crl, read))
    return context


def _load_certificates(context: ssl.SSLContext, name: str, content: bytes, path: Path) -> None:
    try:
        context.load_verify_locations(cadata=content.decode("ascii"))
    except (ssl.SSLError, ValueError):  # ValueError: the file is empty or not ASCII.
        raise CertificateError(name, f"{path} contains no certificate in PEM format") from None


def _load_revocations(context: ssl.SSLContext, path: Path, content: bytes) -> None:
    if b" CERTIFICATE-----" in content:
        # OpenSSL would trust it as an authority.
        raise CertificateError(
            "crl", f"{path} contains a certificate, but should contain only revocation lists"
        )
    try:
        ends = list_ends(content)
        context.load_verify_locations(cafile=path)
    except (ssl.SSLError, ValueError):
        raise CertificateError(
            "crl", f"{path} contains no certificate revocation list in PEM format"
        ) from None
    except OSError as error:
        raise CertificateError("crl", f"{path} can't be read: {error.strerror}") from None
    for each in ends:
        if each <= datetime.now(UTC):
            raise CertificateError(
                "crl", f"{path} contains a revocation list that expired on {each:%Y-%m-%d %H:%M} UTC"
            )
    # Each authority in a client's chain needs a list, as with nginx.
    context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN


def _content(name: str, path: Path, read: Callable[[Path], bytes]) -> bytes:
    try:
        return read(path)
    except OSError as error:
        raise CertificateError(name, f"{path} can't be read: {error.strerror}") from None
