"""TLS over a plain transport: a thin layer on `SSLContext.wrap_bio`.

The event loop's own TLS transport costs as much CPU per request as the whole rest of the proxy. This
layer turns received ciphertext into plaintext and back, and leaves sockets, back-pressure and timeouts
to the TCP transport underneath.
"""

import contextlib
import ssl
from typing import Final

_READ_SIZE: Final = 64 * 1024


class TlsChannel:
    """One TLS session in client role. Bytes in, bytes out; whoever owns the transport moves them."""

    __slots__ = ("_incoming", "_outgoing", "_session", "closed_cleanly", "established")

    def __init__(self, context: ssl.SSLContext, server_hostname: str) -> None:
        """Prepare a session that verifies the peer as `server_hostname`, under the rules of `context`."""
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._session = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_hostname)
        self.established = False
        self.closed_cleanly = False
        """Whether the peer has sent close_notify; an EOF without it is a truncation (RFC 8446 6.1)."""

    def handshake(self, data: bytes = b"") -> bytes:
        """Take bytes of the peer's, return those to send. Sets `established`. Raises ssl.SSLError.

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
        """Return bytes that the session itself wants to send (an alert, a key update), usually none."""
        return self._outgoing.read()

    def receive(self, data: bytes) -> bytes:
        """Take ciphertext, return the plaintext it completes, perhaps none. Raises ssl.SSLError."""
        incoming, session = self._incoming, self._session
        if data:
            incoming.write(data)
        pieces = []
        try:
            while True:
                piece = session.read(_READ_SIZE)
                if not piece:
                    self.closed_cleanly = True
                    break
                pieces.append(piece)
                # The last, fruitless read is a third of the cost of a small message.
                if not incoming.pending and not session.pending():
                    break
        except ssl.SSLWantReadError:
            pass
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def send(self, data: bytes) -> bytes:
        """Return the ciphertext of `data`."""
        self._session.write(data)
        return self._outgoing.read()

    def close(self) -> bytes:
        """Return the close_notify to send before the connection is closed."""
        with contextlib.suppress(ssl.SSLError):  # The peer's own close_notify is not waited for.
            self._session.unwrap()
        return self._outgoing.read()

    @property
    def version(self) -> str | None:
        """The protocol version agreed on, such as TLSv1.3."""
        return self._session.version()
