"""One connection to the Bits API: requests out, responses in, one exchange at a time.

    connecting ──ready──▶ idle ──begin──▶ busy ──finish──▶ idle
                           │                ├──101──▶ tunnel ──both ends──▶ closed
                           └── any byte, EOF, reset, bad response ──▶ closed

Bytes that arrive on an idle connection, or after a complete response, belong to no request. They end the
connection and are dropped.

The event loop reports what has arrived on two sockets in either order, and reports nothing more of a socket
once a write to it has failed. So the connection looks into its socket itself, before it serves again and
after a write error.

The module is longer than others because all that can end a connection, and what becomes of its request then,
belongs in one place.
"""

import asyncio
import os
import select
import socket
import ssl
from typing import Final, cast

from bits_auth_proxy.forward import problems
from bits_auth_proxy.forward.headers import RESPONSE_FIELDS
from bits_auth_proxy.forward.ports import ConnectionKeeper, ResponseSink
from bits_auth_proxy.forward.problems import Problem
from bits_auth_proxy.forward.tls import TlsChannel
from bits_auth_proxy.forward.write_batcher import WriteBatcher
from bits_auth_proxy.http1.bodies import BodyReader, CloseReader, open_body
from bits_auth_proxy.http1.messages import NO_BODY, UNTIL_CLOSE, Field, MalformedMessage, ResponseHead
from bits_auth_proxy.http1.parsing import ResponseParser

MAX_STATUS_LINE: Final = 8 * 1024
MAX_HEAD: Final = 64 * 1024
MAX_FIELDS: Final = 200
_STATUS_LINE_SIZE: Final = 32
"""Bytes that an interim response counts besides its fields. All together may be as large as a head."""
_WRITE_HIGH_WATER: Final = 64 * 1024
_DEAD_AFTER: Final = 15
"""Seconds after which a peer that acknowledges nothing is taken for dead."""
_PROBE_INTERVAL: Final = 5
"""Seconds between probes of a silent peer."""
_MAX_LAST_READS: Final = 16
"""The maximum number of reads after a write error, so that they can't take more than 1 MiB of memory."""
_SWITCHING_PROTOCOLS: Final = 101
_FIRST_FINAL_STATUS: Final = 200


class UpstreamConnection(asyncio.BufferedProtocol):
    """A protocol for the event loop, which passes on what it reads to the exchange that it serves."""

    __slots__ = (
        "_answered",
        "_batcher",
        "_body",
        "_complete",
        "_fd",
        "_interims",
        "_keep_alive",
        "_keeper",
        "_method",
        "_parser",
        "_poll",
        "_read_buffer",
        "_ready",
        "_sink",
        "_streaming",
        "_tls",
        "_transport",
        "_tunnel",
        "_upgrading",
        "blocked",
        "created",
        "idle_until",
        "keep_alive_timeout",
        "refusal",
        "renew_at",
        "route",
        "served",
        "used_at",
    )

    def __init__(
        self,
        *,
        loop: asyncio.AbstractEventLoop,
        keeper: ConnectionKeeper,
        tls: TlsChannel | None,
        batcher: WriteBatcher,
        read_buffer: memoryview,
        now: float,
    ) -> None:
        """Prepare a connection made at `now`. `read_buffer` is scratch space that connections may share."""
        self._keeper = keeper
        self._tls = tls
        self._batcher = batcher
        self._read_buffer = read_buffer
        self._ready: asyncio.Future[None] = loop.create_future()
        self._parser = ResponseParser(
            fields=RESPONSE_FIELDS, max_line=MAX_STATUS_LINE, max_head=MAX_HEAD, max_fields=MAX_FIELDS
        )
        self._transport: asyncio.Transport | None = None
        self._fd = -1
        self._poll: select.poll | None = None
        self._sink: ResponseSink | None = None
        self._method = b""
        self._body: BodyReader | None = None
        self._answered = False
        self._complete = False
        self._keep_alive = True
        self._interims = 0
        self._upgrading = self._tunnel = self._streaming = False
        self.blocked = False
        self.created = now
        self.served = 0
        """The number of exchanges that have begun on the connection."""
        self.route = ""
        """The way to the API, for messages."""
        self.refusal: ssl.SSLError | None = None
        """Why the API ended TLS after the handshake, before its first response (RFC 8446 section 4.4.2.4)."""
        self.keep_alive_timeout: int | None = None
        """The idle timeout in seconds, if the API has announced one (`Keep-Alive: timeout=`)."""
        self.idle_until = 0.0
        self.renew_at = 0.0
        self.used_at = now
        """Instants that the pool keeps here: when to drop the idle connection, when to make a successor, when
        the connection was last made, taken or given back."""

    # The dialer's side.

    async def ready(self) -> None:
        """Wait until requests can be sent. Raises ssl.SSLError or OSError."""
        await self._ready

    @property
    def is_ready(self) -> bool:
        """Whether TCP and TLS have been set up."""
        return self._ready.done() and not self._ready.cancelled() and self._ready.exception() is None

    @property
    def is_open(self) -> bool:
        """Whether the connection can still be used."""
        return self._transport is not None and not self._transport.is_closing()

    # The pool's side.

    def can_serve(self) -> bool:
        """Return whether an idle connection can serve a request; close it if it can't.

        It can't if the API has ended it or has sent anything, even if the event loop has not reported that
        yet (RFC 9112 section 6.3). TLS's own records, such as session tickets, do not count.
        """
        transport, poll, tls = self._transport, self._poll, self._tls
        if transport is None or transport.is_closing():
            return False
        if poll is not None and poll.poll(0):
            if tls is None or self._read_unread() <= 0 or poll.poll(0):
                self.close()
            if not self.is_open:
                return False
        if tls is not None and tls.has_partial_record:
            self.close()
            return False
        return True

    # The exchange's side.

    def begin(self, sink: ResponseSink, method: bytes, data: bytes, *, upgrading: bool = False) -> None:
        """Serve the request of `sink`, made with `method`; `data` is what there is of it so far.

        `upgrading` says whether a 101 is an acceptable response.
        """
        self._sink = sink
        self._upgrading = upgrading
        self._method = method
        self._body = None
        self._answered = self._complete = False
        self._interims = 0
        self.served += 1
        if self._streaming:
            self._stream(streaming=False)
        self._write(data)

    def send(self, data: bytes) -> None:
        """Write more bytes of the request."""
        if not self._streaming:
            self._stream(streaming=True)
        self._write(data)

    def _write(self, data: bytes) -> None:
        transport = self._transport
        if transport is not None:
            self._batcher.write(transport, data if self._tls is None else self._tls.send(data))

    def send_eof(self) -> None:
        """End our half of a tunnel."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if self._tls is not None:
            self._batcher.write(transport, self._tls.close())
        self._batcher.flush()
        transport.write_eof()

    def pause_reading(self) -> None:
        """Stop reading, because the client does not keep up."""
        if self._transport is not None and self._transport.is_reading():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read again, unless the API has ended its half of a tunnel."""
        at_end = self._tunnel and self._complete
        if self.is_open and self._transport is not None and not self._transport.is_reading() and not at_end:
            self._transport.resume_reading()

    def finish(self) -> None:
        """End the exchange after the request was sent whole and the response is complete."""
        self._sink = None
        transport, tls = self._transport, self._tls
        if (
            self._keep_alive
            and self._complete
            and not (tls is not None and tls.closed_cleanly)
            and not self.blocked
            and transport is not None
            and not transport.is_closing()
        ):
            if not transport.is_reading():
                transport.resume_reading()
            self._keeper.release(self)
        else:
            self.close()

    def abandon(self) -> None:
        """End the exchange before it is complete; the connection can't be used again."""
        self._sink = None
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """Close an idle connection cleanly."""
        if self._transport is not None and not self._transport.is_closing():
            # If our half has already ended, there is no notice, and nothing may be written any more.
            if self._tls is not None and self._tls.established and (notice := self._tls.close()):
                self._batcher.write(self._transport, notice)
            self._batcher.flush()
            self._transport.close()

    # The event loop's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:  # noqa: D102
        self._transport = transport = cast("asyncio.Transport", transport)
        transport.set_write_buffer_limits(high=_WRITE_HIGH_WATER)
        sock = transport.get_extra_info("socket")
        if sock is not None:
            self._fd = sock.fileno()
            self._poll = select.poll()
            self._poll.register(self._fd, select.POLLIN)
            if sock.family != socket.AF_UNIX:
                _notice_dead_peer(sock)
        if self._tls is None:
            self._ready.set_result(None)
        else:
            self._batcher.write(transport, self._tls.handshake())

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002, D102
        return self._read_buffer

    def buffer_updated(self, nbytes: int) -> None:  # noqa: D102
        received = self._read_buffer[:nbytes]
        tls = self._tls
        if tls is None:
            self._receive(received.tobytes())
            return
        try:
            data = tls.receive(received) if tls.established else self._continue_handshake(tls, received)
            replies = tls.replies(blocked=self.blocked) if tls.outgoing.pending else b""
        except ssl.SSLError as error:
            if self._transport is not None:
                # Send the alert, so that the peer can log why.
                self._batcher.write(self._transport, tls.pending_output())
                self._batcher.flush()
            self._fail(error, problems.TLS_ERROR)
            return
        if replies and self._transport is not None:
            self._batcher.write(self._transport, replies)
        if data:
            self._receive(data)
        if tls.closed_cleanly:
            self._end_of_stream()

    def eof_received(self) -> bool:  # noqa: D102
        # Without close_notify, an attacker may have cut the stream, so this is not a clean end.
        if self._tls is None or self._tls.closed_cleanly:
            self._end_of_stream()
            return self._tunnel
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: D102
        if exc is not None and self._sink is not None:
            self._read_rest()
        if isinstance(exc, TimeoutError):
            self._keeper.distrust(self.used_at)
        self._fail(exc or ConnectionResetError("the peer closed the connection"), problems.CONNECTION_LOST)
        self._transport = None
        self._keeper.lost(self)

    def pause_writing(self) -> None:  # noqa: D102
        self.blocked = True

    def resume_writing(self) -> None:  # noqa: D102
        self.blocked = False
        if self._sink is not None:
            self._sink.upstream_writable()

    # Internals.

    def _stream(self, *, streaming: bool) -> None:
        """Tolerate an API that does not read for a while, as long as a request is sent in parts.

        Linux takes a peer whose window stays closed for dead, even while it acknowledges (TCP_USER_TIMEOUT).
        """
        self._streaming = streaming
        sock = None if self._transport is None else self._transport.get_extra_info("socket")
        if sock is not None and sock.family != socket.AF_UNIX:
            _set_user_timeout(sock, 0 if streaming else _DEAD_AFTER)

    def _read_unread(self) -> int:
        """Read from the socket, past the transport, and use what was read.

        Returns the number of bytes, 0 at the end of the stream, or -1 if there is nothing to read.
        """
        try:
            nbytes = os.readv(self._fd, [self._read_buffer])
        except OSError:
            return -1
        if nbytes:
            self.buffer_updated(nbytes)
        return nbytes

    def _read_rest(self) -> None:
        """Take the response that may have arrived before a write failed (RFC 9112 section 9.5).

        The transport reads no more, but its socket is still open. After a reset, the end of the stream proves
        nothing, so a response that lasts until the end stays without one.
        """
        for _ in range(_MAX_LAST_READS):
            if self._sink is None or self._read_unread() <= 0:
                break

    def _continue_handshake(self, tls: TlsChannel, data: memoryview) -> bytes:
        output = tls.handshake(data)
        if output and self._transport is not None:
            self._batcher.write(self._transport, output)
        if not tls.established:
            return b""
        if not self._ready.done():
            self._ready.set_result(None)
        return tls.receive(b"")

    def _receive(self, data: bytes) -> None:
        sink = self._sink
        if sink is None or self._complete:
            self._keep_alive = False
            if sink is None:
                self.abandon()
            return
        try:
            if self._body is None:
                data = self._receive_head(sink, data)
                if self._sink is not sink:
                    return
            body = self._body
            if body is not None and data:
                content = body.feed(data)
                if content:
                    sink.response_body(content)
                if body.done:
                    self._end(sink, body.rest, body.trailers)
        except MalformedMessage as error:
            self._fail(error, problems.BAD_RESPONSE)
            return
        if self._sink is sink:
            sink.response_flush()

    def _receive_head(self, sink: ResponseSink, data: bytes) -> bytes:
        """Read up to the final head; return what follows it."""
        self._answered = True
        while True:
            head = self._parser.feed(data)
            if head is None:
                return b""
            data = self._parser.rest
            if head.status >= _FIRST_FINAL_STATUS:
                break
            if head.status == _SWITCHING_PROTOCOLS:
                return self._switch(sink, head, data)
            if not self._pass_interim(sink, head) or not data:
                return b""
        length = NO_BODY if self._method == b"HEAD" else head.length
        self._keep_alive = head.keep_alive
        self.keep_alive_timeout = head.keep_alive_timeout
        sink.response_head(head, length)
        if self._sink is not sink:
            return b""
        if NO_BODY <= length <= len(data):
            # The whole body has arrived with the head. This common case needs no reader.
            self._complete = True
            if length:
                sink.response_body(data[:length])
            if length < len(data):
                self._keep_alive = False
            sink.response_end([])
            return b""
        self._body = open_body(length, max_overhead=MAX_HEAD, max_fields=MAX_FIELDS, padded=True)
        return data

    def _pass_interim(self, sink: ResponseSink, head: ResponseHead) -> bool:
        self._interims += _STATUS_LINE_SIZE + sum([len(field.line) for field in head.fields])
        if self._interims > MAX_HEAD:
            self._fail(None, problems.BAD_RESPONSE)
            return False
        sink.response_interim(head)
        return True

    def _switch(self, sink: ResponseSink, head: ResponseHead, data: bytes) -> bytes:
        """Become a tunnel, if that was requested; return `data`, which follows the head."""
        if not self._upgrading:
            self._fail(None, problems.UPGRADE_FAILED)
            return b""
        self._tunnel = True
        self._keep_alive = False
        self._body = CloseReader()
        sink.response_head(head, UNTIL_CLOSE)
        return data

    def _end(self, sink: ResponseSink, rest: bytes, trailers: list[Field]) -> None:
        self._complete = True
        if rest:
            self._keep_alive = False
        sink.response_end(trailers)

    def _end_of_stream(self) -> None:
        """End the response, because the peer has ended the stream, provably on purpose."""
        sink = self._sink
        if sink is not None and isinstance(self._body, CloseReader) and not self._complete:
            self._keep_alive = False
            self._end(sink, b"", [])
            sink.response_flush()
        if self._transport is not None and not self._tunnel:
            self._transport.close()

    def _fail(self, error: BaseException | None, problem: Problem) -> None:
        if not self._ready.done():
            self._ready.set_exception(error or ConnectionResetError("the peer closed the connection"))
        elif isinstance(error, ssl.SSLError) and self.served <= 1 and not self._answered:
            self.refusal = error
        sink, self._sink = self._sink, None
        if self._transport is not None:
            self._transport.abort()
        if sink is not None:
            sink.upstream_lost(problem, answered=self._answered)


def _notice_dead_peer(sock: socket.socket) -> None:
    """Make the system end a connection whose peer or own address has gone (RFC 9293 section 3.8.3).

    Systems other than Linux have some of the options, under other names, or none.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", _DEAD_AFTER),
        ("TCP_KEEPALIVE", _DEAD_AFTER),
        ("TCP_KEEPINTVL", _PROBE_INTERVAL),
    ):
        option = getattr(socket, name, None)
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
    _set_user_timeout(sock, _DEAD_AFTER)


def _set_user_timeout(sock: socket.socket, seconds: int) -> None:
    """Set how long sent bytes may stay unacknowledged, on Linux; 0 is the system's own rule."""
    option = getattr(socket, "TCP_USER_TIMEOUT", None)
    if option is not None:
        sock.setsockopt(socket.IPPROTO_TCP, option, seconds * 1000)
