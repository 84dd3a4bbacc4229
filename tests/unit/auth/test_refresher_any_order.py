"""The refresher with everything around it, whatever happens in whatever order."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from bits_auth_proxy.auth.bits_oauth import FAILURE_KINDS, ClientCredentials, FailureKind
from bits_auth_proxy.auth.tokens import AccessToken, TokenUnavailable
from tests.support.clock import FakeClock
from tests.support.refresher_stage import RefresherStage
from tests.support.timers import settle

DURATIONS = st.sampled_from((0.0, 0.3, 1.0, 9.0, 31.0, 300.0, 3000.0)) | st.floats(0, 5000)
LIFETIMES = st.sampled_from((1.0, 2.0, 60.0, 3600.0)) | st.floats(1, 7200)


class Caller:
    """A `TokenWaiter` who checks what it is told."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self.told = 0
        self.faults: list[str] = []

    def token_ready(self, token: AccessToken) -> None:
        self.told += 1
        if self._clock.now() >= token.expires_at:
            self.faults.append("got an expired token")

    def token_unavailable(self, reason: TokenUnavailable) -> None:
        self.told += 1
        if reason.retry_after < 1.0:
            self.faults.append("shall come back at once")


class AnyOrder(RuleBasedStateMachine):
    """Events from all sides; after each the promises hold, and in the end everybody is served."""

    @initialize(seed=st.integers(0, 2**16))
    def begin(self, seed: int) -> None:
        self.loop = asyncio.new_event_loop()
        stage = RefresherStage(seed)
        self.clock, self.timers, self.endpoint = stage.clock, stage.timers, stage.endpoint
        self.log, self.tasks, self.it = stage.log, stage.tasks, stage.it
        self.pairs = 1
        self.callers: list[Caller] = []
        self.tokens: list[AccessToken] = []
        self.do(self.it.start)

    def do(self, action: Callable[..., object], *args: object, **more: object) -> None:
        """Do something in the loop, and let everything run."""

        async def act() -> None:
            action(*args, **more)
            await settle()

        self.run(act())

    def run(self, what: Coroutine[Any, Any, None]) -> None:
        self.loop.run_until_complete(what)
        if (token := self.it.status().token) is not None and token not in self.tokens:
            self.tokens.append(token)

    def teardown(self) -> None:
        if not hasattr(self, "loop"):
            return
        try:
            self.in_the_end_everybody_is_served()
        finally:
            self.it.close()
            self.loop.run_until_complete(self.tasks.close())
            self.loop.close()

    def called(self) -> Caller:
        caller = Caller(self.clock)
        self.callers.append(caller)
        self.do(self.it.acquire, caller)
        return caller

    def in_the_end_everybody_is_served(self) -> None:
        """The endpoint is well again: from every state a token comes within the longest pace."""
        caller = self.called()
        for _ in range(400):
            while self.endpoint.pending:
                self.do(self.endpoint.grant)
            well = self.it.current(self.clock.now()) is not None
            told = all(each.told for each in self.callers)
            if well and told and self.it.status().consecutive_failures == 0:
                break
            self.run(self.timers.advance(1.0, step=1.0))
        self.promises_hold()
        assert self.it.current(self.clock.now()) is not None
        assert caller.told == 1
        assert all(each.told == 1 for each in self.callers)

    # What happens.

    @rule(seconds=DURATIONS)
    def time_passes(self, seconds: float) -> None:
        self.run(self.timers.advance(seconds, step=max(0.5, seconds / 20)))

    @rule(seconds=DURATIONS)
    def the_machine_sleeps(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(seconds=st.floats(-1e6, 1e6))
    def the_wall_clock_jumps(self, seconds: float) -> None:
        self.clock.jump_wall(seconds)

    @rule()
    def asks(self) -> None:
        self.called()

    @precondition(lambda self: self.tokens)
    @rule(data=st.data(), operation=st.sampled_from("xyz"), repeated=st.booleans())
    def the_api_refuses(self, data: st.DataObject, operation: str, repeated: bool) -> None:
        token = data.draw(st.sampled_from(self.tokens))
        caller = Caller(self.clock)
        self.callers.append(caller)
        self.do(self.it.unauthorized, token, operation, caller, repeated=repeated)

    @precondition(lambda self: self.tokens)
    @rule(data=st.data(), operation=st.sampled_from("xyz"))
    def the_api_accepts(self, data: st.DataObject, operation: str) -> None:
        self.do(self.it.accept, data.draw(st.sampled_from(self.tokens)), operation)

    @precondition(lambda self: self.callers)
    @rule(data=st.data())
    def gives_up(self, data: st.DataObject) -> None:
        caller = data.draw(st.sampled_from(self.callers))
        self.callers.remove(caller)
        self.do(self.it.forget, caller)

    @rule(back=st.booleans())
    def the_credentials_change(self, back: bool) -> None:
        self.pairs += not back
        self.do(self.it.change_credentials, ClientCredentials(f"pair-{self.pairs - 1}", "s"))

    @rule()
    def an_operator_asks(self) -> None:
        self.do(self.it.refresh)

    @precondition(lambda self: self.endpoint.pending)
    @rule(lifetime=LIFETIMES)
    def the_endpoint_grants(self, lifetime: float) -> None:
        self.do(self.endpoint.grant, lifetime)

    @precondition(lambda self: self.endpoint.pending)
    @rule(kind=st.sampled_from(FAILURE_KINDS), retry_after=st.none() | st.floats(0, 1e6))
    def the_endpoint_fails(self, kind: FailureKind, retry_after: float | None) -> None:
        self.do(self.endpoint.fail, kind, retry_after=retry_after)

    @precondition(lambda self: self.endpoint.pending)
    @rule()
    def something_crashes(self) -> None:
        self.do(self.endpoint.crash, RuntimeError("a bug"))
        assert len(self.log.crashes) == 1
        self.log.crashes.clear()

    @precondition(lambda self: self.endpoint.pending)
    @rule()
    def somebody_cancels(self) -> None:
        for task in list(self.tasks._tasks):
            self.do(task.cancel)

    # What holds all the time.

    @invariant()
    def promises_hold(self) -> None:
        # One flight, and those that are overdue: at least 2.5 s apart, and cancelled after 10 s.
        assert len(self.endpoint.pending) <= 5
        assert not self.it.status().in_flight or self.endpoint.pending
        assert self.timers.waiting == 1, "no next action"
        current = self.it.current(self.clock.now())
        assert current is None or self.clock.now() < current.expires_at
        assert [fault for caller in self.callers for fault in caller.faults] == []
        assert all(caller.told <= 1 for caller in self.callers)
        assert self.log.crashes == []


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
