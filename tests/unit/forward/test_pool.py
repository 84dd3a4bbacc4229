"""The pool: who gets which connection, how many there are, and when one is made or dropped."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bits_auth_proxy.forward import problems
from bits_auth_proxy.forward.pool import Pool
from bits_auth_proxy.forward.problems import Problem
from bits_auth_proxy.forward.upstream import UpstreamConnection
from bits_auth_proxy.tasks import TaskOwner
from tests.support.clock import FakeClock
from tests.support.connector import FakeConnector
from tests.support.timers import settle


class Waiter:
    """An exchange that waits, and notes what it hears."""

    def __init__(self) -> None:
        self.connections: list[UpstreamConnection] = []
        self.problems: list[Problem] = []

    def connection_ready(self, connection: UpstreamConnection) -> None:
        self.connections.append(connection)

    def connection_failed(self, problem: Problem) -> None:
        self.problems.append(problem)

    @property
    def connection(self) -> UpstreamConnection:
        (connection,) = self.connections
        return connection

    @property
    def waits(self) -> bool:
        return not self.connections and not self.problems


class Watcher:
    """The observer, of which the pool uses one method."""

    def __init__(self) -> None:
        self.connects: list[tuple[str, float]] = []

    def exchange_started(self) -> None:
        raise AssertionError

    def exchange_ended(self, record: object) -> None:
        raise AssertionError

    def handshake_failed(self, detail: str, peer: str) -> None:
        raise AssertionError

    def request_rejected(self, reason: str, peer: str, request_id: bytes, detail: str | None = None) -> None:
        raise AssertionError

    def retried(self, reason: str) -> None:
        raise AssertionError

    def token_forbidden(self) -> None:
        raise AssertionError

    def upstream_connected(self, outcome: str, detail: str, duration: float) -> None:
        self.connects.append((outcome, duration))

    def crashed(self, error: BaseException) -> None:
        raise AssertionError


class Made:
    """A pool and all around it."""

    def __init__(
        self,
        *,
        max_connections: int = 3,
        queue_limit: int = 4,
        max_age: float = 1800.0,
        warm_connections: int = 0,
        warm_for: float = 3600.0,
    ) -> None:
        self.clock = FakeClock()
        self.connector = FakeConnector(self.clock)
        self.watcher = Watcher()
        self.crashes: list[BaseException] = []
        self.tasks = TaskOwner(self.crashes.append)
        self.pool = Pool(
            connector=self.connector,
            clock=self.clock,
            rng=random.Random(7),
            tasks=self.tasks,
            observer=self.watcher,
            max_connections=max_connections,
            queue_limit=queue_limit,
            idle_timeout=55.0,
            max_age=max_age,
            warm_connections=warm_connections,
            warm_for=warm_for,
        )

    def take(self) -> UpstreamConnection | None:
        return self.pool.take(self.clock.now())

    def wait(self) -> Waiter:
        waiter = Waiter()
        assert self.pool.wait(waiter)
        return waiter

    async def connected(self) -> UpstreamConnection:
        """A new connection, in use."""
        waiter = self.wait()
        await self.connector.succeed()
        return waiter.connection

    async def tick(self, seconds: float = 0.0) -> None:
        """Let `seconds` pass, in the gateway's steps."""
        self.pool.tick(self.clock.now())
        await settle()
        for _ in range(round(seconds * 2)):
            self.clock.advance(0.5)
            self.pool.tick(self.clock.now())
            await settle()

    def counts(self) -> tuple[int, int, int]:
        counts = self.pool.counts()
        return counts["active"], counts["idle"], counts["connecting"]


Make = Callable[..., Made]


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    made: list[Made] = []

    def build(**limits: float) -> Made:
        made.append(Made(**limits))  # type: ignore[arg-type]  # ints and floats by name
        return made[-1]

    yield build
    for each in made:
        each.pool.abort()
        await each.tasks.close()
        await settle()
        assert each.crashes == []


# Taking and giving back.


async def test_the_last_one_in_is_the_first_one_out(make: Make) -> None:
    its = make()
    first, second, third = [await its.connected() for _ in range(3)]
    for connection in (second, third, first):
        its.pool.release(connection)
    assert [its.take() for _ in range(4)] == [first, third, second, None]


async def test_a_connection_is_made_for_who_waits(make: Make) -> None:
    its = make()
    assert its.take() is None
    waiter = its.wait()
    assert waiter.waits
    assert its.pool.is_connecting
    assert its.counts() == (0, 0, 1)
    its.clock.advance(0.25)
    connection = await its.connector.succeed()
    assert waiter.connection is connection
    assert not its.pool.is_connecting
    assert its.counts() == (1, 0, 0)
    assert its.watcher.connects == [("ok", pytest.approx(0.0))] or its.watcher.connects[0][0] == "ok"


async def test_a_returned_connection_goes_to_who_waits_longest_and_the_new_one_becomes_idle(
    make: Make,
) -> None:
    its = make()
    connection = await its.connected()
    first, second = its.wait(), its.wait()
    its.pool.release(connection)
    assert first.connection is connection
    assert second.waits
    made = await its.connector.succeed()
    assert second.connection is made
    spare = await its.connector.succeed()
    assert its.take() is spare


async def test_who_has_left_gets_nothing(make: Make) -> None:
    its = make()
    waiter = its.wait()
    its.pool.cancel(waiter)
    its.pool.cancel(waiter)
    connection = await its.connector.succeed()
    assert waiter.waits
    assert its.take() is connection


async def test_a_closed_connection_is_not_handed_out(make: Make) -> None:
    its = make()
    good, bad = await its.connected(), await its.connected()
    its.pool.release(good)
    its.pool.release(bad)
    bad.abandon()
    assert its.take() is good
    await settle()
    assert its.counts() == (1, 0, 0)


async def test_an_idle_connection_that_closes_is_forgotten(make: Make) -> None:
    its = make()
    connection = await its.connected()
    its.pool.release(connection)
    assert its.counts() == (0, 1, 0)
    connection.close()
    await settle()
    assert its.counts() == (0, 0, 0)
    assert its.take() is None


# Limits.


async def test_there_are_never_more_connections_than_allowed(make: Make) -> None:
    its = make(max_connections=2, queue_limit=4)
    waiters = [its.wait() for _ in range(4)]
    await settle()
    assert its.connector.pending == 2
    first = await its.connector.succeed()
    await its.connector.succeed()
    assert its.connector.attempts == 2
    assert [waiter.waits for waiter in waiters] == [False, False, True, True]
    its.pool.release(first)
    assert waiters[2].connection is first
    # A lost one makes room for another.
    first.abandon()
    await settle()
    assert its.connector.attempts == 3
    assert (await its.connector.succeed()) is waiters[3].connection


async def test_the_queue_is_bounded(make: Make) -> None:
    its = make(max_connections=1, queue_limit=2)
    waiters = [its.wait(), its.wait()]
    late = Waiter()
    assert not its.pool.wait(late)
    connection = await its.connector.succeed()
    assert waiters[0].connection is connection
    # There is room again, and who was turned away is not remembered.
    third = its.wait()
    its.pool.release(connection)
    its.pool.release(connection)
    assert third.connection is connection
    assert late.waits


async def test_who_waits_with_all_places_taken_by_idle_connections_gets_a_new_one(make: Make) -> None:
    its = make(max_connections=2)
    first, second = await its.connected(), await its.connected()
    its.pool.release(first)
    its.pool.release(second)
    waiter = its.wait()
    made = await its.connector.succeed()
    assert waiter.connection is made
    assert not first.is_open
    assert its.take() is second


EVENTS = ["wait", "ok", "fail", "release", "lose", "cancel", "tick", "late"]


class Story:
    """A pool under any order of events, and what must hold after each."""

    def __init__(self) -> None:
        self.its = Made(max_connections=2, queue_limit=3, max_age=120.0, warm_connections=1)
        self.waiters: list[Waiter] = []
        self.held: list[UpstreamConnection] = []

    async def happen(self, event: str) -> None:
        connector, pool = self.its.connector, self.its.pool
        match event:
            case "wait":
                self.ask()
            case "ok" if connector.pending:
                await connector.succeed()
            case "fail" if connector.pending:
                await connector.fail(problems.CONNECTION_REFUSED)
            case "release" if self.held:
                pool.release(self.held.pop())
            case "lose" if self.held:
                self.held.pop().abandon()
            case "cancel" if self.waiters:
                pool.cancel(self.waiters.pop())
            case _:
                await self.its.tick(20.0 if event == "late" else 0.5)
        await settle()

    def ask(self) -> None:
        if (taken := self.its.take()) is not None:
            assert taken.is_open
            assert taken not in self.held
            self.held.append(taken)
        elif self.its.pool.wait(waiter := Waiter()):
            self.waiters.append(waiter)

    def check(self) -> None:
        for waiter in [each for each in self.waiters if not each.waits]:
            assert len(waiter.connections) + len(waiter.problems) == 1
            self.held += waiter.connections
            self.waiters.remove(waiter)
        assert len(set(map(id, self.held))) == len(self.held)
        active, idle, connecting = self.its.counts()
        assert active == len(self.held)
        assert active + idle + connecting <= 2
        assert len(self.waiters) <= 3
        # Nobody waits while there is room.
        assert not self.waiters or connecting or active == 2

    async def end(self) -> None:
        self.its.pool.abort()
        await self.its.tasks.close()
        await settle()
        assert self.its.counts() == (0, 0, 0)
        assert self.its.crashes == []


@given(st.lists(st.sampled_from(EVENTS), max_size=40))
def test_whatever_happens_the_limits_hold_and_nobody_is_told_twice(events: list[str]) -> None:
    async def run() -> None:
        story = Story()
        for event in events:
            await story.happen(event)
            story.check()
        await story.end()

    asyncio.run(run())


# Failures.


async def test_a_failed_attempt_is_told_to_one_who_waits(make: Make) -> None:
    its = make(max_connections=1)
    first, second = its.wait(), its.wait()
    await its.connector.fail(problems.DNS_ERROR)
    assert first.problems == [problems.DNS_ERROR]
    assert second.waits
    # The next one has an attempt of its own.
    connection = await its.connector.succeed()
    assert second.connection is connection
    assert [outcome for outcome, _ in its.watcher.connects] == ["dns_error", "ok"]


async def test_the_duration_of_an_attempt_is_told(make: Make) -> None:
    its = make()
    its.wait()
    await settle()
    its.clock.advance(2.5)
    await its.connector.fail(problems.CONNECTION_TIMEOUT)
    its.wait()
    await settle()
    its.clock.advance(0.5)
    await its.connector.succeed()
    assert its.watcher.connects == [("connection_timeout", 2.5), ("ok", 0.5)]


async def test_a_crash_of_the_connector_is_reported_and_costs_no_place(make: Make) -> None:
    its = make(max_connections=1)
    waiter = its.wait()
    await its.connector.crash(RuntimeError("bug"))
    assert [str(error) for error in its.crashes] == ["bug"]
    its.crashes.clear()
    its.pool.cancel(waiter)
    assert (await its.connected()).is_open


# Age.


async def test_an_idle_connection_is_dropped_after_its_time(make: Make) -> None:
    its = make()
    connection = await its.connected()
    its.pool.release(connection)
    await its.tick(54.5)
    assert connection.is_open
    await its.tick(0.5)
    assert not connection.is_open
    assert its.counts() == (0, 0, 0)


async def test_one_past_its_time_is_not_taken_even_before_the_tick(make: Make) -> None:
    its = make()
    connection = await its.connected()
    its.pool.release(connection)
    its.clock.advance(55.0)
    assert its.take() is None
    assert not connection.is_open


async def test_use_starts_the_idle_time_anew(make: Make) -> None:
    its = make()
    connection = await its.connected()
    for _ in range(3):
        its.pool.release(connection)
        await its.tick(40.0)
        assert its.take() is connection


@pytest.mark.parametrize(("announced", "kept"), [(10, 9.0), (2, 1.0), (300, 55.0)])
async def test_a_connection_goes_a_second_before_the_api_would_drop_it(
    make: Make, announced: int, kept: float
) -> None:
    its = make()
    connection = await its.connected()
    connection.keep_alive_timeout = announced
    its.pool.release(connection)
    its.clock.advance(kept - 0.01)
    assert its.take() is connection
    its.pool.release(connection)
    its.clock.advance(kept)
    assert its.take() is None


@pytest.mark.parametrize("announced", [0, 1])
async def test_one_that_would_be_dropped_at_once_is_not_kept(make: Make, announced: int) -> None:
    its = make()
    connection = await its.connected()
    connection.keep_alive_timeout = announced
    its.pool.release(connection)
    assert not connection.is_open
    assert its.take() is None


async def test_an_old_connection_is_not_used_again(make: Make) -> None:
    its = make(max_age=100.0)
    connection = await its.connected()
    await its.tick(100.0)
    its.pool.release(connection)
    assert connection.is_open
    assert its.take() is connection
    its.clock.advance(0.5)
    waiter = its.wait()
    its.pool.release(connection)
    assert not connection.is_open
    assert waiter.waits
    assert (await its.connector.succeed()) is waiter.connection


async def test_an_idle_one_that_grows_old_is_dropped(make: Make) -> None:
    its = make(max_age=100.0)
    connection = await its.connected()
    await its.tick(80.0)
    its.pool.release(connection)
    await its.tick(20.0)
    assert connection.is_open
    await its.tick(0.5)
    assert not connection.is_open


# The warm spare.


async def test_a_spare_is_made_without_any_request(make: Make) -> None:
    its = make(warm_connections=1)
    await its.tick(1.0)
    assert its.connector.attempts == 1
    spare = await its.connector.succeed()
    await its.tick(10.0)
    assert its.connector.attempts == 1
    assert its.take() is spare


async def test_without_warm_connections_none_is_made(make: Make) -> None:
    its = make(warm_connections=0)
    await its.tick(120.0)
    assert its.connector.attempts == 0


async def test_the_spare_has_a_successor_before_it_ends(make: Make) -> None:
    its = make(warm_connections=1)
    await its.tick()
    spare = await its.connector.succeed()
    started = its.clock.now()
    while its.connector.attempts == 1:
        await its.tick(0.5)
    # 0.72 to 0.91 of 55 s, and at most a tick late.
    assert 0.72 * 55 <= its.clock.now() - started <= 0.91 * 55 + 0.5
    assert spare.is_open
    successor = await its.connector.succeed()
    assert its.take() is successor
    await its.tick(20.0)
    assert not spare.is_open


async def test_a_spare_is_there_all_the_time_and_costs_few_connections(make: Make) -> None:
    its = make(warm_connections=1)
    await its.tick()
    await its.connector.succeed()
    for _ in range(1200):
        await its.tick(0.5)
        if its.connector.pending:
            await its.connector.succeed()
        assert 1 <= its.counts()[1] <= 2
    assert 600 / (0.91 * 55 + 1) <= its.connector.attempts <= 600 / (0.72 * 55) + 1


async def test_the_spare_is_given_up_an_hour_after_the_last_request(make: Make) -> None:
    its = make(warm_connections=1, warm_for=100.0)
    await its.tick()
    await its.connector.succeed()
    await its.tick(60.0)
    made = its.connector.attempts
    assert made == 2
    await its.connector.succeed()
    await its.tick(200.0)
    assert its.connector.attempts == made
    assert its.counts() == (0, 0, 0)
    # A request brings it back.
    assert its.take() is None
    its.pool.release(await its.connected())
    await its.tick(60.0)
    assert its.connector.attempts == made + 2


async def test_when_no_spare_can_be_made_the_pauses_grow(make: Make) -> None:
    its = make(warm_connections=1, warm_for=10_000.0)
    await its.tick()
    instants = []
    for _ in range(9):
        instants.append(its.clock.now())
        await its.connector.fail(problems.CONNECTION_REFUSED)
        while not its.connector.pending:
            await its.tick(0.5)
    pauses = [after - before for before, after in pairwise(instants)]
    for i, pause in enumerate(pauses):
        most = min(30.0, 2.0**i)
        assert most / 2 <= pause <= most + 0.5
    # After a success it starts from the beginning.
    (await its.connector.succeed()).close()
    await settle()
    await its.tick()
    begun = its.clock.now()
    await its.connector.fail(problems.CONNECTION_REFUSED)
    while not its.connector.pending:
        await its.tick(0.5)
    assert its.clock.now() - begun <= 1.5


async def test_a_fresh_idle_connection_is_not_given_up_for_a_spare(make: Make) -> None:
    its = make(max_connections=2, warm_connections=2)
    busy, idle = await its.connected(), await its.connected()
    its.pool.release(idle)
    await its.tick(20.0)
    assert its.connector.attempts == 2
    assert idle.is_open
    assert its.take() is idle
    assert busy.is_open


async def test_a_spare_is_renewed_even_where_there_is_room_for_one_only(make: Make) -> None:
    its = make(max_connections=1, warm_connections=1)
    await its.tick()
    spare = await its.connector.succeed()
    await its.tick(52.0)
    assert its.connector.attempts == 2
    assert not spare.is_open
    assert (await its.connector.succeed()) is its.take()


# The end.


async def test_abort_drops_everything_at_once_and_nothing_is_made_after_it(make: Make) -> None:
    its = make(warm_connections=1)
    busy, idle = await its.connected(), await its.connected()
    its.pool.release(idle)
    its.pool.abort()
    assert not busy.is_open
    assert not idle.is_open
    await settle()
    assert its.counts() == (0, 0, 0)
    assert its.take() is None
    await its.tick(60.0)
    assert its.connector.pending == 0
