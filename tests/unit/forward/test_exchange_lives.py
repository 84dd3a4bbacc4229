"""Exchanges in any order of events: what must hold holds after each, and every step is in the table."""

from itertools import pairwise

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from bits_auth_proxy.auth.tokens import TokenUnavailable
from bits_auth_proxy.forward import problems
from bits_auth_proxy.forward.exchange import State
from bits_auth_proxy.forward.headers import ClientAuthorization
from bits_auth_proxy.http1.messages import NO_BODY
from tests.support.exchange_rig import LIFETIME, MAX_REPLAY, Rig
from tests.unit.forward.test_exchange import documented

# A passing through several states in one call is several steps of the table.
STEPS = {(start, end) for start, _, end in documented()} | {(State.AWAITING_TOKEN, State.AWAITING_TOKEN)}
BODIES = (
    b"",
    b"Content-Length: 40\r\n",
    b"Content-Length: 400\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Expect: 100-continue\r\nContent-Length: 40\r\n",
    b"Expect: 100-continue\r\nContent-Length: 400\r\n",
    b"Authorization: Basic own\r\nContent-Length: 40\r\n",
)
WEBSOCKET = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\n" + WEBSOCKET + b"\r\n"
HEADS = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n\r\n",
    b"HTTP/1.0 200 OK\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 401 No\r\nContent-Length: 4\r\n\r\n",
    b"HTTP/1.1 401 No\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 413 Large\r\nContent-Length: 4\r\nConnection: close\r\n\r\n",
)


class ExchangeLives(RuleBasedStateMachine):
    """One exchange; what can happen to it at a moment is what its neighbours could do then."""

    rig: Rig

    @initialize(
        method=st.sampled_from([b"GET", b"HEAD", b"POST"]),
        fields=st.sampled_from(BODIES),
        websocket=st.sampled_from([True, False, False]),
        repeatable=st.booleans(),
        minor=st.sampled_from([1, 1, 1, 0]),
        authorization=st.sampled_from([ClientAuthorization.REPLACE, ClientAuthorization.KEEP]),
        token=st.booleans(),
        at_once=st.sampled_from(["", "", "", "", "", "other", "none"]),
        idle=st.sampled_from([0, 1, 1, 2]),
        served=st.integers(0, 1),
        draining=st.booleans(),
        early=st.booleans(),
    )
    def begin(
        self,
        method: bytes,
        fields: bytes,
        websocket: bool,
        repeatable: bool,
        minor: int,
        authorization: ClientAuthorization,
        token: bool,
        at_once: str,
        idle: int,
        served: int,
        draining: bool,
        early: bool,
    ) -> None:
        if minor == 0 and b"chunked" in fields:
            minor = 1
        if websocket:
            method, fields, minor = b"GET", WEBSOCKET, 1
        self.rig = rig = Rig(
            method, fields=fields, repeatable=repeatable, minor=minor, authorization=authorization
        )
        self.left = max(rig.request.length, 0) or (80 if rig.request.length else 0)
        self.tunnelled = b""
        if token:
            rig.give_token()
        if at_once == "other":
            rig.tokens.at_once = rig.new_token("at-once")
        elif at_once:
            rig.tokens.at_once = TokenUnavailable("none", retry_after=1.0)
        rig.client.draining = draining
        for _ in range(idle):
            rig.make_idle(served=served)
        if early:
            self._body(10)
        rig.start()

    # The client.

    def _body(self, size: int) -> None:
        rig = self.rig
        # Each byte tells where it belongs.
        content = bytes((self.left - i) % 251 for i in range(min(size, self.left)))
        before = len(rig.content)
        rig.body(content, done=len(content) == self.left)
        self.left -= len(rig.content) - before

    @precondition(lambda self: not self.rig.request_done and not self.rig.is_over and self.left)
    @rule(size=st.sampled_from([1, 7, 50, MAX_REPLAY + 1]))
    def body(self, size: int) -> None:
        self._body(size)

    @precondition(lambda self: self.rig.exchange.state is State.TUNNEL and not self.rig.request_done)
    @rule(content=st.binary(max_size=5), done=st.booleans())
    def tunnel(self, content: bytes, done: bool) -> None:
        self.tunnelled += content
        connection = self.rig.connection
        self.rig.tunnel_data(content, done=done)
        assert connection.sent.endswith(b"\r\n\r\n" + self.tunnelled)

    @precondition(lambda self: not self.rig.is_over)
    @rule(how=st.sampled_from(["leave", "body", "late", "expired", "lost", *["nothing"] * 7]))
    def ending(self, how: str) -> None:
        """What ends most exchanges, all in one rule, so that many live longer than a step or two."""
        rig = self.rig
        if how == "leave":
            rig.leave()
        elif how == "body" and not rig.request_done:
            rig.exchange.fail(problems.BAD_CHUNK)
        elif how == "late":
            rig.pass_time(61.0)
        elif how == "expired":
            rig.clock.advance(LIFETIME + 1)
        elif how == "lost" and rig.is_served:
            rig.lose(problems.CONNECTION_LOST)

    @precondition(lambda self: not self.rig.is_over)
    @rule()
    def block(self) -> None:
        (self.rig.unblock if self.rig.client.blocked else self.rig.block)()

    # The token source, the pool, the API: one of them owes the next step.

    @precondition(lambda self: not self.rig.is_over)
    @rule()
    def budget_changes(self) -> None:
        """The other requests use the budget up, or free it again."""
        (self.rig.free_budget if self.rig.taken else self.rig.use_budget_up)()

    @precondition(lambda self: not self.rig.is_over)
    @rule(full=st.sampled_from([True, False, False, False]), connecting=st.booleans(), idle=st.booleans())
    def pool_changes(self, full: bool, connecting: bool, idle: bool) -> None:
        if idle and not self.rig.pool.idle:
            self.rig.make_idle(served=1)
        self.rig.pool.full = full
        self.rig.pool.is_connecting = connecting

    @precondition(lambda self: not self.rig.is_over)
    @rule(
        fails=st.sampled_from([True, False, False, False, False]),
        token=st.sampled_from(["first", "second", "third"]),
        served=st.integers(0, 1),
        interims=st.sampled_from([0, 0, 1, 2]),
        head=st.sampled_from(HEADS),
        content=st.sampled_from([(), (b"nope",), (b"no", b"pe")]),
        end=st.booleans(),
    )
    def go_on(
        self,
        fails: bool,
        token: str,
        served: int,
        interims: int,
        head: bytes,
        content: tuple[bytes, ...],
        end: bool,
    ) -> None:
        rig = self.rig
        if rig.tokens.waiters:
            rig.give_no_token() if fails else rig.give_token(token)
        elif rig.pool.waiters:
            rig.refuse(problems.CONNECTION_REFUSED) if fails else rig.connect(served=served)
        elif rig.is_served and fails:
            rig.lose(problems.CONNECTION_LOST)
        elif rig.is_served and not rig.connection.paused and not rig.connection.complete:
            self._read(interims, head, content, end)

    def _read(self, interims: int, head: bytes, content: tuple[bytes, ...], end: bool) -> None:
        rig = self.rig
        begun = rig.connection.head
        if begun is None:
            if interims and not content:
                rig.read(interims=interims)
                return
            if end and rig.request.websocket:
                rig.read(interims=interims, head=SWITCH)
                return
            empty = b"Length: 0" in head or b" 204 " in head or rig.request.method == b"HEAD"
            content = () if empty else content
            rig.read(
                interims=interims, head=head, content=content, end=b"Length: 4" in head and bool(content)
            )
        elif begun.length < NO_BODY:
            rig.read(content=content, end=end)
        elif content:
            rig.read(content=content, end=True)

    @precondition(lambda self: self.rig.is_served)
    @rule()
    def upstream_blocks(self) -> None:
        connection = self.rig.connection
        connection.blocked = not connection.blocked
        assert connection.sink is not None
        if not connection.blocked:
            connection.sink.upstream_writable()

    # Time.

    @rule(seconds=st.sampled_from([0.5, 3.0]))
    def pass_time(self, seconds: float) -> None:
        self.rig.pass_time(seconds)

    # What must hold.

    @invariant()
    def all_is_well(self) -> None:
        self.rig.check()
        for step in pairwise(self.rig.exchange.walked):
            assert step in STEPS, step
        for connection in self.rig.connections:
            assert b"Bearer first" not in connection.sent or b"Basic own" not in connection.sent

    def teardown(self) -> None:
        # Whatever happened: when the client goes, nothing is left.
        if hasattr(self, "rig"):
            self.rig.leave()
            assert self.rig.is_over
            self.rig.check()


TestExchangeLives = ExchangeLives.TestCase
TestExchangeLives.settings = settings(
    max_examples=500, stateful_step_count=30, suppress_health_check=[HealthCheck.filter_too_much]
)
