"""A client's connection: requests in, one at a time, responses out.

    IDLE ──bytes──▶ READING_HEAD ──head──▶ EXCHANGE ──over──▶ IDLE
                         │                    │
                         └─rejected──┐   close│
                                     ▼        ▼
                                   LINGERING / CLOSING ──▶ gone

An exchange may become a tunnel. Then everything that the client sends belongs to the tunnel, and a FIN ends
the client's half.

Requests that arrive while an exchange runs are held, unparsed, up to a bound; beyond it, we stop reading.
Until then we keep reading, because a paused transport reports neither FIN nor RST, and the API should not go
on working for a client that has left. A FIN before a request is whole means that the client has left. A FIN
behind whole requests means that no more will follow; they get their responses (RFC 9112 section 9.6). While a
client does not read its responses, its next request is not served.

The module is longer than others because a connection's phases and all transitions between them belong in one
place.
"""

import asyncio
import math
import select
import socket
import struct
from collections.abc import Callable
from enum import Enum, auto
from http import HTTPStatus
from typing import Final, cast

from bits_auth_proxy.forward import problems
from bits_auth_proxy.forward.access import Decision
from bits_auth_proxy.forward.exchange import Exchange
from bits_auth_proxy.forward.headers import REQUEST_FIELDS, own_answer, request_id_of
from bits_auth_proxy.forward.listener_context import ListenerContext
from bits_auth_proxy.forward.ports import UNIX_PEER
from bits_auth_proxy.forward.problems import Problem
from bits_auth_proxy.forward.record import RequestRecord
from bits_auth_proxy.http1.bodies import BodyReader, CloseReader, open_body
from bits_auth_proxy.http1.messages import NO_BODY, MalformedMessage, RequestHead
from bits_auth_proxy.http1.parsing import RequestParser

READ_SIZE: Final = 16 * 1024
_READ_AHEAD: Final = READ_SIZE
_WRITE_HIGH_WATER: Final = 64 * 1024
_LINGER_BYTES: Final = 256 * 1024
_SHARE_USED_UP: Final = "this client address has BITS_LIMITS__PER_CLIENT requests in flight"
_LINGER_TIME: Final = 2.0
"""What is discarded of a client that still sends: beyond the bytes, it waits until the time is over."""


class Phase(Enum):
    """What the connection is doing; see the module's docstring."""

    IDLE = auto()
    READING_HEAD = auto()
    EXCHANGE = auto()
    LINGERING = auto()
    CLOSING = auto()


# Before Python 3.12, looking up an enum member runs Python code, several times in every request.
_IDLE: Final = Phase.IDLE
_READING_HEAD: Final = Phase.READING_HEAD
_EXCHANGE: Final = Phase.EXCHANGE
_LINGERING: Final = Phase.LINGERING
_CLOSING: Final = Phase.CLOSING


class ClientConnection(asyncio.BufferedProtocol):
    """A protocol for the event loop; implements `ports.Client` and `ports.OpenConnection`."""

    __slots__ = (
        "_ahead",
        "_batcher",
        "_body",
        "_deadline",
        "_ended",
        "_exchange",
        "_lingered",
        "_listener",
        "_make_exchange",
        "_parser",
        "_paused",
        "_phase",
        "_receiving",
        "_request_done",
        "_retired",
        "_retires_at",
        "_transport",
        "_tunnel",
        "blocked",
        "peer",
    )

    def __init__(self, listener: ListenerContext, make_exchange: Callable[..., Exchange] = Exchange) -> None:
        self._listener = listener
        self._make_exchange = make_exchange
        self._batcher = listener.context.batcher
        self._parser = RequestParser(
            fields=REQUEST_FIELDS,
            max_line=listener.max_line,
            max_head=listener.max_head,
            max_fields=listener.max_fields,
        )
        self._phase = _IDLE
        self._deadline = listener.context.now + listener.keepalive_timeout
        self._transport: asyncio.Transport | None = None
        self._exchange: Exchange | None = None
        self._body: BodyReader | None = None
        self._request_done = False
        self._ahead = b""
        self._receiving = self._paused = False
        self._tunnel = self._ended = False
        self._lingered = 0
        self._retires_at = math.inf
        self._retired = False
        self.blocked = False
        self.peer = UNIX_PEER

    # The event loop's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:  # noqa: D102
        self._transport = transport = cast("asyncio.Transport", transport)
        transport.set_write_buffer_limits(high=_WRITE_HIGH_WATER)
        peername = transport.get_extra_info("peername")
        if isinstance(peername, tuple):
            self.peer = peername[0]
        self._listener.clients.opened(self)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002, D102
        return self._listener.read_buffer

    def buffer_updated(self, nbytes: int) -> None:  # noqa: D102
        phase = self._phase
        if phase is _LINGERING or phase is _CLOSING:
            self._lingered += nbytes
            if self._lingered > _LINGER_BYTES and self._transport is not None:
                # A reset now could reach the client before it has read the response.
                self._transport.pause_reading()
            return
        data = self._listener.read_buffer[:nbytes].tobytes()
        exchange = self._exchange
        if self.blocked if exchange is None else self._ahead or self._request_done or not exchange.wants_more:
            self._keep(data)
        else:
            self._receive(data)

    def eof_received(self) -> bool:  # noqa: D102
        exchange = self._exchange
        if exchange is None and not self._ahead:
            # The last response may still be in the batch.
            self._batcher.flush()
            self._leave()
            return False
        self._ended = True
        if self._tunnel and exchange is not None:
            self._pass_end(exchange)
        else:
            self._heed_end()
        transport = self._transport
        return transport is not None and not transport.is_closing()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002, D102
        self._leave()
        self._transport = None
        self._listener.clients.closed(self)

    def pause_writing(self) -> None:  # noqa: D102
        self.blocked = True
        if self._exchange is not None:
            self._exchange.client_blocked()

    def resume_writing(self) -> None:  # noqa: D102
        self.blocked = False
        if self._exchange is not None:
            self._exchange.client_writable()
        elif self._phase is not _LINGERING and self._phase is not _CLOSING:
            self._go_on()

    # The exchange's side.

    @property
    def draining(self) -> bool:
        """Whether the connection ends with its present request."""
        return self._listener.draining or self._retired

    @property
    def scheme(self) -> bytes:
        """The scheme of the client's requests."""
        return self._listener.scheme

    def send(self, data: bytes) -> None:
        """Write bytes of the response."""
        if self._transport is not None:
            self._batcher.write(self._transport, data)

    def unsent(self) -> int:
        """Return how many bytes the client has not taken yet."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    def resume_request(self) -> None:
        """Continue with the request's body."""
        if self._ahead and not self._receiving and not self._request_done:
            data, self._ahead = self._ahead, b""
            self._receive(data)
        self._resume_reading()
        if self._tunnel and self._ended and self._exchange is not None:
            self._pass_end(self._exchange)
        else:
            self._heed_end()

    def open_tunnel(self) -> None:
        """Treat all further bytes as the tunnel's, including those that have already arrived."""
        self._tunnel = True
        self._request_done = False
        self._body = CloseReader()
        self.resume_request()

    def send_eof(self) -> None:
        """End our half of the tunnel."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        self._batcher.flush()
        if transport.can_write_eof():
            transport.write_eof()
        else:
            self._close(unread=False)

    def exchange_over(self, *, keep_alive: bool) -> None:
        """Close the connection, or continue with the next request, which may have arrived already."""
        listener = self._listener
        if listener.shares is not None:
            self._give_share_back()
        self._exchange = None
        self._body = None
        if not keep_alive or self._retired:
            # A client that pipelines may still be sending.
            self._close(unread=not self._request_done or bool(self._ahead))
            return
        self._phase = _IDLE
        self._deadline = listener.context.now + listener.keepalive_timeout
        if (self._ahead or self._paused) and not self._receiving and not self.blocked:
            self._go_on()
        elif self._ended:
            self._heed_end()

    def abort(self) -> None:
        """Cut the connection with a reset, which no client takes for the end of a response."""
        self._phase = _CLOSING
        transport = self._transport
        if transport is not None:
            self._batcher.flush()
            _reset_on_close(transport)
            transport.abort()

    # The ticker's and the listener's side.

    def check(self, now: float) -> None:
        """End whatever has taken too long."""
        if now >= self._retires_at:
            self.retire()
        if self._ended and self._has_reset():
            self.abort()
        elif self._exchange is not None:
            self._exchange.check(now)
        elif now >= self._deadline:
            if self._phase is _READING_HEAD:
                self._reject(problems.REQUEST_TIMEOUT)
            elif self._phase is _IDLE:
                self._close(unread=False)
            else:
                self.abort()

    def close_if_idle(self) -> None:
        """Close the connection unless a request is under way. For shutdown."""
        if self._phase is _IDLE:
            self._close(unread=False)

    def limit_life(self, until: float) -> None:
        """Serve no request that begins after this instant, at which the client's certificate ends."""
        self._retires_at = until

    def retire(self) -> None:
        """Serve no further request if the client came over TLS. A tunnel lasts until it ends."""
        if self._listener.scheme == b"https":
            self._retired = True
            if self._phase is _IDLE or self._phase is _READING_HEAD:
                self._close(unread=self._phase is _READING_HEAD)

    # Internals.

    def _go_on(self) -> None:
        """Continue with the next request, which may have arrived already."""
        data, self._ahead = self._ahead, b""
        if data:
            self._receive(data)
        if self._paused:
            self._resume_reading()
        self._heed_end()

    def _receive(self, data: bytes) -> None:
        """Read requests and their bodies until the bytes are used up or an exchange must run first."""
        self._receiving = True
        try:
            while data and self._phase is not _LINGERING and self._phase is not _CLOSING:
                exchange = self._exchange
                if exchange is None:
                    if self.blocked:
                        break
                    data = self._receive_head(data)
                elif self._request_done or not exchange.wants_more:
                    break
                else:
                    data = self._receive_body(exchange, data)
        except MalformedMessage as error:
            self._reject(problems.for_malformed_request(error.reason), detail=error.detail)
        finally:
            self._receiving = False
        if data and (self._exchange is not None or self.blocked):
            self._keep(data)
        elif self._ended:
            self._heed_end()

    def _receive_head(self, data: bytes) -> bytes:
        listener = self._listener
        head = self._parser.feed(data)
        if head is None:
            if self._phase is _IDLE and self._parser.started:
                self._phase = _READING_HEAD
                self._deadline = listener.context.now + listener.head_timeout
            return b""
        data = self._parser.rest
        exchange = self._admit(head)
        if exchange is None:
            return data if self._phase is _IDLE else b""
        self._phase = _EXCHANGE
        self._exchange = exchange
        length = head.length
        if NO_BODY <= length <= len(data):
            # The whole body has arrived with the head. This common case needs no reader.
            self._request_done = True
            exchange.start(data[:length], done=True)
            return data[length:]
        self._request_done = False
        self._body = body = open_body(length, max_overhead=listener.max_head, max_fields=listener.max_fields)
        content = body.feed(data)
        if self._exceeds(exchange, content):
            return b""
        self._request_done = body.done
        exchange.start(content, done=body.done)
        return body.rest

    def _receive_body(self, exchange: Exchange, data: bytes) -> bytes:
        body = self._body
        if body is None:
            return data
        content = body.feed(data)
        if self._exceeds(exchange, content):
            return b""
        self._request_done = body.done
        exchange.request_data(content, done=body.done)
        return body.rest if body.done else b""

    def _exceeds(self, exchange: Exchange, content: bytes) -> bool:
        """End the exchange if `content` makes the request's body too large; return whether it did."""
        limit = self._listener.admission.max_body
        if limit is None or self._tunnel or exchange.record.request_bytes + len(content) <= limit:
            return False
        exchange.fail(problems.BODY_TOO_LARGE)
        return True

    def _admit(self, head: RequestHead) -> Exchange | None:
        """Return the exchange for a request that may be forwarded, or None if it has been answered here."""
        listener = self._listener
        context = listener.context
        decision = listener.admission.decide(head)
        if not decision.forwards:
            if decision.rejection is not None:
                self._reject(decision.rejection, head, detail=decision.detail)
            else:
                self._answer(head, decision)
            return None
        given = request_id_of(head) if b"x-request-id" in head.by_name else None
        request_id = given or next(listener.request_ids)
        exchange = self._make_exchange(context, self, head, decision, request_id, context.clock.now())
        shares = listener.shares
        if shares is not None and not shares.take(self.peer):
            self._request_done = False
            exchange.fail(problems.OVERLOADED, detail=_SHARE_USED_UP, retry_after=1.0)
            return None
        return exchange

    def _answer(self, head: RequestHead, decision: Decision) -> None:
        """Answer a request that ends at this proxy, although nothing is wrong with it."""
        listener = self._listener
        context = listener.context
        now = context.clock.now()
        request_id = request_id_of(head) or next(listener.request_ids)
        record = RequestRecord(
            decision.operation, head.method, request_id, head.by_name.get(b"traceparent", b""), now
        )
        record.status = int(HTTPStatus.OK)
        record.ended = now
        context.observer.exchange_started()
        context.observer.exchange_ended(record)
        self._request_done = head.length == NO_BODY
        keep_alive = self._request_done and head.keep_alive and head.minor_version == 1 and not self.draining
        self.send(
            own_answer(
                fields=decision.answer or b"",
                date_line=context.date.line,
                request_id=request_id,
                keep_alive=keep_alive,
            )
        )
        self.exchange_over(keep_alive=keep_alive)

    def _reject(
        self, problem: Problem, head: RequestHead | None = None, *, detail: str | None = None
    ) -> None:
        """Respond with `problem` and close the connection. Earlier requests have had their responses."""
        exchange = self._exchange
        if exchange is not None:
            exchange.fail(problem, detail=detail)
            return
        listener = self._listener
        request_id = (head and request_id_of(head)) or next(listener.request_ids)
        context = listener.context
        context.observer.request_rejected(problem.code, self.peer, request_id, detail)
        fields = context.date.line
        if head is not None:
            fields += listener.admission.cross_origin_fields(head)
        self.send(
            problem.response(
                request_id=request_id,
                detail=detail,
                head_only=head is not None and head.method == b"HEAD",
                keep_alive=False,
                fields=fields,
            )
        )
        self._close(unread=True)

    def _heed_end(self) -> None:
        """After a FIN, close the connection once the last whole request has had its response."""
        if not self._ended or self._ahead or self._receiving or self._tunnel:
            return
        if self._exchange is None:
            self._close(unread=False)
        elif not self._request_done:
            self._leave()
            if self._transport is not None:
                self._transport.close()

    def _pass_end(self, exchange: Exchange) -> None:
        """End the client's half of the tunnel once everything before its end has been passed on."""
        if not self._ahead and not self._request_done:
            self._request_done = True
            exchange.request_data(b"", done=True)

    def _keep(self, data: bytes) -> None:
        """Hold bytes that can't be used yet; beyond the bound, stop reading."""
        self._ahead += data
        transport = self._transport
        if len(self._ahead) >= _READ_AHEAD and transport is not None and transport.is_reading():
            self._paused = True
            transport.pause_reading()

    def _resume_reading(self) -> None:
        transport = self._transport
        if (
            transport is not None
            and len(self._ahead) < _READ_AHEAD
            and not self._ended
            and not transport.is_closing()
            and not transport.is_reading()
        ):
            self._paused = False
            transport.resume_reading()

    def _has_reset(self) -> bool:
        """Whether the client has reset the connection after its FIN, which the transport does not report."""
        sock = None if self._transport is None else self._transport.get_extra_info("socket")
        if sock is None:
            return False
        poll = select.poll()
        poll.register(sock.fileno(), 0)
        return bool(poll.poll(0))

    def _close(self, *, unread: bool) -> None:
        """Close the connection once everything is written.

        With `unread`, bytes from the client may still be on their way. Then closing immediately would reset
        the connection and could destroy the response (RFC 9112 section 9.6). So half-close, discard what
        arrives for a while, then close.
        """
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        self._batcher.flush()
        listener = self._listener
        if unread and not self._ended and transport.can_write_eof():
            self._phase = _LINGERING
            self._deadline = listener.context.now + _LINGER_TIME
            self._ahead = b""
            transport.write_eof()
            self._resume_reading()
        else:
            self._phase = _CLOSING
            self._deadline = listener.context.now + listener.context.idle_stream_timeout
            transport.close()

    def _give_share_back(self) -> None:
        shares = self._listener.shares
        if shares is not None and self._exchange is not None:
            shares.give(self.peer)

    def _leave(self) -> None:
        """End the exchange, because the client has left."""
        self._give_share_back()
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.client_gone()
        if self._phase is not _LINGERING:
            self._phase = _CLOSING


def _reset_on_close(transport: asyncio.Transport) -> None:
    """Make closing send a RST instead of a FIN (SO_LINGER with a time of zero)."""
    sock = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
