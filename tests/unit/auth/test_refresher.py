from collections.abc import AsyncIterator
from itertools import pairwise
from typing import cast

import pytest

from bits_auth_proxy.auth.bits_oauth import ClientCredentials, FailureKind
from bits_auth_proxy.auth.tokens import AccessToken, TokenState
from tests.support.refresher_stage import RefresherStage
from tests.support.timers import settle
from tests.support.token_endpoint import Waiter


@pytest.fixture
async def stage() -> AsyncIterator[RefresherStage]:
    made = RefresherStage()
    yield made
    made.it.close()
    await made.tasks.close()
    assert made.timers.waiting == 0


async def test_all_who_wait_for_the_first_token_share_one_flight(stage: RefresherStage) -> None:
    waiters = [stage.waiter() for _ in range(500)]
    stage.it.start()
    await settle()
    assert stage.endpoint.asked == ["old"]
    stage.endpoint.grant()
    await settle()
    assert {waiter.token for waiter in waiters} == {stage.current()}
    assert {waiter.calls for waiter in waiters} == {1}


async def test_a_token_in_hand_is_handed_out_at_once(stage: RefresherStage) -> None:
    token = await stage.begin()
    assert stage.waiter().token is token


async def test_a_refresh_in_the_background_keeps_nobody_waiting(stage: RefresherStage) -> None:
    token = await stage.begin()
    while not stage.endpoint.pending:
        await stage.timers.advance(1.0)
    assert stage.state() is TokenState.STALE
    assert stage.waiter().token is token
    stage.endpoint.grant()
    await settle()
    assert stage.current() is not token
    assert stage.log.obtained == ["start", "scheduled"]


async def test_the_lifetime_counts_from_before_the_request_was_sent(stage: RefresherStage) -> None:
    stage.it.start()
    await settle()
    sent = stage.clock.now()
    stage.clock.advance(20)
    stage.endpoint.grant(3600)
    await settle()
    token = stage.current()
    assert token is not None
    assert token.expires_at == sent + 3600 - 30


async def test_tokens_of_four_seconds_are_always_valid(stage: RefresherStage) -> None:
    stage.endpoint.automatic = 4.0
    stage.it.start()
    await settle()
    for _ in range(600):
        await stage.timers.advance(0.1, step=0.1)
        assert stage.current() is not None
    assert 60 / 3.3 <= stage.endpoint.issued <= 60 / 2.7


async def test_failures_are_repeated_with_backoff_while_the_token_serves(stage: RefresherStage) -> None:
    token = await stage.begin()
    for _ in range(int(3500 / 5)):
        await stage.timers.advance(5)
        while stage.endpoint.pending:
            stage.endpoint.fail("connect")
            await settle()
        assert stage.current() is token or stage.clock.now() >= token.expires_at
    assert stage.it.status().consecutive_failures == len(stage.log.failed)
    assert {reason for _, reason in stage.log.failed} == {"scheduled", "retry"}
    assert 30 <= len(stage.log.failed) <= 120


async def test_who_waits_without_a_token_sees_the_next_attempt_succeed(stage: RefresherStage) -> None:
    stage.it.start()
    await settle()
    waiter = stage.waiter()
    stage.endpoint.fail()
    await settle()
    assert waiter.calls == 0
    await stage.timers.advance(2.0)
    stage.endpoint.grant()
    await settle()
    assert waiter.token is stage.current()


async def test_who_waits_without_a_token_has_the_endpoint_asked_again_after_a_second(
    stage: RefresherStage,
) -> None:
    stage.it.start()
    await settle()
    stage.waiter()
    for number in range(1, 10):
        asked = stage.clock.now()
        await stage.timers.advance(0.3, step=0.1)
        stage.endpoint.fail()
        await settle()
        while not stage.endpoint.pending:
            await stage.timers.advance(0.01, step=0.01)
        assert stage.clock.now() - asked == pytest.approx(1.0, abs=0.02), number


async def test_who_gave_up_hears_nothing(stage: RefresherStage) -> None:
    stage.it.start()
    await settle()
    waiter = stage.waiter()
    stage.it.forget(waiter)
    stage.endpoint.grant()
    await settle()
    assert waiter.calls == 0
    token = stage.current()
    assert token is not None
    stage.it.accept(token, "x")
    refused = stage.unauthorized(token)
    await settle()
    stage.it.forget(refused)
    stage.endpoint.grant()
    await settle()
    assert refused.calls == 0


async def test_it_looks_at_the_clock_once_a_second(stage: RefresherStage) -> None:
    await stage.begin()
    made = stage.timers.made
    await stage.timers.advance(100, step=0.1)
    assert 90 <= stage.timers.made - made <= 101


async def test_an_operator_is_told_when_the_flight_begins(stage: RefresherStage) -> None:
    await stage.begin()
    await stage.timers.advance(10)
    assert stage.it.refresh() == 0.0
    await settle()
    assert len(stage.endpoint.pending) == 1
    assert stage.it.refresh() == 0.0
    await stage.timers.advance(0.4, step=0.1)
    stage.endpoint.grant()
    await settle()
    assert stage.log.obtained == ["start", "requested"]
    assert stage.it.refresh() == pytest.approx(0.6)
    assert stage.endpoint.pending == []
    await stage.timers.advance(0.7, step=0.1)
    assert len(stage.endpoint.pending) == 1
    await stage.timers.advance(5)
    # It has begun, and the instant it was due lies behind.
    assert stage.it.refresh() == 0.0
    assert stage.it.status().next_refresh == stage.clock.wall()
    stage.endpoint.grant()
    await settle()
    # Overdue, but the clock has not been looked at yet.
    stage.clock.advance(0.81 * 3600)
    assert stage.it.refresh() == 0.0


async def test_refused_for_good_everybody_is_told_at_once(stage: RefresherStage) -> None:
    stage.it.start()
    await settle()
    waiting = stage.waiter()
    for _ in range(3):
        stage.endpoint.fail("refused")
        await settle()
        await stage.timers.advance(1.5)
    assert waiting.unavailable is not None
    assert waiting.unavailable.permanent
    late = stage.waiter()
    assert late.unavailable is not None
    assert late.unavailable.retry_after == pytest.approx(stage.it.status().next_refresh - stage.clock.wall())
    assert "refused" in late.unavailable.detail


@pytest.mark.parametrize(
    ("code", "blamed"),
    [
        ("invalid_client", True),
        ("", True),
        ("unauthorized_client", False),
        ("invalid_request", False),
        ("invalid_scope", False),
        ("unsupported_grant_type", False),
    ],
)
async def test_callers_hear_that_the_pair_is_refused_only_where_it_is(
    stage: RefresherStage, code: str, blamed: bool
) -> None:
    stage.it.start()
    await settle()
    waiting = stage.waiter()
    for _ in range(3):
        stage.endpoint.fail("refused", code=code)
        await settle()
        await stage.timers.advance(1.5)
    assert waiting.unavailable is not None
    assert waiting.unavailable.permanent is blamed
    assert code in waiting.unavailable.detail


async def test_nobody_is_told_to_come_back_sooner_than_in_a_second(stage: RefresherStage) -> None:
    token = await stage.begin(20)
    stage.unauthorized(token, "another")
    await settle()
    stage.endpoint.fail("connect")
    await settle()
    await stage.timers.advance(stage.it.status().next_refresh - stage.clock.wall() - 0.5)
    waiter = stage.unauthorized(token, "another")
    assert waiter.unavailable is not None
    assert waiter.unavailable.retry_after == 1.0


async def test_changed_credentials_are_tried_at_once_and_then_kept(stage: RefresherStage) -> None:
    token = await stage.begin()
    stage.it.change_credentials(ClientCredentials("new", "s"))
    await settle()
    assert stage.endpoint.asked == ["old", "new"]
    assert stage.current() is token
    stage.endpoint.grant()
    await settle()
    assert stage.current() is not token
    assert stage.log.obtained == ["start", "credentials"]
    while not stage.endpoint.pending:
        await stage.timers.advance(1.0)
    stage.endpoint.fail("refused")
    await settle()
    # Nobody goes back to the old pair.
    assert stage.endpoint.asked == ["old", "new", "new"]
    await stage.timers.advance(3)
    assert stage.endpoint.asked == ["old", "new", "new", "new"]


async def test_a_pair_that_comes_while_another_is_tried_is_not_lost(stage: RefresherStage) -> None:
    await stage.begin()
    stage.it.change_credentials(ClientCredentials("new", "s"))
    await settle()
    stage.it.change_credentials(ClientCredentials("newer", "s"))
    stage.endpoint.grant()
    await settle()
    assert stage.endpoint.asked == ["old", "new", "newer"]


KINDS: list[FailureKind] = [
    "refused",
    "scope",
    "status",
    "malformed",
    "server_error",
    "throttled",
    "redirect",
]


@pytest.mark.parametrize("kind", [*KINDS, "disconnected", "hang"])
async def test_whatever_happens_to_a_new_pair_the_old_one_goes_on(stage: RefresherStage, kind: str) -> None:
    token = await stage.begin()
    since = stage.clock.wall()
    stage.it.change_credentials(ClientCredentials("new", "s"))
    await settle()
    assert stage.endpoint.asked == ["old", "new"]
    served = set()
    for _ in range(4000):
        if stage.endpoint.pending:
            if stage.endpoint.asked[-1] == "old":
                # The new pair's request may still hang beside it.
                stage.endpoint.pending.insert(0, stage.endpoint.pending.pop())
                stage.endpoint.grant()
            elif kind != "hang":
                stage.endpoint.fail(cast("FailureKind", kind))
            await settle()
        current = stage.current()
        assert current is not None
        served.add(current)
        await stage.timers.advance(1.0)
    assert len(served) == 2
    assert "credentials" not in stage.log.obtained
    assert {reason for _, reason in stage.log.failed} == {"credentials"}
    status = stage.it.status()
    assert (status.client_id, status.consecutive_failures, status.last_error) == ("old", 0, None)
    assert status.candidate is not None
    assert (status.candidate.client_id, status.candidate.since) == ("new", since)
    assert status.candidate.last_error == (
        "there was no complete response within 11 s" if kind == "hang" else f"emulated: {kind}"
    )
    assert token in served
    # It may be good one day, and is tried at least every five minutes.
    while not (stage.endpoint.pending and stage.endpoint.asked[-1] == "new"):
        await stage.timers.advance(1.0)
        if stage.endpoint.pending and stage.endpoint.asked[-1] == "old":
            stage.endpoint.pending.insert(0, stage.endpoint.pending.pop())
            stage.endpoint.grant()
            await settle()
    stage.endpoint.grant()
    await settle()
    assert stage.log.obtained[-1] == "credentials"
    assert stage.it.status().client_id == "new"
    assert stage.it.status().candidate is None


async def test_a_new_pair_is_not_given_up_because_the_endpoint_is_in_trouble(stage: RefresherStage) -> None:
    token = await stage.begin()
    while not stage.endpoint.pending:
        await stage.timers.advance(1.0)
    stage.endpoint.fail("connect")
    await settle()
    stage.it.change_credentials(ClientCredentials("new", "s"))
    await settle()
    stage.endpoint.fail("connect")
    await settle()
    assert stage.state() is TokenState.STALE
    assert stage.endpoint.asked == ["old", "old", "new"]
    assert stage.current() is token


# An attempt that hangs, or is cancelled.


async def test_without_a_token_an_attempt_that_hangs_is_given_up_and_the_next_one_serves(
    stage: RefresherStage,
) -> None:
    stage.it.start()
    await settle()
    waiter = stage.waiter()
    await stage.timers.advance(2.6, step=0.1)
    assert len(stage.endpoint.asked) == 2
    hanging = stage.endpoint.pending.pop(0)
    stage.endpoint.grant()
    await settle()
    assert waiter.token is stage.current() is not None
    stage.endpoint.pending.append(hanging)
    assert stage.log.failed == []


async def test_a_machine_that_slept_during_an_attempt_begins_a_new_one(stage: RefresherStage) -> None:
    stage.it.start()
    await settle()
    stage.clock.advance(3600)
    waiter = stage.waiter()
    await settle()
    assert len(stage.endpoint.asked) == 2
    stage.endpoint.grant()
    await settle()
    assert waiter.token is stage.current() is not None


async def test_a_stray_cancellation_ends_an_attempt_counted(stage: RefresherStage) -> None:
    await stage.begin()
    stage.it.refresh()
    await stage.timers.advance(1.1, step=0.1)
    (task,) = stage.tasks._tasks
    task.cancel()
    await settle()
    status = stage.it.status()
    assert (status.in_flight, status.consecutive_failures) == (False, 1)
    while not stage.endpoint.pending:
        await stage.timers.advance(1.0)
    stage.endpoint.grant()
    await settle()
    assert stage.it.status().consecutive_failures == 0


# A token that the API does not know yet.


async def test_a_refused_new_token_is_tried_again_until_the_api_knows_it(stage: RefresherStage) -> None:
    stage.it.start()
    await settle()
    stage.endpoint.grant()
    await settle()
    token = stage.current()
    assert token is not None
    waiters = [stage.unauthorized(token) for _ in range(5)]
    assert [waiter.calls for waiter in waiters] == [0] * 5
    await stage.timers.advance(0.3, step=0.05)
    # One of them tries.
    assert [waiter.calls for waiter in waiters] == [1, 0, 0, 0, 0]
    assert waiters[0].token is token
    stage.it.accept(token, "x")
    assert [waiter.token for waiter in waiters] == [token] * 5
    assert [waiter.calls for waiter in waiters] == [1] * 5
    assert len(stage.endpoint.asked) == 1


async def test_the_previous_token_answers_for_one_that_the_api_does_not_know_yet(
    stage: RefresherStage,
) -> None:
    old = await stage.begin()
    stage.it.refresh()
    await stage.timers.advance(1.1, step=0.1)
    stage.endpoint.grant()
    await settle()
    new = stage.current()
    assert new is not None
    assert stage.unauthorized(new).token is old
    assert stage.current() is old
    await stage.timers.advance(1.0)
    assert stage.current() is new
    assert len(stage.endpoint.asked) == 2


# What callers are told.


async def test_with_a_long_retry_after_callers_are_told_at_once_and_the_truth(stage: RefresherStage) -> None:
    stage.it.start()
    await settle()
    stage.endpoint.fail("throttled", retry_after=300.0)
    await settle()
    waiter = stage.waiter()
    assert waiter.unavailable is not None
    assert waiter.unavailable.retry_after == pytest.approx(300.0, abs=1.0)
    assert "throttled" in waiter.unavailable.detail


async def test_denied_credentials_are_tried_every_30_s_while_calls_arrive(stage: RefresherStage) -> None:
    stage.it.start()
    await settle()
    asked = []
    for _ in range(600):
        if stage.endpoint.pending:
            asked.append(stage.clock.now())
            stage.endpoint.fail("refused")
            await settle()
        stage.waiter()
        await stage.timers.advance(1.0)
    gaps = [later - earlier for earlier, later in pairwise(asked)]
    assert max(gaps) <= 32


async def test_the_files_are_looked_at_when_the_api_or_the_endpoint_refuses() -> None:
    looks: list[str] = []
    its = RefresherStage(look=lambda: looks.append("look"))
    token = await its.begin()
    its.unauthorized(token)
    await its.timers.advance(0.1, step=0.1)
    assert looks == ["look"]
    await its.timers.advance(2.0, step=0.1)
    its.endpoint.fail("refused")
    await settle()
    await its.timers.advance(0.1, step=0.1)
    assert looks == ["look", "look"]
    its.it.close()
    await its.tasks.close()


@pytest.mark.parametrize("lands", [True, False])
async def test_credentials_that_change_during_a_flight_get_a_flight_of_their_own(
    stage: RefresherStage, lands: bool
) -> None:
    stage.it.start()
    await settle()
    stage.it.change_credentials(ClientCredentials("new", "s"))
    await settle()
    assert stage.endpoint.asked == ["old"]
    if lands:
        stage.endpoint.grant()
    else:
        stage.endpoint.fail()
    await settle()
    assert stage.endpoint.asked == ["old", "new"]
    stage.endpoint.grant()
    await settle()
    assert stage.log.obtained == ["start", "credentials"][not lands :]


async def test_it_is_told_how_long_a_flight_took(stage: RefresherStage) -> None:
    stage.it.start()
    await settle()
    stage.clock.advance(2)
    stage.endpoint.fail()
    await settle()
    while not stage.endpoint.pending:
        await stage.timers.advance(0.1, step=0.1)
    stage.clock.advance(3)
    stage.endpoint.grant()
    await settle()
    assert stage.log.durations == [pytest.approx(2.0), pytest.approx(3.0)]


async def test_five_hundred_401_cause_one_refresh_and_five_hundred_new_tokens(stage: RefresherStage) -> None:
    token = await stage.begin()
    early = [stage.unauthorized(token) for _ in range(250)]
    await settle()
    assert stage.state() is TokenState.SUSPECT
    assert stage.waiter().token is token
    stage.endpoint.grant()
    await settle()
    late = [stage.unauthorized(token) for _ in range(250)]
    assert {waiter.token for waiter in early + late} == {stage.current()}
    assert stage.current() is not token
    assert len(stage.endpoint.asked) == 2
    assert stage.log.unauthorized == 1


async def test_a_spurious_401_with_the_endpoint_down_costs_that_call_alone(stage: RefresherStage) -> None:
    token = await stage.begin()
    began = stage.clock.now()
    waiter = stage.unauthorized(token)
    await settle()
    while not waiter.unavailable:
        if stage.endpoint.pending:
            stage.endpoint.fail("connect")
            await settle()
        await stage.timers.advance(0.5)
    assert stage.clock.now() - began <= 60
    assert stage.waiter().token is token
    assert stage.unauthorized(token).unavailable is not None


async def test_a_401_to_a_token_that_has_ended_meanwhile_waits_like_any(stage: RefresherStage) -> None:
    token = await stage.begin(60)
    await stage.timers.advance(49)
    stage.endpoint.fail()
    await settle()
    stage.clock.advance(30)
    waiter = stage.unauthorized(token)
    await settle()
    # A failure is not the end of the wait: there is no token to go on with.
    stage.endpoint.fail()
    await settle()
    assert waiter.calls == 0
    await stage.timers.advance(1.5)
    stage.endpoint.grant()
    await settle()
    assert waiter.token is stage.current()


async def test_after_hours_of_sleep_the_next_request_gets_a_new_token(stage: RefresherStage) -> None:
    token = await stage.begin()
    # The loop's timers stood still; both clocks did not.
    stage.clock.advance(6 * 3600)
    assert stage.current() is None
    waiter = stage.waiter()
    await settle()
    stage.endpoint.grant()
    await settle()
    assert waiter.token is not None
    assert waiter.token is not token


async def test_a_token_that_slept_away_on_its_way_here_is_not_served_and_who_waits_gets_the_next(
    stage: RefresherStage,
) -> None:
    stage.it.start()
    waiter = stage.waiter()
    await settle()
    stage.clock.advance(6 * 3600)
    stage.endpoint.grant()
    await settle()
    assert waiter.calls == 0
    assert len(stage.endpoint.pending) == 1
    stage.endpoint.grant()
    await settle()
    assert waiter.token is stage.current()


async def test_a_wall_clock_that_ran_ahead_refreshes_in_the_background(stage: RefresherStage) -> None:
    token = await stage.begin()
    stage.clock.jump_wall(7200)
    await stage.timers.advance(1.0)
    assert len(stage.endpoint.pending) == 1
    assert stage.waiter().token is token
    stage.endpoint.grant()
    await settle()
    await stage.timers.advance(10)
    assert stage.endpoint.pending == []


@pytest.mark.parametrize("error", [RuntimeError("boom"), ValueError("boom")])
async def test_an_exception_nobody_expected_does_not_end_the_tokens_life(
    stage: RefresherStage, error: Exception
) -> None:
    stage.it.start()
    await settle()
    stage.endpoint.crash(error)
    await settle()
    assert stage.log.crashes == [error]
    await stage.timers.advance(3)
    stage.endpoint.grant()
    await settle()
    assert stage.state() is TokenState.FRESH


async def test_one_waiters_exception_is_not_the_others(stage: RefresherStage) -> None:
    class Clumsy(Waiter):
        def token_ready(self, token: AccessToken) -> None:
            raise RuntimeError("clumsy")

    stage.it.start()
    stage.it.acquire(Clumsy())
    other = stage.waiter()
    await settle()
    stage.endpoint.grant()
    await settle()
    assert other.token is stage.current()
    assert len(stage.log.crashes) == 1
    await stage.timers.advance(0.8 * 3600, step=10)
    assert len(stage.endpoint.pending) == 1


async def test_closing_tells_who_waits_and_starts_nothing_more(stage: RefresherStage) -> None:
    stage.it.start()
    waiter = stage.waiter()
    await settle()
    stage.it.close()
    assert waiter.unavailable is not None
    assert waiter.unavailable.retry_after == 1.0
    assert stage.waiter().unavailable is not None
    # What is under way comes to its end, and nothing after it.
    stage.endpoint.grant()
    await settle()
    token = stage.current()
    assert token is not None
    assert stage.unauthorized(token).unavailable is not None
    stage.it.change_credentials(ClientCredentials("new", "s"))
    await stage.timers.advance(100)
    assert len(stage.endpoint.asked) == 1
    assert stage.timers.waiting == 0


async def test_it_may_be_closed_before_it_starts(stage: RefresherStage) -> None:
    stage.it.close()
    assert stage.waiter().unavailable is not None


async def test_status_tells_instants_of_the_wall_clock(stage: RefresherStage) -> None:
    token = await stage.begin()
    status = stage.it.status()
    assert status.state is TokenState.FRESH
    assert status.token is token
    assert status.expires == token.issued_wall + 3570
    assert token.issued_wall + 2520 <= status.next_refresh <= token.issued_wall + 2880
    assert status.last_error is None
    assert "token-1" not in repr(status)


async def test_the_observer_hears_of_a_failure_after_the_lifecycle(stage: RefresherStage) -> None:
    await stage.begin(100.0)
    for _ in range(120):
        await stage.timers.advance(1.0)
        if stage.endpoint.pending:
            stage.endpoint.fail("connect")
            await settle()
            status = stage.it.status()
            assert stage.log.seen[-1] == (status.state, status.consecutive_failures)
    assert [failures for _, failures in stage.log.seen] == list(range(1, len(stage.log.seen) + 1))
    assert stage.log.seen[0][0] is TokenState.STALE
    assert stage.log.seen[-1][0] is TokenState.EXPIRED


async def test_a_token_is_concealed_before_anyone_hears_of_it(stage: RefresherStage) -> None:
    stage.it.start()
    waiter = stage.waiter()
    await settle()
    stage.endpoint.grant()
    await settle()
    # The log asserts it when it hears of the token.
    assert stage.log.obtained == ["start"]
    assert waiter.token is not None
    assert stage.log.concealed == [waiter.token.reveal()]


async def test_trouble_of_the_observer_costs_no_token(
    stage: RefresherStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    crashes: list[BaseException] = []

    def fail(*_: object, **__: object) -> None:
        raise UnicodeEncodeError("ascii", "é", 0, 1, "ordinal not in range")

    monkeypatch.setattr(stage.log, "token_obtained", fail)
    monkeypatch.setattr(stage.log, "crashed", crashes.append)
    stage.it.start()
    waiter = stage.waiter()
    await settle()
    stage.endpoint.grant()
    await settle()
    assert waiter.token is stage.current() is not None
    assert [type(each) for each in crashes] == [UnicodeEncodeError]
    assert stage.it.status().consecutive_failures == 0


async def test_an_endpoint_that_takes_longer_than_a_flight_may_still_brings_a_token(
    stage: RefresherStage,
) -> None:
    stage.it.start()
    await settle()
    waiter = stage.waiter()
    await stage.timers.advance(4.0, step=0.1)
    assert len(stage.endpoint.pending) == 2
    stage.endpoint.grant()
    await settle()
    first = stage.current()
    assert waiter.token is first is not None
    assert stage.log.obtained == ["start"]
    # The second request is newer, and so is its token: an endpoint may let only the newest live.
    await stage.timers.advance(1.0, step=0.1)
    stage.endpoint.grant()
    await settle()
    second = stage.current()
    assert second is not first
    assert stage.it.status().consecutive_failures == 0
    assert stage.endpoint.pending == []


async def test_a_late_token_that_is_older_than_the_one_in_hand_is_dropped(stage: RefresherStage) -> None:
    stage.it.start()
    await settle()
    stage.waiter()
    await stage.timers.advance(3.0, step=0.1)
    older = stage.endpoint.pending.pop(0)
    stage.endpoint.grant()
    await settle()
    token = stage.current()
    stage.endpoint.pending.insert(0, older)
    stage.endpoint.grant()
    await settle()
    assert stage.current() is token


async def test_an_attempt_that_never_ends_is_cancelled_after_11_s(stage: RefresherStage) -> None:
    stage.it.start()
    await settle()
    for _ in range(600):
        await stage.timers.advance(0.1, step=0.1)
        stage.waiter()
        assert len(stage.endpoint.pending) <= 5
    assert len(stage.endpoint.asked) >= 20


async def test_a_late_token_of_a_pair_that_is_no_longer_in_use_is_dropped(stage: RefresherStage) -> None:
    stage.it.start()
    await settle()
    stage.it.change_credentials(ClientCredentials("new", "s"))
    await stage.timers.advance(2.6, step=0.1)
    assert stage.endpoint.asked == ["old", "new"]
    old = stage.endpoint.pending.pop(0)
    stage.endpoint.grant()
    await settle()
    token = stage.current()
    assert stage.it.status().client_id == "new"
    stage.endpoint.pending.insert(0, old)
    stage.endpoint.grant()
    await settle()
    assert stage.current() is token
    assert stage.it.status().client_id == "new"


async def test_a_pair_that_changes_back_is_no_candidate_any_more(stage: RefresherStage) -> None:
    await stage.begin()
    stage.it.change_credentials(ClientCredentials("new", "s"))
    await settle()
    stage.endpoint.fail("refused")
    await settle()
    stage.it.change_credentials(ClientCredentials("old", "s"))
    assert stage.it.status().candidate is None
    await stage.timers.advance(600)
    assert stage.endpoint.asked == ["old", "new"]


async def test_it_tells_which_pair_an_attempt_used_and_when_one_is_adopted(stage: RefresherStage) -> None:
    await stage.begin()
    stage.it.change_credentials(ClientCredentials("new", "s"))
    await settle()
    stage.endpoint.fail("refused")
    await settle()
    assert stage.log.pairs == ["old", "new"]
    assert stage.log.adopted == []
    while not stage.endpoint.pending:
        await stage.timers.advance(1.0)
    stage.endpoint.grant()
    await settle()
    assert stage.log.pairs == ["old", "new", "new"]
    assert stage.log.adopted == ["new"]


async def test_tokens_that_die_early_again_and_again_are_reported_from_the_third_on(
    stage: RefresherStage,
) -> None:
    token = await stage.begin()
    for _ in range(4):
        await stage.timers.advance(45)
        stage.unauthorized(token)
        await settle()
        stage.endpoint.grant()
        await settle()
        current = stage.current()
        assert current is not None
        token = current
        stage.it.accept(token, "x")
    assert stage.log.early_deaths == [3, 4]
    # One that lives until it is due ends the row.
    while not stage.endpoint.pending:
        await stage.timers.advance(1.0)
    stage.endpoint.grant()
    await settle()
    current = stage.current()
    assert current is not None
    stage.it.accept(current, "x")
    await stage.timers.advance(45)
    stage.unauthorized(current)
    assert stage.log.early_deaths == [3, 4]


async def test_a_death_that_an_unknown_operation_met_is_reported_when_the_next_token_is_accepted_for_it(
    stage: RefresherStage,
) -> None:
    token = await stage.begin()
    for operation, accepted in (("always refused", False), ("never called before", True)):
        await stage.timers.advance(60)
        waiter = stage.unauthorized(token, operation)
        await settle()
        stage.endpoint.grant()
        await settle()
        assert waiter.token is not None
        assert stage.log.unauthorized == 0
        token = waiter.token
        for _ in range(2):
            stage.it.accept(token, operation if accepted else "x")
        assert stage.log.unauthorized == int(accepted)


async def test_a_request_refused_by_a_dead_token_waits_for_a_second_attempt(stage: RefresherStage) -> None:
    token = await stage.begin()
    await stage.timers.advance(60)
    waiter = stage.unauthorized(token)
    await settle()
    stage.endpoint.fail("server_error")
    await settle()
    assert waiter.calls == 0
    await stage.timers.advance(2.1, step=0.1)
    stage.endpoint.grant()
    await settle()
    assert waiter.token is stage.current() is not token


async def test_an_attempt_that_is_given_up_is_reported_once_and_with_its_own_reason(
    stage: RefresherStage,
) -> None:
    stage.it.start()
    await settle()
    await stage.timers.advance(2.6, step=0.1)
    assert stage.it.status().consecutive_failures == 1
    assert stage.it.status().last_error == "there was no complete response within 2.5 s"
    assert stage.log.failed == []
    stage.endpoint.fail("dns")
    await settle()
    assert stage.log.failed == [("dns", "start")]
    assert stage.it.status().consecutive_failures == 1
    assert stage.it.status().last_error == "emulated: dns"
