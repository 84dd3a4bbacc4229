"""One request and its response: the state machine between a client's connection and one to the API.

    in                    on                                   goes to

    AWAITING_TOKEN        a token, an idle connection          AWAITING_RESPONSE
    AWAITING_TOKEN        a token, no idle connection          AWAITING_CONNECTION
    AWAITING_TOKEN        a token, small content under way     AWAITING_CONTENT
    AWAITING_TOKEN        no token to be had                   OVER
    AWAITING_CONTENT      all of it, an idle connection        AWAITING_RESPONSE
    AWAITING_CONTENT      all of it, no idle connection        AWAITING_CONNECTION
    AWAITING_CONTENT      all of it, the token expired         AWAITING_TOKEN
    AWAITING_CONTENT      no room for it, an idle connection   AWAITING_RESPONSE
    AWAITING_CONTENT      no room for it, no idle connection   AWAITING_CONNECTION
    AWAITING_CONNECTION   a connection                         AWAITING_RESPONSE
    AWAITING_CONNECTION   a connection, the token expired      AWAITING_TOKEN
    AWAITING_CONNECTION   no connection to be had              OVER
    AWAITING_CONNECTION   the queue full                       OVER
    AWAITING_RESPONSE     a final head                         RELAYING
    AWAITING_RESPONSE     101, asked for                       TUNNEL
    AWAITING_RESPONSE     401 to our token, the body held      UNAUTHORIZED
    AWAITING_RESPONSE     403 that may be one, likewise        UNAUTHORIZED
    AWAITING_RESPONSE     connection lost, repeatable          AWAITING_CONNECTION
    AWAITING_RESPONSE     connection lost                      OVER
    UNAUTHORIZED          another token, an idle connection    AWAITING_RESPONSE
    UNAUTHORIZED          another token, no idle connection    AWAITING_CONNECTION
    UNAUTHORIZED          another token, the body not held     RELAYING
    UNAUTHORIZED          the same token, still unproven       AWAITING_RESPONSE
    UNAUTHORIZED          a token that was refused             RELAYING
    UNAUTHORIZED          the 403 does not concern the token   RELAYING
    UNAUTHORIZED          no other token to be had             RELAYING
    UNAUTHORIZED          connection lost, the 401 whole       UNAUTHORIZED
    UNAUTHORIZED          connection lost                      OVER
    UNAUTHORIZED          deadline                             RELAYING
    UNAUTHORIZED          deadline, the token unproven         AWAITING_RESPONSE
    RELAYING              end of the response                  OVER
    RELAYING              connection lost                      OVER
    TUNNEL                end of both halves                   OVER
    TUNNEL                connection lost                      OVER
    all others            deadline                             OVER
    all                   the client leaves                    OVER
    all                   a body that is not acceptable        OVER

An exchange begins in AWAITING_TOKEN, and leaves it immediately if a token is in hand or the client sent its
own. A 401 that arrived whole while it was held goes through RELAYING to OVER immediately. The request's
content, which is its body without the framing of chunks, may arrive in any of these states; `_request_done`
says whether it has ended.

Content is small if its Content-Length says that it fits into the replay buffer. It is taken in before the
exchange uses a connection, so that a slow client does not keep one from others. Larger content is streamed.
So is content in chunks, whose length is unknown: it may be a stream that the API must see from its beginning.

Each state has one deadline, with two exceptions. In AWAITING_CONNECTION, it is extended once if a connection
is being made when it passes. In RELAYING and TUNNEL, it is extended for as long as a slow client goes on
taking bytes. Each byte of a body that arrives extends it by what `MIN_RATE` allows, up to the idle timeout.
Rules:

- With a token in hand and an idle connection in the pool, everything up to AWAITING_RESPONSE happens in one
  call, without a task, a future or a timer.
- A request is sent again in only two cases, and only while the content that was sent is still held. In the
  first, its connection had served before and was lost before the first byte of a response, and the request
  may be repeated; this happens at most once. In the second, the API answered 401 to our token, and another
  token is in hand now, or the API may not have known the new token yet. That goes on until `token_wait` is
  over, but never again with a token that the API refused after it had accepted it.
- A 403 counts as a 401 only if its challenge or its short body says `invalid_token` (RFC 6750 section 3.1).
- In a TUNNEL, bytes pass in both directions, and either side may end first.
- Before the API's final head is accepted, the client gets nothing but interim heads, so it gets a problem as
  the response to a failure. After that, a failure cuts the client's connection and never looks like a clean
  end.

The module is longer than others because the states and all transitions between them belong in one place.
"""

from enum import Enum, auto
from http import HTTPStatus
from typing import Final

from bits_auth_proxy.auth.tokens import AccessToken, TokenUnavailable
from bits_auth_proxy.forward import problems
from bits_auth_proxy.forward.access import Decision
from bits_auth_proxy.forward.context import ForwardContext
from bits_auth_proxy.forward.headers import cross_origin_fields
from bits_auth_proxy.forward.ports import Client
from bits_auth_proxy.forward.problems import Problem
from bits_auth_proxy.forward.record import RequestRecord
from bits_auth_proxy.forward.relay import ResponseRelay
from bits_auth_proxy.forward.replay import ReplayBuffer
from bits_auth_proxy.forward.upstream import UpstreamConnection
from bits_auth_proxy.http1.messages import CHUNKED, Field, RequestHead, ResponseHead
from bits_auth_proxy.http1.serializing import LAST_CHUNK, encode_chunk

MIN_RATE: Final = 256
"""The bytes per second that a client must send of a body, or take of a response that waits for it.

An idle timeout alone lets a client hold a connection to the API forever, with a byte now and then.
"""
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
CLIENT_CLOSED_REQUEST: Final = 499
"""The status in logs and metrics for a request whose client left before there was a status."""


class State(Enum):
    """The state of an exchange; see the module's docstring."""

    AWAITING_TOKEN = auto()
    AWAITING_CONTENT = auto()
    AWAITING_CONNECTION = auto()
    AWAITING_RESPONSE = auto()
    UNAUTHORIZED = auto()
    RELAYING = auto()
    TUNNEL = auto()
    OVER = auto()


# Before Python 3.12, looking up an enum member runs Python code, several times in every request.
_AWAITING_TOKEN: Final = State.AWAITING_TOKEN
_AWAITING_CONTENT: Final = State.AWAITING_CONTENT
_AWAITING_CONNECTION: Final = State.AWAITING_CONNECTION
_AWAITING_RESPONSE: Final = State.AWAITING_RESPONSE
_UNAUTHORIZED: Final = State.UNAUTHORIZED
_RELAYING: Final = State.RELAYING
_TUNNEL: Final = State.TUNNEL
_OVER: Final = State.OVER
_UNAUTHORIZED_STATUS: Final = int(HTTPStatus.UNAUTHORIZED)
_FORBIDDEN_STATUS: Final = int(HTTPStatus.FORBIDDEN)
_INVALID_TOKEN: Final = b"invalid_token"
_MAX_ERROR_BODY: Final = 4096
"""A longer body of a 403 is not looked at."""
_CONTINUE_STATUS: Final = int(HTTPStatus.CONTINUE)
_SWITCHING_PROTOCOLS: Final = int(HTTPStatus.SWITCHING_PROTOCOLS)


class Exchange:
    """One request and its response. See the module's docstring."""

    __slots__ = (
        "_asked",
        "_client",
        "_context",
        "_continued",
        "_deadline",
        "_patient",
        "_refused",
        "_relay",
        "_replay",
        "_request_done",
        "_retried",
        "_token",
        "_unauthorized_until",
        "_undecided",
        "_unsent",
        "_upstream",
        "head",
        "record",
        "repeatable",
        "state",
    )

    # Not set in `__init__`: each transition sets what its target state reads, which keeps an exchange cheap.
    _asked: bool
    """Whether another token has been asked for, in UNAUTHORIZED."""
    _deadline: float
    _patient: bool
    _refused: list[AccessToken]
    """The tokens that this request got a 401 to although the API had accepted them for others."""
    _undecided: bool
    """Whether the body of a 403 that is held will tell if it concerns the token."""
    _unsent: int

    def __init__(
        self,
        context: ForwardContext,
        client: Client,
        head: RequestHead,
        decision: Decision,
        request_id: bytes,
        now: float,
    ) -> None:
        """Admit the request of `head`, which has passed all checks and has the target to send to the API.

        The request is in flight from now on, and the observer is notified of its end whatever happens.
        """
        self._context = context
        self._client = client
        self.head = head
        self.repeatable = decision.repeatable
        self.record = RequestRecord(
            decision.operation, head.method, request_id, head.by_name.get(b"traceparent", b""), now
        )
        self.state = _AWAITING_TOKEN
        self._token: AccessToken | None = None
        self._upstream: UpstreamConnection | None = None
        self._replay = ReplayBuffer(context.replay_budget, context.max_replay_body)
        self._relay = ResponseRelay(head, context.response_rules, request_id)
        self._request_done = self._continued = False
        self._retried = False
        self._unauthorized_until = 0.0
        context.observer.exchange_started()

    # The client's side.

    def start(self, content: bytes, *, done: bool) -> None:
        """Begin with the content that has arrived, which may be empty; `done` says whether it is complete."""
        self._request_done = done
        record = self.record
        if content:
            record.request_bytes = len(content)
            self._replay.add(content)
        context = self._context
        if b"authorization" in self.head.by_name:
            if context.request_rules.keeps(self.head):
                record.client_authorization = "kept"
                self._proceed(record.started)
                return
            record.client_authorization = "replaced"
        # What has not arrived whole may turn out too large to be sent again.
        tokens = context.tokens
        token = self._token = tokens.current(record.started) if done else tokens.steady(record.started)
        if token is None:
            self._await_token(record.started)
        elif done:
            self._connect(record.started)
        else:
            self._proceed(record.started)

    @property
    def wants_more(self) -> bool:
        """Whether the exchange can take the next piece of the request's content."""
        if self._upstream is None:
            return self._replay.held and self.record.request_bytes < self._context.max_replay_body
        return not self._upstream.blocked

    def request_data(self, content: bytes, *, done: bool) -> None:
        """Take the next piece of the request's content, which may be empty; `done` marks the last piece."""
        self._request_done = done
        upstream = self._upstream
        if content:
            record, replay = self.record, self._replay
            record.request_bytes += len(content)
            if replay.held:
                replay.add(content)
        if upstream is None:
            if self.state is _AWAITING_CONTENT:
                self._take_in(len(content))
        else:
            self._stream(upstream, content, done=done)

    def client_blocked(self) -> None:
        """The client reads too slowly: let the API wait."""
        self._unsent = self._client.unsent()
        if self._upstream is not None:
            self._upstream.pause_reading()

    def client_writable(self) -> None:
        """The client accepts data again."""
        if self.state is _RELAYING or self.state is _TUNNEL:
            self._deadline = self._context.now + self._context.idle_stream_timeout
        if self._upstream is not None and self.state is not _UNAUTHORIZED:
            self._upstream.resume_reading()

    def client_gone(self) -> None:
        """End the exchange, because the client has left."""
        if self.state is _OVER:
            return
        if not self.record.status:
            self.record.status = CLIENT_CLOSED_REQUEST
        self.record.problem = problems.CLIENT_GONE
        self._end()

    def check(self, now: float) -> None:
        """End whatever has taken too long."""
        if now < self._deadline:
            return
        state = self.state
        if state is _AWAITING_TOKEN:
            reason = self._context.tokens.explain()
            self.fail(problems.TOKEN_UNAVAILABLE, detail=reason.detail, retry_after=reason.retry_after)
        elif state is _AWAITING_CONTENT:
            self.fail(problems.REQUEST_TIMEOUT)
        elif state is _AWAITING_CONNECTION:
            self._check_queue(now)
        elif state is _UNAUTHORIZED:
            self._context.tokens.forget(self)
            # The older one of two unproven tokens, which the API knows first.
            token = self._context.tokens.steady(now)
            if token is None or token.proven or self._undecided:
                self._relay_unauthorized()
            else:
                # If the API does not know it by now, this 401 is the last.
                self.token_ready(token)
        elif state is _AWAITING_RESPONSE:
            api_stalls = self._request_done or self._upstream is None or self._upstream.blocked
            if api_stalls:
                self._context.pool.distrust(self.record.sent)
            self.fail(problems.RESPONSE_TIMEOUT if api_stalls else problems.REQUEST_TIMEOUT)
        elif state is _RELAYING or state is _TUNNEL:
            self._check_relay(now)

    def fail(self, problem: Problem, *, detail: str | None = None, retry_after: float | None = None) -> None:
        """Respond with `problem`, or cut the client's connection if a response is already under way."""
        record, client = self.record, self._client
        record.problem = problem.code
        if self._relay.answering:
            self._end()
            client.abort()
            return
        record.status = problem.status
        keep_alive = (
            self._request_done and self.head.keep_alive and not problem.rejection and not client.draining
        )
        self._end()
        client.send(
            problem.response(
                request_id=record.request_id,
                detail=detail,
                retry_after=retry_after,
                head_only=record.method == b"HEAD",
                keep_alive=keep_alive,
                fields=self._context.date.line + cross_origin_fields(self.head),
            )
        )
        client.exchange_over(keep_alive=keep_alive)

    # The token's side.

    def token_ready(self, token: AccessToken) -> None:
        """Take a token: the awaited one, or one to replace the unauthorized one."""
        now = self._context.clock.now()
        if self.state is _AWAITING_TOKEN:
            self.record.token_at = now
            self._token = token
            self._proceed(now)
        elif self.state is _UNAUTHORIZED:
            # The token endpoint may issue the very token again that got the 401.
            refused = any(token.header_line == each.header_line for each in self._refused)
            if refused or not self._replay.held:
                self._relay_unauthorized()
                return
            self._context.observer.retried("token_refused")
            self._drop_response()
            self._token = token
            self._connect(now)

    def token_unavailable(self, reason: TokenUnavailable) -> None:
        """Take the reason why there is no token, or none but the unauthorized one."""
        if self.state is _AWAITING_TOKEN:
            problem = problems.CREDENTIALS_DENIED if reason.permanent else problems.TOKEN_UNAVAILABLE
            self.fail(problem, detail=reason.detail, retry_after=reason.retry_after)
        elif self.state is _UNAUTHORIZED:
            self._relay_unauthorized()

    # The pool's side.

    def connection_ready(self, connection: UpstreamConnection) -> None:
        """Take the connection that the exchange was waiting for."""
        now = self._context.clock.now()
        token = self._token
        if token is not None and now >= token.expires_at:
            # The token expired during the wait. This is rare, so the connection is not worth keeping.
            connection.close()
            self._await_token(now)
        else:
            self._send(connection, now)

    def connection_failed(self, problem: Problem) -> None:
        """Fail, because no connection could be made."""
        self.fail(problem, retry_after=1.0)

    # The API's side.

    def response_interim(self, head: ResponseHead) -> None:
        """Pass on a 1xx response, except a 100 to a client that has got one from the proxy itself.

        It is a sign of life, so the time for the final head begins again.
        """
        if head.status != _CONTINUE_STATUS or not self._continued:
            self._relay.interim(head)
        if self._request_done:
            self._deadline = self._context.now + self._context.response_timeout

    def response_head(self, head: ResponseHead, length: int) -> None:
        """Take the final head. Relay it, or hold back a 401 to our token, because another token may help."""
        self.record.answered = self._context.clock.now()
        token = self._token
        if head.status == _SWITCHING_PROTOCOLS:
            self._switch(head)
        elif token is None:
            self._begin_relay(head, length)
        elif head.status == _UNAUTHORIZED_STATUS:
            self._take_refusal(head, length, token)
        elif head.status == _FORBIDDEN_STATUS:
            self._take_forbidden(head, length, token)
        else:
            if self.record.operation not in token.accepted:
                self._context.tokens.accept(token, self.record.operation)
            self._begin_relay(head, length)

    def response_body(self, content: bytes) -> None:
        """Take content of the response."""
        self.record.response_bytes += len(content)
        self._relay.add(content)

    def response_end(self, trailers: list[Field]) -> None:
        """Take the end of the response."""
        self._relay.end(trailers)

    def response_flush(self) -> None:
        """Write what one read has yielded."""
        relay, state = self._relay, self.state
        data = relay.take()
        if data:
            self._client.send(data)
        if state is _UNAUTHORIZED:
            if self._undecided:
                if relay.complete:
                    self._decide()
            elif not self._asked:
                self._ask_for_another_token()
        elif relay.complete:
            if state is _TUNNEL and not self._request_done:
                self._client.send_eof()
            else:
                self._complete()
        elif relay.begun:
            self._deadline = self._context.now + self._context.idle_stream_timeout

    def upstream_lost(self, problem: Problem, *, answered: bool) -> None:
        """Learn that the connection is gone: send the request again if it is safe to repeat."""
        connection, self._upstream = self._upstream, None
        if self.state is _UNAUTHORIZED:
            if self._relay.complete:
                return
            self._context.tokens.forget(self)
        elif (
            not answered
            and connection is not None
            and connection.served > 1
            and self.repeatable
            and self._replay.held
            and not self._retried
        ):
            self._retried = True
            self._context.observer.retried("connection_lost")
            self._queue(self._context.clock.now())
            return
        self.fail(problem)

    def upstream_writable(self) -> None:
        """Continue with the request's content, because the API takes more of it again."""
        if not self._request_done and self.state is _AWAITING_RESPONSE:
            self._deadline = self._context.now + self._context.idle_stream_timeout
        self._client.resume_request()

    # Internals: the request.

    def _stream(self, upstream: UpstreamConnection, content: bytes, *, done: bool) -> None:
        """Send the next piece of the content, or of what the client sends through a tunnel."""
        if not self._replay.held:
            self._replay.release()
        # Even after a complete 401, because only a request that is sent whole leaves a usable connection.
        if self.head.length == CHUNKED:
            content = _as_chunks(content, done=done)
        if content:
            upstream.send(content)
        context = self._context
        if self.state is _TUNNEL:
            self._deadline = context.now + context.idle_stream_timeout
            if done:
                self._end_our_half(upstream)
        elif self.state is not _UNAUTHORIZED:
            self._deadline = context.now + (
                context.response_timeout if done else self._time_for_more(len(content))
            )

    def _time_for_more(self, received: int) -> float:
        """Return for how many seconds to wait for more content after `received` bytes of it."""
        context = self._context
        return min(context.idle_stream_timeout, self._deadline - context.now + received / MIN_RATE)

    def _await_token(self, now: float) -> None:
        self.state = _AWAITING_TOKEN
        self._deadline = now + self._context.token_wait
        self._context.tokens.acquire(self)

    def _proceed(self, now: float) -> None:
        """Take small content in before using a connection."""
        head, context = self.head, self._context
        if self._request_done or not (self._replay.held and 0 < head.length <= context.max_replay_body):
            self._connect(now)
            return
        self.state = _AWAITING_CONTENT
        self._deadline = now + context.idle_stream_timeout
        self._ask_for_content()

    def _take_in(self, received: int) -> None:
        """Use a connection once the content is complete, or does not fit into the replay budget."""
        if not self._request_done and self._replay.held:
            self._deadline = self._context.now + self._time_for_more(received)
            return
        now = self._context.clock.now()
        if self._token is not None:
            # Another one may serve better now: one that has come, or that suits a request that is held.
            tokens = self._context.tokens
            self._token = tokens.current(now) if self._request_done else tokens.steady(now)
            if self._token is None:
                self._await_token(now)
                return
        self._connect(now)

    def _ask_for_content(self) -> None:
        """Send the 100 (Continue) that the client waits for, if it does."""
        if self.head.expects_continue and not (
            self._continued or self.record.request_bytes or self._request_done
        ):
            self._continued = True
            self._client.send(CONTINUE)

    def _connect(self, now: float) -> None:
        connection = self._context.pool.take(now)
        if connection is not None:
            self._send(connection, now)
        else:
            self._queue(now)

    def _send(self, connection: UpstreamConnection, now: float) -> None:
        """Send the request's head and what has arrived of its content."""
        context, client, head, record = self._context, self._client, self.head, self.record
        token, replay = self._token, self._replay
        self._upstream = connection
        self.state = _AWAITING_RESPONSE
        pieces = context.request_rules.rewrite(
            head, b"" if token is None else token.header_line, record.request_id, client
        )
        if head.length == CHUNKED:
            pieces.append(_as_chunks(b"".join(replay.pieces), done=self._request_done))
        else:
            pieces += replay.pieces
        connection.begin(self, record.method, b"".join(pieces), upgrading=head.websocket)
        record.sent = now
        if head.expects_continue:
            # Not before there is a connection: without one, the client need not send what is to be streamed.
            self._ask_for_content()
        if not replay.held:
            replay.release()
        if client.blocked:
            connection.pause_reading()
        if self._request_done:
            self._deadline = now + context.response_timeout
        else:
            self._deadline = now + context.idle_stream_timeout
            client.resume_request()

    def _queue(self, now: float) -> None:
        self.state = _AWAITING_CONNECTION
        self._deadline = now + self._context.queue_timeout
        self._patient = False
        if not self._context.pool.wait(self):
            self.fail(problems.OVERLOADED, retry_after=1.0)

    def _check_queue(self, now: float) -> None:
        if not self._patient and self._context.pool.is_connecting:
            # A connection that is being made reports its own end, and may have a second try.
            self._patient = True
            self._deadline = now + self._context.connect_patience
        else:
            self.fail(problems.CONNECTION_TIMEOUT if self._patient else problems.OVERLOADED, retry_after=1.0)

    # Internals: the response.

    def _begin_relay(self, head: ResponseHead, length: int) -> None:
        if self._replay.held:
            self._replay.release()
        self.state = _RELAYING
        self.record.status = head.status
        reusable = self.head.keep_alive and self._request_done and not self._client.draining
        self._relay.begin(head, length, reusable=reusable, date_line=self._context.date.line)

    def _switch(self, head: ResponseHead) -> None:
        self._replay.release()
        self.state = _TUNNEL
        self.record.status = head.status
        self._request_done = False
        self._relay.switch(head)
        self._client.open_tunnel()

    def _end_our_half(self, upstream: UpstreamConnection) -> None:
        if self._relay.complete:
            self._complete()
        else:
            upstream.send_eof()

    def _ask_for_another_token(self) -> None:
        self._asked = True
        self._deadline = self._unauthorized_until
        if not self._relay.complete and self._upstream is not None:
            self._upstream.pause_reading()
        if self._token is not None:
            self._report_refusal(self._token)

    def _take_refusal(
        self, head: ResponseHead, length: int, token: AccessToken, *, sure: bool = True
    ) -> None:
        """Hold a 401 to `token` if the request can be sent again. If not, report it and pass it on."""
        now = self._context.clock.now()
        if not self._unauthorized_until:
            self._unauthorized_until = now + self._context.token_wait
            self._refused = []
        if self._replay.held and now < self._unauthorized_until:
            self.state = _UNAUTHORIZED
            self._deadline = self._unauthorized_until
            self._undecided = not sure
            self._asked = False
            self._relay.hold(head, length)
        else:
            self._begin_relay(head, length)
            if sure:
                self._report_refusal(token)
                self._context.tokens.forget(self)

    def _report_refusal(self, token: AccessToken) -> None:
        repeated = any(each is not token for each in self._refused)
        if token.proven and token not in self._refused:
            self._refused.append(token)
        self._context.tokens.unauthorized(token, self.record.operation, self, repeated=repeated)

    def _take_forbidden(self, head: ResponseHead, length: int, token: AccessToken) -> None:
        if any(each.key == b"www-authenticate" and _INVALID_TOKEN in each.value for each in head.fields):
            self._take_refusal(head, length, token)
        elif 0 < length <= _MAX_ERROR_BODY:
            self._take_refusal(head, length, token, sure=False)
        else:
            self._accept_forbidden(token)
            self._begin_relay(head, length)

    def _decide(self) -> None:
        """Find out whether the 403, which has arrived whole, concerns the token."""
        self._undecided = False
        if self._relay.holds(_INVALID_TOKEN):
            self._ask_for_another_token()
            return
        if self._token is not None:
            self._accept_forbidden(self._token)
        self._relay_unauthorized()

    def _accept_forbidden(self, token: AccessToken) -> None:
        if not token.proven:
            self._context.observer.token_forbidden()
        if self.record.operation not in token.accepted:
            self._context.tokens.accept(token, self.record.operation)

    def _relay_unauthorized(self) -> None:
        """Relay the 401 that was held back."""
        relay = self._relay
        if relay.head is None:
            return
        self._begin_relay(relay.head, relay.length)
        upstream = self._upstream
        if upstream is not None and not self._client.blocked:
            upstream.resume_reading()
        self.response_flush()

    def _drop_response(self) -> None:
        """Drop the 401. Its connection can serve again only if the whole response has arrived."""
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            if self._relay.complete and self._request_done:
                upstream.finish()
            else:
                upstream.abandon()
        self._relay.drop()
        self.record.answered = 0.0
        self.record.response_bytes = 0

    def _check_relay(self, now: float) -> None:
        client = self._client
        unsent = client.unsent()
        if client.blocked and self._unsent - unsent >= MIN_RATE * self._context.idle_stream_timeout:
            self._unsent = unsent
            self._deadline = now + self._context.idle_stream_timeout
        else:
            self.fail(problems.REQUEST_TIMEOUT if client.blocked else problems.RESPONSE_TIMEOUT)

    # Internals: the end.

    def _complete(self) -> None:
        upstream, self._upstream = self._upstream, None
        self.state = _OVER
        self._finish_record()
        if upstream is not None:
            if self._request_done:
                upstream.finish()
            else:
                upstream.abandon()
        self._client.exchange_over(keep_alive=self._relay.keep_alive)

    def _end(self) -> None:
        """End the exchange before the response is complete."""
        state, self.state = self.state, _OVER
        self._replay.release()
        if state is _AWAITING_TOKEN:
            self.record.token_at = self._context.clock.now()
        if state in (_AWAITING_TOKEN, _UNAUTHORIZED):
            self._context.tokens.forget(self)
        elif state is _AWAITING_CONNECTION:
            self._context.pool.cancel(self)
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            upstream.abandon()
        self._finish_record()

    def _finish_record(self) -> None:
        self.record.ended = self._context.clock.now()
        self._context.observer.exchange_ended(self.record)


def _as_chunks(content: bytes, *, done: bool) -> bytes:
    return (encode_chunk(content) if content else b"") + (LAST_CHUNK if done else b"")
