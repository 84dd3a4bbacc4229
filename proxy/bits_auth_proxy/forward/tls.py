"""TLS over a plain transport: a thin layer on `SSLContext.wrap_bio`.

The event loop's own TLS transport costs as much CPU per request as the whole rest of the proxy. This
layer turns received ciphertext into plaintext and back, and leaves sockets, back-pressure and timeouts
to the TCP transport underneath.
"""

import contextlib
import errno
import ssl
from typing import Any, Final, NoReturn

ALPN: Final = ["http/1.1"]
_SUITES: Final = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""The suites of TLS 1.2: forward secrecy and AEAD (RFC 9325 section 4.2). Those of TLS 1.3 all have both.

Python's default depends on its build: Debian's takes that of OpenSSL, which allows AES128-SHA. The security
level stays that of the system.
"""
_READ_SIZE: Final = 16 * 1024
"""The largest size of a record (RFC 8446 section 5.1). A read never returns more than one record."""


def restrict(context: ssl.SSLContext) -> None:
    """Set what holds for clients and servers: TLS 1.2 at least, forward secrecy, AEAD, HTTP/1.1."""
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_SUITES)
    # With a renegotiation, a write might have to wait for a read.
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(ALPN)


def verify_leniently(context: ssl.SSLContext) -> None:
    """Set how servers' certificates are verified: as curl does, and the same on all versions of Python.

    Python 3.13 is strict about the form of authorities' certificates (RFC 5280), where curl, nginx and Go are
    not. Private authorities may lack a critical basicConstraints or a key identifier; trust needs neither.
    As in Python 3.13, a trusted certificate may be that of an intermediate authority.
    """
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VERIFY_X509_TRUSTED_FIRST


def no_password() -> NoReturn:
    """Replace OpenSSL's prompt for a password, which would block the terminal. Raises OSError."""
    raise OSError(errno.EACCES, "the private key is encrypted")


class TlsChannel:
    """One TLS session. It takes and returns bytes; the owner of the transport moves them."""

    __slots__ = ("_incoming", "_outgoing", "_session", "closed_cleanly", "established")

    def __init__(self, context: ssl.SSLContext, server_hostname: str | None = None) -> None:
        """Prepare a session under the rules of `context`.

        With `server_hostname`, it is a client's session and verifies the peer by that name. Without it, the
        session is a server's.
        """
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._session = context.wrap_bio(
            self._incoming,
            self._outgoing,
            server_side=server_hostname is None,
            server_hostname=server_hostname,
        )
        self.established = False
        self.closed_cleanly = False
        """Whether the peer has sent close_notify; EOF without it is a truncation (RFC 8446 section 6.1)."""

    def handshake(self, data: bytes | memoryview = b"") -> bytes:
        """Take the peer's bytes, return those to send. Sets `established`. Raises ssl.SSLError.

        `data` may reach beyond the handshake: call `receive` afterwards.
        """
        if data:
            self._incoming.write(data)
        try:
            self._session.do_handshake()
        except ssl.SSLWantReadError:
            pass
        else:
            self.established = True
        return self._outgoing.read()

    def pending_output(self) -> bytes:
        """Return bytes that the session itself has to send (an alert, a key update), usually none."""
        return self._outgoing.read()

    def receive(self, data: bytes | memoryview) -> bytes:
        """Take ciphertext, return the plaintext that it completes, maybe none. Raises ssl.SSLError."""
        if self.closed_cleanly:  # What follows must not accumulate.
            return b""
        incoming, session = self._incoming, self._session
        if data:
            incoming.write(data)
        pieces: list[bytes] = []
        try:
            while piece := session.read(_READ_SIZE):
                # A read takes a whole record. One more read, which finds nothing, would be a third of a
                # small message's cost.
                if not incoming.pending:
                    return b"".join((*pieces, piece)) if pieces else piece
                pieces.append(piece)
            self.closed_cleanly = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:  # The peer's close_notify, after our own.
            self.closed_cleanly = True
        return b"".join(pieces)

    def send(self, data: bytes) -> bytes:
        """Return the ciphertext of `data`."""
        self._session.write(data)
        return self._outgoing.read()

    def close(self) -> bytes:
        """Return the close_notify to send before the connection is closed."""
        with contextlib.suppress(ssl.SSLError):  # We don't wait for the peer's own.
            self._session.unwrap()
        return self._outgoing.read()

    def peer_certificate(self) -> dict[str, Any]:
        """Return the peer's verified certificate (see `SSLObject.getpeercert`), empty if there is none."""
        return self._session.getpeercert() or {}

    @property
    def version(self) -> str | None:
        """The protocol version agreed on, such as TLSv1.3."""
        return self._session.version()
