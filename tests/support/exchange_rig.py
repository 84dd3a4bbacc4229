"""A real exchange between fakes of its four neighbours, and what must hold of it at every moment."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from bits_auth_proxy.auth.tokens import AccessToken, TokenUnavailable, TokenWaiter
from bits_auth_proxy.forward.access import Decision
from bits_auth_proxy.forward.context import ForwardContext
from bits_auth_proxy.forward.exchange import Exchange, State
from bits_auth_proxy.forward.headers import (
    REQUEST_FIELDS,
    RESPONSE_FIELDS,
    ClientAuthorization,
    RequestRules,
    ResponseRules,
)
from bits_auth_proxy.forward.ports import ResponseSink
from bits_auth_proxy.forward.problems import Problem
from bits_auth_proxy.forward.replay import ReplayBudget
from bits_auth_proxy.forward.upstream import UpstreamConnection
from bits_auth_proxy.forward.write_batcher import WriteBatcher
from bits_auth_proxy.http1.bodies import ChunkedReader
from bits_auth_proxy.http1.lines import make_field
from bits_auth_proxy.http1.messages import NO_BODY, UNTIL_CLOSE, RequestHead, ResponseHead
from bits_auth_proxy.http1.parsing import RequestParser, ResponseParser
from tests.support.clock import FakeClock
from tests.support.connector import unexpected

if TYPE_CHECKING:
    from bits_auth_proxy.forward.pool import Pool

BUDGET = 1000
MAX_REPLAY = 100
STREAMED = b"Content-Length: 1000\r\n"
"""The length of content that a request may stream, because it says that it is too large to be taken in."""
LIFETIME = 3600.0
TOKEN_WAIT, QUEUE_TIMEOUT, PATIENCE, RESPONSE_TIMEOUT, STREAM_TIMEOUT = 5.0, 5.0, 10.0, 60.0, 50.0


def response_head(text: bytes) -> ResponseHead:
    head = ResponseParser(fields=RESPONSE_FIELDS, max_line=8192, max_head=65_536, max_fields=100).feed(text)
    assert head is not None
    return head


_STATE: Any = vars(Exchange)["state"]


class WatchedExchange(Exchange):
    """An exchange that notes every state it passes through."""

    __slots__ = ("walked",)

    def __init__(self, *arguments: Any, **more: Any) -> None:
        self.walked: list[State] = []
        super().__init__(*arguments, **more)

    @property
    def state(self) -> State:
        found: State = _STATE.__get__(self)
        return found

    @state.setter
    def state(self, state: State) -> None:
        self.walked.append(state)
        _STATE.__set__(self, state)


class FakeClient:
    """Implements `exchange.Client`."""

    peer = "127.0.0.1"
    scheme = b"http"

    def __init__(self) -> None:
        self.blocked = False
        self.draining = False
        self.received = b""
        self.waiting = 0
        self.resumed = 0
        self.tunnels = 0
        self.eofs = 0
        self.over: list[bool] = []
        self.aborts = 0
        self.left = False

    @property
    def ends(self) -> int:
        """How many times the exchange was said to be over, one way or another."""
        return len(self.over) + self.aborts + self.left

    def send(self, data: bytes) -> None:
        assert not self.ends, "bytes behind the end"
        self.received += data

    def unsent(self) -> int:
        return self.waiting

    def resume_request(self) -> None:
        self.resumed += 1

    def open_tunnel(self) -> None:
        self.tunnels += 1

    def send_eof(self) -> None:
        self.eofs += 1

    def exchange_over(self, *, keep_alive: bool) -> None:
        self.over.append(keep_alive)

    def abort(self) -> None:
        self.aborts += 1


class FakeConnection:
    """What an exchange uses of `UpstreamConnection`."""

    def __init__(self, *, served: int = 0) -> None:
        self.served = served
        self.blocked = False
        self.paused = False
        self.sink: ResponseSink | None = None
        self.sent = b""
        self.eofs = 0
        self.answered = self.complete = False
        self.head: ResponseHead | None = None
        self.ends: list[str] = []

    def begin(self, sink: ResponseSink, method: bytes, data: bytes, *, upgrading: bool = False) -> None:
        assert not self.ends
        self.sink = sink
        self.served += 1
        self.sent += data

    def send(self, data: bytes) -> None:
        assert not self.ends, "bytes to a connection that was given back"
        self.sent += data

    def send_eof(self) -> None:
        assert not self.ends
        self.eofs += 1

    def pause_reading(self) -> None:
        assert not self.ends
        self.paused = True

    def resume_reading(self) -> None:
        assert not self.ends
        self.paused = False

    def finish(self) -> None:
        assert self.complete, "a connection whose answer is not whole can't serve again"
        self._end("finished")

    def abandon(self) -> None:
        self._end("abandoned")

    def close(self) -> None:
        self._end("closed")

    def lose(self, problem: Problem) -> None:
        sink = self.sink
        self._end("lost")
        if sink is not None:
            sink.upstream_lost(problem, answered=self.answered)

    def _end(self, how: str) -> None:
        self.ends.append(how)
        self.sink = None


class FakePool:
    """What an exchange uses of `Pool`."""

    def __init__(self) -> None:
        self.idle: list[FakeConnection] = []
        self.waiters: list[Exchange] = []
        self.full = False
        self.distrusted: list[float] = []
        self.is_connecting = True

    def take(self, now: float) -> UpstreamConnection | None:
        return cast("UpstreamConnection", self.idle.pop()) if self.idle else None

    def wait(self, waiter: Exchange) -> bool:
        if not self.full:
            self.waiters.append(waiter)
        return not self.full

    def distrust(self, since: float) -> None:
        self.distrusted.append(since)

    def cancel(self, waiter: Exchange) -> None:
        if waiter in self.waiters:
            self.waiters.remove(waiter)


class FakeTokens:
    """Implements `TokenSource`. With `at_once`, who asks is answered before the call returns."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self.token: AccessToken | None = None
        self.waiters: list[TokenWaiter] = []
        self.at_once: AccessToken | TokenUnavailable | None = None
        self.denials = 0
        self.repeated: list[bool] = []

    def current(self, now: float) -> AccessToken | None:
        token = self.token
        return token if token is not None and now < token.expires_at else None

    def acquire(self, waiter: TokenWaiter) -> None:
        self._ask(waiter)

    steady = current

    def accept(self, token: AccessToken, operation: str) -> None:
        token.accepted.add(operation)

    def explain(self) -> TokenUnavailable:
        return TokenUnavailable("there is no valid token", retry_after=7.0)

    def unauthorized(
        self, token: AccessToken, operation: str, waiter: TokenWaiter, *, repeated: bool
    ) -> None:
        self.denials += 1
        self.repeated.append(repeated)
        self._ask(waiter)

    def forget(self, waiter: TokenWaiter) -> None:
        if waiter in self.waiters:
            self.waiters.remove(waiter)

    def _ask(self, waiter: TokenWaiter) -> None:
        assert waiter not in self.waiters
        if self.at_once is None:
            self.waiters.append(waiter)
        elif isinstance(self.at_once, TokenUnavailable):
            waiter.token_unavailable(self.at_once)
        else:
            waiter.token_ready(self.at_once)


class FakeObserver:
    """Implements `TrafficObserver`."""

    def __init__(self) -> None:
        self.started = 0
        self.ended: list[object] = []
        self.retries: list[str] = []
        self.forbidden = 0

    def exchange_started(self) -> None:
        self.started += 1

    def exchange_ended(self, record: object) -> None:
        self.ended.append(record)

    def handshake_failed(self, detail: str, peer: str) -> None:
        raise AssertionError

    def request_rejected(self, reason: str, peer: str, request_id: bytes, detail: str | None = None) -> None:
        raise AssertionError

    def retried(self, reason: str) -> None:
        self.retries.append(reason)

    def token_forbidden(self) -> None:
        self.forbidden += 1

    def upstream_connected(self, outcome: str, detail: str, duration: float) -> None:
        raise AssertionError

    def crashed(self, error: BaseException) -> None:
        raise AssertionError


class Rig:
    """The exchange of one request, not started yet. Its methods are what the neighbours do to it."""

    def __init__(
        self,
        method: bytes = b"POST",
        *,
        fields: bytes = STREAMED,
        repeatable: bool = False,
        minor: int = 1,
        authorization: ClientAuthorization = ClientAuthorization.REPLACE,
    ) -> None:
        self.clock = FakeClock()
        self.client = FakeClient()
        self.pool = FakePool()
        self.tokens = FakeTokens(self.clock)
        self.observer = FakeObserver()
        self.budget = ReplayBudget(BUDGET)
        self.taken = 0
        """How much of the budget other requests use."""
        self.connections: list[FakeConnection] = []
        self.content = b""
        self.answer_content = b""
        self.context = ForwardContext(
            clock=self.clock,
            tokens=self.tokens,
            pool=cast("Pool", self.pool),
            observer=self.observer,
            batcher=WriteBatcher(lambda _: None, unexpected),
            request_rules=RequestRules(
                authority=b"api", pseudonym=b"us", authorization=authorization, forwarded=False
            ),
            response_rules=ResponseRules(origin=b"https://api"),
            replay_budget=self.budget,
            max_replay_body=MAX_REPLAY,
            token_wait=TOKEN_WAIT,
            queue_timeout=QUEUE_TIMEOUT,
            connect_patience=PATIENCE,
            response_timeout=RESPONSE_TIMEOUT,
            idle_stream_timeout=STREAM_TIMEOUT,
        )
        raw = b"%b /v1/x HTTP/1.%d\r\nHost: a\r\n%b\r\n" % (method, minor, fields)
        head = RequestParser(fields=REQUEST_FIELDS, max_line=8192, max_head=65_536, max_fields=100).feed(raw)
        assert isinstance(head, RequestHead)
        self.request = head
        self.request_done = head.length == NO_BODY
        self.exchange = WatchedExchange(
            self.context,
            self.client,
            head,
            Decision(None, "x", repeatable=repeatable),
            b"r-1",
            self.clock.now(),
        )
        self.started = False
        self.proven = True
        """Whether the API has accepted the tokens that are given."""

    # The client.

    def start(self) -> None:
        self.started = True
        self.exchange.start(self.content, done=self.request_done)

    def body(self, content: bytes, *, done: bool = False) -> None:
        """The next piece of the body, if the exchange takes one now."""
        if self.request_done or self.is_over or not self.exchange.wants_more:
            return
        self.request_done = done
        self.content += content
        if not self.started:
            return
        self.exchange.request_data(content, done=done)

    def tunnel_data(self, content: bytes, *, done: bool = False) -> None:
        self.request_done = done
        self.exchange.request_data(content, done=done)

    def leave(self) -> None:
        """The client goes, as its connection tells the exchange that is under way."""
        if not self.is_over:
            self.client.left = True
            self.exchange.client_gone()

    def block(self) -> None:
        self.client.blocked = True
        self.client.waiting = 100_000
        self.exchange.client_blocked()

    def unblock(self) -> None:
        self.client.blocked = False
        self.client.waiting = 0
        self.exchange.client_writable()

    # The token source.

    def new_token(self, value: str = "first") -> AccessToken:
        token = AccessToken(value, issued_at=self.clock.now(), issued_wall=0.0, lifetime=LIFETIME)
        token.proven = self.proven
        return token

    def give_token(self, value: str = "first") -> None:
        self.tokens.token = self.new_token(value)
        waiters, self.tokens.waiters = self.tokens.waiters, []
        for waiter in waiters:
            waiter.token_ready(self.tokens.token)

    def give_no_token(self, *, permanent: bool = False) -> None:
        waiters, self.tokens.waiters = self.tokens.waiters, []
        for waiter in waiters:
            waiter.token_unavailable(TokenUnavailable("none", retry_after=1.0, permanent=permanent))

    # The budget that all exchanges share.

    def use_budget_up(self) -> None:
        self.taken += self.budget.free
        self.budget.free = 0

    def free_budget(self) -> None:
        self.budget.free += self.taken
        self.taken = 0

    # The pool.

    def make_idle(self, *, served: int = 0) -> None:
        connection = FakeConnection(served=served)
        self.connections.append(connection)
        self.pool.idle.append(connection)

    def connect(self, *, served: int = 0) -> None:
        connection = FakeConnection(served=served)
        self.connections.append(connection)
        self.pool.waiters.pop(0).connection_ready(cast("UpstreamConnection", connection))

    def refuse(self, problem: Problem) -> None:
        self.pool.waiters.pop(0).connection_failed(problem)

    # The API.

    @property
    def connection(self) -> FakeConnection:
        """The one that serves the exchange."""
        (connection,) = [each for each in self.connections if each.sink is not None]
        return connection

    @property
    def is_served(self) -> bool:
        return any(each.sink is not None for each in self.connections)

    def read(
        self,
        *,
        interims: int = 0,
        head: bytes = b"",
        content: Sequence[bytes] = (),
        end: bool = False,
        trailers: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        """One read of the connection, as it tells the exchange about it."""
        connection = self.connection
        sink = connection.sink
        assert sink is not None
        connection.answered = True
        for _ in range(interims):
            sink.response_interim(response_head(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"))
        if head:
            connection.head = response_head(head)
            switched = connection.head.status == 101
            bodiless = self.request.method == b"HEAD"
            length = UNTIL_CLOSE if switched else NO_BODY if bodiless else connection.head.length
            sink.response_head(connection.head, length)
            end = end or length == NO_BODY
        for each in content:
            self.answer_content += each
            sink.response_body(each)
        if end:
            connection.complete = True
            sink.response_end([make_field(*trailer) for trailer in trailers])
        if connection.sink is sink:
            sink.response_flush()

    def lose(self, problem: Problem) -> None:
        self.connection.lose(problem)

    # Time.

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.context.now = self.clock.now()
        if not self.is_over:
            self.exchange.check(self.context.now)

    # What must hold.

    @property
    def is_over(self) -> bool:
        return self.exchange.state is State.OVER

    def answers(self) -> tuple[list[int], bytes]:
        """The statuses in what the client got, interim ones included, and what follows the last head."""
        statuses: list[int] = []
        rest = self.client.received
        while rest and (not statuses or statuses[-1] < 200) and (not statuses or statuses[-1] != 101):
            text, blank, rest = rest.partition(b"\r\n\r\n")
            statuses.append(response_head(text + blank).status)
        return statuses, rest

    def check(self) -> None:
        """Assert the invariants."""
        exchange, client = self.exchange, self.client
        assert self.observer.started == 1
        assert client.ends == len(self.observer.ended) == int(self.is_over)
        statuses, _ = self.answers()
        final = [status for status in statuses if status >= 200 or status == 101]
        assert len(final) <= 1
        if exchange.state not in (State.RELAYING, State.TUNNEL, State.OVER):
            assert not final, "bytes of an answer before one was accepted"
        if final:
            assert exchange.record.status == final[0]
        for connection in self.connections:
            assert len(connection.ends) <= 1
        used = [each for each in self.connections if not each.ends and each not in self.pool.idle]
        assert len(used) <= 1
        for connection in self.connections:
            if connection.sent:
                self._check_request(connection)
        if self.is_over:
            assert not used
            self._check_nothing_is_held()
            if client.over:
                assert final, "over without an answer"

    def _check_request(self, connection: FakeConnection) -> None:
        head, _, body = connection.sent.partition(b"\r\n\r\n")
        fresh = RequestParser(fields=REQUEST_FIELDS, max_line=8192, max_head=65_536, max_fields=100).feed(
            head + b"\r\n\r\n"
        )
        assert fresh is not None
        assert fresh.by_name[b"authorization"].startswith((b"Bearer ", b"Basic own"))
        if self.request.websocket:
            return
        if b"transfer-encoding" in fresh.by_name and body:
            reader = ChunkedReader(max_overhead=10_000, max_fields=10)
            body = reader.feed(body)
            assert not reader.done or self.request_done
        assert self.content.startswith(body), "a body that is not the client's"
        if "finished" in connection.ends:
            assert body == self.content, "a connection given back with a request that is not whole"

    def _check_nothing_is_held(self) -> None:
        exchange = self.exchange
        assert exchange not in self.tokens.waiters
        assert exchange not in self.pool.waiters
        assert exchange._upstream is None
        assert not exchange._replay.held
        assert not exchange._replay.pieces
        assert self.budget.free + self.taken == BUDGET
