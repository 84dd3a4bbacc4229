"""TLS with clients: a layer between the event loop's transport and a `ClientConnection`.

    handshake ──done──▶ open ──close_notify, close──▶ gone
        │                 └── EOF without close_notify, broken record ──▶ cut
        └── deadline, error, EOF ──▶ failed

To the transport below, the layer is the protocol; to the connection above, it is the transport. So a listener
without TLS pays nothing for it. The connection above begins when the handshake is done.
"""

import asyncio
import ssl
from collections.abc import Callable, Mapping
from typing import Any, cast

from bits_auth_proxy.errors import reason_of
from bits_auth_proxy.forward.certificates import ServerCertificate
from bits_auth_proxy.forward.listener_context import ListenerContext
from bits_auth_proxy.forward.tls import TlsChannel


class TlsConnection(asyncio.BufferedProtocol, asyncio.Transport):
    """One client's TLS session. Until the handshake is done, it is itself in the list of clients."""

    __slots__ = (
        "_above",
        "_below",
        "_blocked",
        "_certificate",
        "_channel",
        "_deadline",
        "_ended",
        "_has_received",
        "_limit_life",
        "_listener",
        "_trust",
    )

    def __init__(
        self,
        above: asyncio.BufferedProtocol,
        *,
        certificate: ServerCertificate,
        listener: ListenerContext,
        limit_life: Callable[[float], None],
    ) -> None:
        """Prepare a session with `certificate`; `above` reads from the listener's buffer.

        `limit_life` takes the instant, by `Clock.now()`, at which the client's certificate ends.
        """
        self._above = above
        self._certificate = certificate
        # In this order: a change in between is noticed at the end of the handshake.
        self._trust = certificate.trust
        self._channel = TlsChannel(certificate.context)
        self._limit_life = limit_life
        self._listener = listener
        self._below: asyncio.Transport
        self._deadline = listener.context.now + listener.head_timeout
        self._has_received = self._ended = self._blocked = False

    # The event loop's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:  # noqa: D102
        self._below = cast("asyncio.Transport", transport)
        self._listener.clients.opened(self)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002, D102
        return self._listener.read_buffer

    def buffer_updated(self, nbytes: int) -> None:  # noqa: D102
        received = self._listener.read_buffer[:nbytes]
        channel = self._channel
        try:
            plaintext = channel.receive(received) if channel.established else self._handshake(received)
            replies = channel.replies(blocked=self._blocked) if channel.outgoing.pending else b""
        except ssl.SSLError as error:
            if channel.established:
                self.abort()
            else:
                # Send the alert, so that the client can tell why.
                self._below.write(channel.pending_output())
                self._fail(reason_of(error))
            return
        if replies and not self._ended:
            self._below.write(replies)
        if plaintext:
            self._deliver(plaintext)
        if channel.closed_cleanly and not self._below.is_closing() and not self._above.eof_received():
            self.close()

    def eof_received(self) -> bool:  # noqa: D102
        if self._channel.closed_cleanly:
            # This was reported already. A connection that is still open is a tunnel.
            return not self._below.is_closing()
        if self._channel.established:
            # Without close_notify, an attacker may have cut the stream, so this is not a clean end.
            self.abort()
        elif self._has_received:
            self._fail("the client left")
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: D102
        if self._channel.established:
            self._above.connection_lost(exc)
        else:
            self._listener.clients.closed(self)

    def pause_writing(self) -> None:  # noqa: D102
        self._blocked = True
        self._above.pause_writing()

    def resume_writing(self) -> None:  # noqa: D102
        self._blocked = False
        self._above.resume_writing()

    # The client list's side, during the handshake.

    def check(self, now: float) -> None:
        """End a handshake that takes too long."""
        if self._below.is_closing():
            self.abort()
        elif now >= self._deadline:
            self._fail("the handshake took too long")

    def close_if_idle(self) -> None:
        """Close the connection, which has no request yet. For shutdown."""
        self.abort()

    def retire(self) -> None:
        """Do nothing: at its end, the handshake counts only if the trust it began with still holds."""

    # The transport of the connection above.

    def write(self, data: "bytes | bytearray | memoryview[Any]") -> None:  # noqa: D102
        if not self._ended:
            self._below.write(self._channel.send(bytes(data)))

    def can_write_eof(self) -> bool:  # noqa: D102
        return self._below.can_write_eof()

    def write_eof(self) -> None:  # noqa: D102
        self._send_close_notify()
        self._below.write_eof()

    def close(self) -> None:  # noqa: D102
        if not self._below.is_closing():
            self._send_close_notify()
            self._below.close()

    def abort(self) -> None:  # noqa: D102
        self._below.abort()

    def is_closing(self) -> bool:  # noqa: D102
        return self._below.is_closing()

    def is_reading(self) -> bool:  # noqa: D102
        return self._below.is_reading()

    def pause_reading(self) -> None:  # noqa: D102
        self._below.pause_reading()

    def resume_reading(self) -> None:  # noqa: D102
        self._below.resume_reading()

    def get_write_buffer_size(self) -> int:  # noqa: D102
        return self._below.get_write_buffer_size()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:  # noqa: D102
        self._below.set_write_buffer_limits(high, low)

    def get_extra_info(self, name: str, default: Any = None) -> Any:  # noqa: D102
        return self._below.get_extra_info(name, default)

    # Internals.

    def _handshake(self, data: memoryview) -> bytes:
        self._has_received = True
        channel = self._channel
        output = channel.handshake(data)
        if output:
            self._below.write(output)
        if not channel.established:
            return b""
        objection = self._objection(channel.peer_certificate())
        if objection:
            # For the connection above, there was no client.
            channel.established = False
            self._fail(objection)
            return b""
        self._listener.clients.open.discard(self)
        self._above.connection_made(self)
        return channel.receive(b"")

    def _objection(self, peer: Mapping[str, Any]) -> str:
        """Return why a client whose certificate OpenSSL accepts does not come in, or nothing.

        A session that was resumed has not been verified again, and goes through the same checks.
        """
        if self._trust != self._certificate.trust:
            return "the authorities or the revocation list changed during the handshake"
        if "notAfter" in peer:
            clock = self._listener.context.clock
            left = ssl.cert_time_to_seconds(peer["notAfter"]) - clock.wall()
            if left <= 0:
                return "the client's certificate has expired"
            self._limit_life(clock.now() + left)
        return self._certificate.objection(peer)

    def _deliver(self, plaintext: bytes) -> None:
        buffer = self._listener.read_buffer
        for start in range(0, len(plaintext), len(buffer)):
            if self._below.is_closing():
                break
            piece = plaintext[start : start + len(buffer)]
            buffer[: len(piece)] = piece
            self._above.buffer_updated(len(piece))

    def _fail(self, detail: str) -> None:
        """End a connection whose handshake is not done."""
        if self._has_received:
            peername = self._below.get_extra_info("peername")
            self._listener.context.observer.handshake_failed(detail, peername[0] if peername else "")
        self._below.close()

    def _send_close_notify(self) -> None:
        if not self._ended:
            self._ended = True
            self._below.write(self._channel.close())
