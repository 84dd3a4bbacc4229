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
_RECORD_HEADER: Final = 5
"""Bytes before a record's content: its type, a version, and the content's length (RFC 8446 section 5.1)."""
_READ_SIZE: Final = 16 * 1024
"""The largest size of a record (RFC 8446 section 5.1). A read never returns more than one record."""

_MAX_UNREAD_REPLIES: Final = 16 * 1024
"""Bytes of replies to a peer that reads nothing: those to some 600 key updates, of which a peer with as many
gigabytes to send needs one or two."""


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

    __slots__ = (
        "_header",
        "_incoming",
        "_missing",
        "_session",
        "_unread_replies",
        "closed_cleanly",
        "established",
        "has_partial_record",
        "outgoing",
    )

    def __init__(self, context: ssl.SSLContext, server_hostname: str | None = None) -> None:
        """Prepare a session under the rules of `context`.

        With `server_hostname`, it is a client's session and verifies the peer by that name. Without it, the
        session is a server's.
        """
        self._incoming = ssl.MemoryBIO()
        self.outgoing: Final = ssl.MemoryBIO()
        """What is to be sent; `outgoing.pending` says how many bytes, at the cost of no call."""
        self._session = context.wrap_bio(
            self._incoming,
            self.outgoing,
            server_side=server_hostname is None,
            server_hostname=server_hostname,
        )
        self._header = b""
        self._missing = 0
        self._unread_replies = 0
        self.established = False
        self.has_partial_record = False
        """Whether the beginning of a record has been received, and not yet its end."""
        self.closed_cleanly = False
        """Whether the peer has sent close_notify; EOF without it is a truncation (RFC 8446 section 6.1)."""

    def handshake(self, data: bytes | memoryview = b"") -> bytes:
        """Take the peer's bytes, return those to send. Sets `established`. Raises ssl.SSLError.

        `data` may reach beyond the handshake: call `receive` afterwards.
        """
        if data:
            self._incoming.write(data)
            self._follow_records(data)
        try:
            self._session.do_handshake()
        except ssl.SSLWantReadError:
            pass
        else:
            self.established = True
        return self.outgoing.read()

    def pending_output(self) -> bytes:
        """Return bytes that the session itself has to send, such as an alert, usually none."""
        return self.outgoing.read()

    def replies(self, *, blocked: bool) -> bytes:
        """Return the replies to the peer's key updates (RFC 8446 section 4.6.3), usually none.

        Call this after `receive`. `blocked` says that the peer does not read; raises ssl.SSLError if the
        replies become too many meanwhile.
        """
        replies = self.outgoing.read()
        if replies:
            self._unread_replies = self._unread_replies + len(replies) if blocked else 0
            if self._unread_replies > _MAX_UNREAD_REPLIES:
                raise ssl.SSLError(ssl.SSL_ERROR_SSL, "too many key updates from a peer that does not read")
        return replies

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
                    if self.has_partial_record:
                        self.has_partial_record, self._missing, self._header = False, 0, b""
                    return b"".join((*pieces, piece)) if pieces else piece
                pieces.append(piece)
            self.closed_cleanly = True
        except ssl.SSLWantReadError:
            # Only now can OpenSSL hold a part of a record, of which it does not tell.
            self._follow_records(data)
        except ssl.SSLZeroReturnError:  # The peer's close_notify, after our own.
            self.closed_cleanly = True
        return b"".join(pieces)

    def send(self, data: bytes) -> bytes:
        """Return the ciphertext of `data`."""
        self._session.write(data)
        return self.outgoing.read()

    def close(self) -> bytes:
        """Return the close_notify to send before the connection is closed."""
        with contextlib.suppress(ssl.SSLError):  # We don't wait for the peer's own.
            self._session.unwrap()
        return self.outgoing.read()

    def peer_certificate(self) -> dict[str, Any]:
        """Return the peer's verified certificate (see `SSLObject.getpeercert`), empty if there is none."""
        return self._session.getpeercert() or {}

    @property
    def version(self) -> str | None:
        """The protocol version agreed on, such as TLSv1.3."""
        return self._session.version()

    def _follow_records(self, data: bytes | memoryview) -> None:
        """Keep count of how much of the last record in `data` is missing."""
        if self._header:
            data = self._header + bytes(data)
            self._header = b""
        position, size = self._missing, len(data)
        while position + _RECORD_HEADER <= size:
            position += _RECORD_HEADER + (data[position + 3] << 8 | data[position + 4])
        if position < size:
            self._header = bytes(data[position:])
        self._missing = max(0, position - size)
        self.has_partial_record = position != size
