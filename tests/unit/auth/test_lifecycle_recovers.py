"""Whatever the API has refused before, operations that it accepts are soon served again.

The token endpoint is well here. Calls are made one after the other, and sent again as an exchange does.
"""

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bits_auth_proxy.auth import schedule
from bits_auth_proxy.auth.lifecycle import Lifecycle, Replacement
from bits_auth_proxy.auth.tokens import AccessToken
from tests.support.clock import FakeClock

PATIENCE = 5.0


class World:
    """A lifecycle, a token endpoint that always grants, and an API."""

    def __init__(self, seed: int, *, lifetime: float = 600.0) -> None:
        self.clock = FakeClock()
        self.life = Lifecycle(now=self.clock.now(), rng=Random(seed))
        self.lag = 0.0
        self.lifetime = lifetime
        self.known_at: dict[AccessToken, float] = {}
        self.revoked: set[AccessToken] = set()
        self.issued: list[AccessToken] = []
        self.refused_operations: set[str] = set()
        self.tick()

    def tick(self) -> None:
        """Begin and end the flight that is due."""
        now = self.clock.now()
        reason = self.life.flight_due(now, self.clock.wall(), wanted=self.life.current(now) is None)
        if reason is None:
            return
        self.life.flight_started(now, reason)
        token = AccessToken(
            f"token-{len(self.issued)}",
            issued_at=now,
            issued_wall=self.clock.wall(),
            lifetime=self.lifetime,
            margin=schedule.safety_margin(self.lifetime),
        )
        self.issued.append(token)
        self.known_at[token] = now + self.lag
        self.life.obtained(token, now)

    def wait(self, seconds: float) -> None:
        end = self.clock.now() + seconds
        while self.clock.now() < end:
            self.clock.advance(min(0.05, end - self.clock.now()))
            self.tick()

    def accepts(self, token: AccessToken, operation: str) -> bool:
        known = self.clock.now() >= self.known_at[token]
        return known and token not in self.revoked and operation not in self.refused_operations

    def call(self, operation: str) -> bool:
        """Return whether the API accepts the call in the end."""
        deadline = self.clock.now() + PATIENCE
        refused: list[AccessToken] = []
        token = self.life.current(self.clock.now())
        assert token is not None
        while not self.accepts(token, operation):
            repeated = any(each is not token for each in refused)
            if token.proven and token not in refused:
                refused.append(token)
            now = self.clock.now()
            said = self.life.unauthorized(token, operation, now, repeated=repeated)
            following: AccessToken | None = None
            if said is Replacement.AT_HAND:
                following = self.life.alternative(token, now)
            elif said is Replacement.AGAIN:
                self.wait(max(0.05, self.life.try_at - now))
                following = self.life.current(self.clock.now())
            elif said is Replacement.COMING:
                count = len(self.issued)
                while len(self.issued) == count and self.clock.now() < deadline:
                    self.wait(0.05)
                following = self.life.current(self.clock.now())
            if following is None or following in refused or self.clock.now() > deadline:
                return False
            token = following
        if operation not in token.accepted:
            self.life.accepted(token, operation)
        return True


EVENTS = [
    st.tuples(st.just("wait"), st.sampled_from((0.1, 1.0, 4.0, 20.0, 40.0, 500.0))),
    st.tuples(st.just("call"), st.sampled_from("abz")),
    st.tuples(st.just("revoke all"), st.none()),
    st.tuples(st.just("revoke newest"), st.none()),
    st.tuples(st.just("refresh"), st.none()),
]
LAGS = st.tuples(st.just("lag"), st.sampled_from((0.0, 2.0, 4.0)))


def play(world: World, events: list[tuple[str, object]]) -> None:
    for name, value in [("call", "a"), ("call", "b"), *events]:
        if name == "wait":
            assert isinstance(value, float)
            world.wait(value)
        elif name == "call":
            accepted = world.call(str(value))
            assert not (accepted and value == "z")
        elif name == "revoke all":
            world.revoked |= set(world.issued)
        elif name == "revoke newest":
            world.revoked.add(world.issued[-1])
        elif name == "lag":
            assert isinstance(value, float)
            world.lag = value
        else:
            world.life.requested(world.clock.now())
            world.tick()


def outcomes_within(world: World, seconds: float) -> list[bool]:
    """Return whether each call was accepted in the end, of many in so many seconds."""
    end, asked = world.clock.now() + seconds, len(world.issued)
    outcomes = []
    while world.clock.now() < end:
        outcomes += [world.call("a"), world.call("b")]
        world.wait(0.2)
    assert len(world.issued) - asked <= 8
    return outcomes


@given(seed=st.integers(0, 1000), events=st.lists(st.one_of(EVENTS), max_size=40))
@settings(max_examples=200, deadline=None)
def test_operations_that_the_api_accepts_are_always_served(
    seed: int, events: list[tuple[str, object]]
) -> None:
    world = World(seed)
    world.refused_operations = {"z"}
    play(world, events)
    # Only where tokens have died young again and again is there a pace, of 4 s at most.
    assert all(outcomes_within(world, 10)[-4:])


@given(seed=st.integers(0, 1000), events=st.lists(st.one_of(*EVENTS, LAGS), max_size=40))
@settings(max_examples=200, deadline=None)
def test_with_lag_too_they_are_served_again(seed: int, events: list[tuple[str, object]]) -> None:
    world = World(seed)
    world.refused_operations = {"z"}
    play(world, events)
    # New tokens that are refused as well are replaced after 30 s.
    assert all(outcomes_within(world, 45)[-4:])


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("lifetime", [10.0, 14.0, 30.0])
def test_an_api_that_learns_of_tokens_late_fails_no_call_however_short_they_live(
    seed: int, lifetime: float
) -> None:
    world = World(seed, lifetime=lifetime)
    world.call("a")
    world.wait(3)
    world.lag = 5.0
    began = world.clock.now()
    for _ in range(200):
        if world.life.current(world.clock.now()) is not None:
            assert world.call("a")
        world.wait(0.3)
    # A token that is unknown when the one before it ends is replaced once more.
    assert len(world.issued) <= 2 * (world.clock.now() - began) / (0.7 * lifetime) + 2
