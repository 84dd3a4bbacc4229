from itertools import pairwise
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from bits_auth_proxy.auth import schedule
from bits_auth_proxy.auth.lifecycle import WORTH_WAITING, Lifecycle, Reason, Replacement
from bits_auth_proxy.auth.tokens import AccessToken, TokenState
from tests.support.clock import FakeClock


class Life:
    """A lifecycle with a clock, and its moves in short."""

    def __init__(self, seed: int = 1) -> None:
        self.clock = FakeClock()
        self.it = Lifecycle(now=self.clock.now(), rng=Random(seed))
        self.count = 0

    def due(self, *, wanted: bool = False) -> Reason | None:
        return self.it.flight_due(self.clock.now(), self.clock.wall(), wanted=wanted)

    def state(self) -> TokenState:
        return self.it.state(self.clock.now(), self.clock.wall())

    def fly(self) -> float:
        """Begin the flight that is due, or one that is not; return how long it may last."""
        return self.it.flight_started(self.clock.now(), self.due() or Reason.SCHEDULED)

    def land(self, lifetime: float = 3600.0, *, candidate_taken: bool = False) -> AccessToken:
        self.count += 1
        token = AccessToken(
            f"token-{self.count}",
            issued_at=self.clock.now(),
            issued_wall=self.clock.wall(),
            lifetime=lifetime,
            margin=schedule.safety_margin(lifetime),
        )
        self.it.obtained(token, self.clock.now(), candidate_taken=candidate_taken)
        return token

    def proven(self, lifetime: float = 3600.0, *operations: str) -> AccessToken:
        """A token that the API has accepted."""
        token = self.obtain(lifetime)
        for operation in operations or ("x",):
            self.it.accepted(token, operation)
        return token

    def unauthorized(
        self, token: AccessToken, operation: str = "x", *, repeated: bool = False
    ) -> Replacement:
        return self.it.unauthorized(token, operation, self.clock.now(), repeated=repeated)

    def current(self) -> AccessToken | None:
        return self.it.current(self.clock.now())

    def fail(self, *, denied: bool = False, retry_after: float | None = None) -> None:
        self.it.failed(self.clock.now(), denied=denied, retry_after=retry_after)

    def obtain(self, lifetime: float = 3600.0) -> AccessToken:
        self.fly()
        return self.land(lifetime)

    def to_next_attempt(self) -> None:
        self.clock.advance(max(0.0, self.it.attempt_at - self.clock.now()))


def test_the_instants_of_a_life_are_exact() -> None:
    life = Life()
    token = life.obtain(3600)
    refresh_at = life.it.attempt_at
    life.to_next_attempt()
    life.clock.jump_wall(-10_000)
    assert life.clock.now() == refresh_at
    assert life.state() is TokenState.STALE
    life.clock.advance(token.expires_at - life.clock.now())
    assert life.clock.now() == token.expires_at
    assert life.it.current(life.clock.now()) is None
    assert life.state() is TokenState.EXPIRED


def test_a_success_ends_the_count_of_failures() -> None:
    life = Life()
    for number in range(4):
        life.fly()
        life.fail(denied=True)
        assert (life.it.failures, life.it.denials) == (number + 1, number + 1)
    life.obtain()
    assert (life.it.failures, life.it.denials) == (0, 0)
    life.to_next_attempt()
    assert life.due() is Reason.SCHEDULED


def test_without_anybody_who_waits_the_backoff_holds() -> None:
    life = Life()
    for _ in range(8):
        life.fly()
        life.fail()
        life.to_next_attempt()
    life.fly()
    life.fail()
    life.clock.advance(1.0)
    assert life.it.attempt_at > life.clock.now()
    assert life.due(wanted=False) is None


def test_each_flight_has_its_own_reason() -> None:
    life = Life()
    token = life.obtain()
    life.unauthorized(token)
    life.fly()
    life.fail()
    life.to_next_attempt()
    assert life.due() is Reason.RETRY
    life.obtain()
    life.clock.advance(10)
    life.it.requested(life.clock.now())
    life.obtain()
    life.to_next_attempt()
    assert life.due() is Reason.SCHEDULED


def test_retry_after_is_believed_up_to_5_minutes_and_until_the_next_failure() -> None:
    life = Life()
    token = life.obtain(3600)
    life.clock.advance(token.expires_at - life.clock.now() - 100)
    life.fly()
    life.fail(retry_after=86_400)
    assert life.it.soonest == life.clock.now() + 300
    # The last chance comes before that.
    life.to_next_attempt()
    assert life.it.current(life.clock.now()) is token
    life.fly()
    life.fail()
    assert life.it.soonest == life.clock.now() + 1.0


def test_retry_after_is_over_with_the_next_token() -> None:
    life = Life()
    life.fly()
    life.fail(retry_after=300)
    life.it.credentials_changed(life.clock.now())
    token = life.proven()
    assert life.unauthorized(token) is Replacement.COMING


def test_the_first_flight_is_due_at_once() -> None:
    life = Life()
    assert life.state() is TokenState.ABSENT
    assert life.due() is Reason.START


def test_one_flight_at_a_time_whoever_wants_one() -> None:
    life = Life()
    life.fly()
    life.it.credentials_changed(life.clock.now())
    life.clock.advance(10_000)
    assert life.due(wanted=True) is None


def test_a_token_lives_from_fresh_over_stale_to_expired() -> None:
    life = Life()
    token = life.obtain(3600)
    assert life.state() is TokenState.FRESH
    assert life.due(wanted=True) is None
    life.clock.advance(0.8 * 3600)
    assert life.state() is TokenState.STALE
    assert life.due() is Reason.SCHEDULED
    assert life.it.current(life.clock.now()) is token
    life.clock.advance(0.2 * 3600 - 30 - 0.001)
    assert life.it.current(life.clock.now()) is token
    life.clock.advance(0.002)
    assert life.state() is TokenState.EXPIRED
    assert life.it.current(life.clock.now()) is None
    assert life.due() is Reason.EXPIRED


def test_a_wall_clock_that_ran_ahead_makes_stale_and_nothing_more() -> None:
    life = Life()
    token = life.obtain(3600)
    life.clock.jump_wall(100_000)
    assert life.state() is TokenState.STALE
    assert life.it.current(life.clock.now()) is token
    assert life.due() is Reason.SCHEDULED
    # If that fails, it is tried again at the usual pace, not all the time.
    life.fly()
    life.fail()
    assert life.due() is None
    life.to_next_attempt()
    assert life.due() is Reason.RETRY
    life.fly()
    life.land()
    assert life.state() is TokenState.FRESH


def test_the_wall_clock_makes_stale_when_it_says_that_the_refresh_is_due() -> None:
    life = Life()
    token = life.obtain(3600)
    due = life.it.attempt_at - token.issued_at
    life.clock.jump_wall(due - 1)
    assert life.state() is TokenState.FRESH
    life.clock.jump_wall(1.001)
    assert life.state() is TokenState.STALE


def test_a_wall_clock_that_goes_back_changes_nothing() -> None:
    life = Life()
    life.obtain(3600)
    life.clock.jump_wall(-100_000)
    assert life.state() is TokenState.FRESH
    assert life.due() is None


def test_ten_minutes_without_token_endpoint_around_the_refresh_go_unnoticed() -> None:
    life = Life()
    life.obtain(3600)
    life.to_next_attempt()
    end = life.clock.now() + 600
    attempts = 0
    while life.clock.now() < end:
        assert life.it.current(life.clock.now()) is not None
        assert life.due() is not None
        life.fly()
        life.fail()
        attempts += 1
        life.to_next_attempt()
    life.obtain()
    assert life.state() is TokenState.FRESH
    # At least every 30 s, and not a storm.
    assert 20 <= attempts <= 120


def test_the_first_success_after_the_end_restores_at_once() -> None:
    life = Life()
    life.obtain(60)
    life.clock.advance(54.1)
    assert life.it.current(life.clock.now()) is None
    token = life.obtain(60)
    assert life.it.current(life.clock.now()) is token


def test_who_waits_pulls_the_next_flight_forward_but_not_closer_than_1_s() -> None:
    life = Life()
    for _ in range(6):
        life.fly()
        life.fail()
        life.to_next_attempt()
    life.fly()
    life.fail()
    assert life.due(wanted=True) is None
    life.clock.advance(1.0)
    assert life.due(wanted=True) is Reason.RETRY


def test_who_waits_does_not_pull_it_before_retry_after() -> None:
    life = Life()
    life.fly()
    life.fail(retry_after=20)
    life.clock.advance(19.9)
    assert life.due(wanted=True) is None
    life.clock.advance(0.2)
    assert life.due(wanted=True) is Reason.RETRY


def test_who_waits_does_not_hurry_anything_while_a_token_is_valid() -> None:
    life = Life()
    life.obtain()
    life.to_next_attempt()
    life.fly()
    life.fail(retry_after=100)
    life.clock.advance(50)
    assert life.due(wanted=True) is None
    for _ in range(6):
        life.to_next_attempt()
        life.fly()
        life.fail()
    life.clock.advance(1.0)
    assert life.it.attempt_at > life.clock.now()
    assert life.due(wanted=True) is None


def test_three_refusals_in_a_row_are_permanent_and_slow() -> None:
    life = Life()
    for number in range(3):
        assert life.it.permanent is False
        life.fly()
        life.fail(denied=True)
        assert life.it.denials == number + 1
    assert life.it.permanent
    assert life.it.attempt_at - life.clock.now() >= 24


def test_retry_after_holds_for_refusals_too() -> None:
    life = Life()
    for _ in range(4):
        life.fly()
        life.fail(denied=True, retry_after=250)
        assert life.it.attempt_at - life.clock.now() >= 250
        assert life.due(wanted=True) is None
        life.to_next_attempt()


def test_another_failure_between_breaks_the_row() -> None:
    life = Life()
    for refused in (True, True, False, True, True):
        life.fly()
        life.fail(denied=refused)
        life.to_next_attempt()
    assert life.it.permanent is False
    life.fly()
    life.fail(denied=True)
    assert life.it.denials == 3
    assert life.it.permanent


def test_changed_credentials_are_tried_at_once_whatever_was() -> None:
    life = Life()
    for _ in range(4):
        life.fly()
        life.fail(denied=True, retry_after=300)
        life.to_next_attempt()
    life.fly()
    life.fail(denied=True, retry_after=300)
    assert life.due() is None
    life.it.credentials_changed(life.clock.now())
    assert life.it.permanent is False
    assert life.due() is Reason.CREDENTIALS


@pytest.mark.parametrize("lands", [True, False])
def test_credentials_that_change_during_a_flight_are_tried_after_it(lands: bool) -> None:
    life = Life()
    life.fly()
    life.it.credentials_changed(life.clock.now())
    if lands:
        life.land()
    else:
        life.fail(denied=True)
    assert life.due() is Reason.CREDENTIALS


@pytest.mark.parametrize("denied", [True, False])
def test_whatever_happens_to_the_candidate_the_pair_in_use_goes_on(denied: bool) -> None:
    life = Life()
    token = life.proven()
    refresh_at = life.it.attempt_at
    life.it.credentials_changed(life.clock.now())
    tries = []
    while life.clock.now() < refresh_at:
        if life.due() is Reason.CREDENTIALS:
            tries.append(life.clock.now())
            life.fly()
            life.it.candidate_failed(life.clock.now(), denied=denied, retry_after=None)
        assert (life.it.failures, life.it.denials, life.it.attempt_at) == (0, 0, refresh_at)
        assert life.current() is token
        life.clock.advance(1.0)
    gaps = [later - earlier for earlier, later in pairwise(tries)]
    assert gaps
    assert max(gaps) <= (301 if denied else 31)
    assert life.due() is Reason.SCHEDULED
    life.obtain()
    assert life.it.next_at(wanted=False) - life.clock.now() <= 301
    life.it.credentials_changed(life.clock.now())
    assert life.due() is Reason.CREDENTIALS
    life.fly()
    life.land(candidate_taken=True)
    assert life.it.next_at(wanted=False) == life.it.attempt_at


def test_while_requests_arrive_denied_credentials_are_tried_every_30_s() -> None:
    life = Life()
    tries = []
    for _ in range(1000):
        life.clock.advance(1.0)
        life.it.wanted(life.clock.now())
        if life.due() is not None:
            tries.append(life.clock.now())
            life.fly()
            life.fail(denied=True)
    gaps = [later - earlier for earlier, later in pairwise(tries)]
    assert max(gaps[3:]) <= 31
    assert min(gaps[3:]) >= 24


# A 401 of the API.


def test_a_401_to_a_proven_token_makes_it_suspect_and_forces_one_flight() -> None:
    life = Life()
    token = life.proven()
    assert life.unauthorized(token) is Replacement.COMING
    assert life.state() is TokenState.SUSPECT
    assert life.current() is token
    assert life.due() is Reason.UNAUTHORIZED
    life.fly()
    assert life.unauthorized(token) is Replacement.COMING
    other = life.land()
    assert life.unauthorized(token) is Replacement.AT_HAND
    assert life.state() is TokenState.FRESH
    assert life.current() is other


def test_a_forced_flight_that_fails_follows_the_ordinary_backoff() -> None:
    life = Life()
    token = life.proven()
    life.unauthorized(token)
    life.fly()
    life.fail()
    assert 1.0 <= life.it.attempt_at - life.clock.now() <= 2.0
    assert life.state() is TokenState.SUSPECT
    # That is soon enough to be waited for.
    assert life.unauthorized(token) is Replacement.COMING
    for _ in range(6):
        life.to_next_attempt()
        life.fly()
        life.fail(retry_after=10)
    assert life.unauthorized(token) is Replacement.NONE
    life.to_next_attempt()
    assert life.due() is Reason.RETRY


def test_tokens_that_die_after_45_s_are_replaced_at_once_each_time() -> None:
    life = Life()
    for _ in range(50):
        token = life.proven(3600)
        life.clock.advance(45)
        assert life.unauthorized(token) is Replacement.COMING
        assert life.due() is Reason.UNAUTHORIZED


def test_tokens_that_die_young_are_replaced_at_intervals_up_to_4_s() -> None:
    life = Life()
    at: list[float] = []
    token = life.proven(3600)
    while len(at) < 9:
        life.unauthorized(token)
        if life.due() is not None:
            at.append(life.clock.now())
            token = life.proven(3600)
        life.clock.advance(0.5)
    gaps = [later - earlier for earlier, later in pairwise(at)]
    assert gaps == pytest.approx([1, 2, 4, 4, 4, 4, 4, 4], abs=0.6)
    assert life.it.early_deaths == 9


def test_new_tokens_that_are_refused_are_replaced_at_30_s_doubling_to_1_h() -> None:
    life = Life()
    at: list[float] = []
    token = life.obtain(10**6)
    while len(at) < 10:
        life.unauthorized(token)
        if life.due() is not None:
            at.append(life.clock.now())
            token = life.obtain(10**6)
        life.clock.advance(1.0)
    gaps = [later - earlier for earlier, later in pairwise(at)]
    assert gaps == pytest.approx([30, 60, 120, 240, 480, 960, 1920, 3600, 3600], abs=9)
    life.it.accepted(token, "x")
    assert life.unauthorized(token) is not Replacement.AGAIN


def test_while_the_api_does_not_know_the_new_token_the_previous_one_serves() -> None:
    life = Life()
    old = life.proven(3600)
    life.to_next_attempt()
    new = life.obtain(3600)
    tried = 0
    for _ in range(100):
        life.clock.advance(0.05)
        token = life.current()
        assert token is not None
        if token is new:
            tried += 1
            assert life.unauthorized(new) is Replacement.AT_HAND
            assert life.it.alternative(new, life.clock.now()) is old
        else:
            assert token is old
        assert life.it.steady(life.clock.now()) is old
    assert 3 <= tried <= 8
    assert life.due() is None
    life.clock.advance(30)
    assert life.current() is new
    life.it.accepted(new, "x")
    assert life.it.steady(life.clock.now()) is new
    assert life.state() is TokenState.FRESH


def test_with_no_previous_token_the_same_one_is_tried_again() -> None:
    life = Life()
    token = life.obtain()
    assert life.unauthorized(token) is Replacement.AGAIN
    assert life.it.try_at - life.clock.now() == 0.25
    assert life.due() is None
    life.clock.advance(0.25)
    # Refused twice, it may have been revoked.
    assert life.unauthorized(token) is Replacement.AGAIN
    assert life.due() is Reason.UNAUTHORIZED
    other = life.obtain()
    assert life.unauthorized(other) is Replacement.AT_HAND
    assert life.unauthorized(token) is Replacement.AGAIN
    life.clock.advance(0.5)
    assert life.unauthorized(other) is Replacement.AT_HAND
    assert life.unauthorized(token) is Replacement.AGAIN
    assert life.due() is None
    life.it.accepted(token, "x")
    assert life.current() is token
    life.it.accepted(other, "x")
    assert life.state() is TokenState.FRESH


def test_a_token_that_died_is_nothing_to_fall_back_on() -> None:
    life = Life()
    died = life.proven()
    life.unauthorized(died)
    new = life.obtain()
    assert life.unauthorized(new) is Replacement.AGAIN
    assert life.it.alternative(new, life.clock.now()) is None


def test_when_both_tokens_are_refused_another_is_asked_for_at_once() -> None:
    life = Life()
    old = life.proven()
    life.to_next_attempt()
    new = life.obtain()
    assert life.unauthorized(new) is Replacement.AT_HAND
    assert life.unauthorized(old) is Replacement.COMING
    assert life.due() is Reason.UNAUTHORIZED


def test_an_operation_that_always_gets_401_takes_nothing_from_the_others() -> None:
    life = Life()
    token = life.proven(3600, "y")
    forced = 0
    for _ in range(2000):
        life.clock.advance(1.0)
        token_now = life.current()
        assert token_now is not None
        life.unauthorized(token_now, "always")
        life.it.accepted(token_now, "y")
        if life.due() is Reason.UNAUTHORIZED:
            forced += 1
            token = life.obtain(36_000)
    assert 3 <= forced <= 8
    life.it.accepted(token, "y")
    assert life.unauthorized(token, "y") is Replacement.COMING
    assert life.due() is Reason.UNAUTHORIZED


def test_a_death_is_noticed_by_an_operation_that_this_token_has_not_served_yet() -> None:
    life = Life()
    life.proven(3600, "x", "rare")
    life.to_next_attempt()
    token = life.proven(3600, "x")
    life.clock.advance(60)
    assert life.unauthorized(token, "rare") is Replacement.COMING
    assert life.state() is TokenState.SUSPECT
    assert life.due() is Reason.UNAUTHORIZED


def test_a_request_that_two_tokens_do_not_help_is_to_blame_itself() -> None:
    life = Life()
    flights = 0
    for _ in range(300):
        token = life.it.token or life.proven(36_000, "x", "y")
        life.it.accepted(token, "x")
        life.it.accepted(token, "y")
        life.clock.advance(1.0)
        # Some requests of x are refused, whatever the token.
        if life.unauthorized(token, "x") is Replacement.COMING:
            flights += 1
            new = life.obtain(36_000)
            life.it.accepted(new, "y")
            assert life.unauthorized(new, "x", repeated=True) is Replacement.NONE
            assert life.state() is TokenState.FRESH
    assert 2 <= flights <= 6
    assert life.it.early_deaths == 0


def test_an_operation_that_was_to_blame_still_tells_when_the_token_dies() -> None:
    life = Life()
    life.unauthorized(life.proven(36_000, "x"), "x")
    token = life.proven(36_000, "y")
    life.unauthorized(token, "x", repeated=True)
    life.it.accepted(token, "x")
    life.clock.advance(5)
    assert [life.unauthorized(token, "x") for _ in range(3)] == [
        Replacement.NONE,
        Replacement.NONE,
        Replacement.COMING,
    ]


def test_many_operations_with_a_401_of_their_own_force_a_flight_every_5_s_at_most() -> None:
    life = Life()
    token = life.proven(36_000)
    flights = 0
    for number in range(1000):
        life.clock.advance(0.1)
        life.it.accepted(token, "x")
        if life.unauthorized(token, f"unknown-{number}") is Replacement.COMING and life.due():
            flights += 1
            token = life.proven(36_000)
    assert 18 <= flights <= 21


def test_servers_that_do_not_know_the_new_token_yet_beside_others_that_do() -> None:
    life = Life()
    old = life.proven()
    life.to_next_attempt()
    new = life.proven()
    life.clock.advance(2)
    assert life.unauthorized(new) is Replacement.AT_HAND
    assert life.it.alternative(new, life.clock.now()) is old
    assert life.due() is None
    assert life.it.steady(life.clock.now()) is old


def test_a_token_that_is_given_up_too_early_is_still_tried() -> None:
    life = Life()
    first = life.obtain()
    while life.unauthorized(first) is Replacement.AGAIN:
        life.clock.advance(0.5)
    assert life.due() is Reason.UNAUTHORIZED
    second = life.obtain()
    assert life.unauthorized(second) is Replacement.AT_HAND
    assert life.it.alternative(second, life.clock.now()) is first
    assert life.unauthorized(first) is Replacement.AGAIN
    life.it.accepted(first, "x")
    assert life.current() is first
    assert life.it.steady(life.clock.now()) is first


def test_an_answer_that_accepts_a_suspect_token_clears_it() -> None:
    life = Life()
    token = life.proven()
    life.clock.advance(60)
    life.unauthorized(token)
    assert life.state() is TokenState.SUSPECT
    life.it.accepted(token, "y")
    assert life.state() is TokenState.FRESH


def test_a_token_endpoint_that_issues_the_same_token_again_changes_nothing_of_its_standing() -> None:
    life = Life()
    old = life.proven()
    life.it.requested(life.clock.now())
    life.fly()
    same = AccessToken("token-1", issued_at=life.clock.now(), issued_wall=0.0, lifetime=3600)
    life.it.obtained(same, life.clock.now())
    assert same.proven
    assert life.current() is same
    assert life.it.alternative(same, life.clock.now()) is None
    # After its death, the same token is not believed.
    life.clock.advance(60)
    life.unauthorized(same)
    life.fly()
    again = AccessToken("token-1", issued_at=life.clock.now(), issued_wall=0.0, lifetime=3600)
    life.it.obtained(again, life.clock.now())
    assert not again.proven
    assert life.it.alternative(again, life.clock.now()) is None
    assert old.proven


def test_credentials_that_change_back_are_no_candidate_any_more() -> None:
    life = Life()
    life.proven()
    refresh_at = life.it.attempt_at
    life.it.credentials_changed(life.clock.now())
    life.it.candidate_withdrawn(life.clock.now())
    assert life.due() is None
    assert life.it.next_at(wanted=False) == refresh_at


def test_a_401_forces_no_flight_before_retry_after() -> None:
    life = Life()
    token = life.proven()
    life.to_next_attempt()
    life.fly()
    life.fail(retry_after=200)
    life.clock.advance(190)
    assert life.unauthorized(token) is Replacement.NONE
    life.clock.advance(9)
    assert life.due() is None
    life.clock.advance(1)
    assert life.due() is Reason.UNAUTHORIZED


def test_a_401_to_a_token_that_has_ended_asks_to_wait() -> None:
    life = Life()
    token = life.obtain(60)
    life.clock.advance(60)
    assert life.unauthorized(token) is Replacement.COMING


@pytest.mark.parametrize(("left", "limit"), [(3000.0, 10.0), (16.0, 10.0), (14.0, 2.5), (0.0, 2.5)])
def test_a_flight_is_short_where_the_token_is_about_to_expire(left: float, limit: float) -> None:
    life = Life()
    token = life.obtain(3600)
    life.clock.advance(token.expires_at - life.clock.now() - left)
    assert life.fly() == limit


def test_suspend_for_hours_ends_in_a_refresh_before_anything_is_served() -> None:
    life = Life()
    life.obtain()
    life.clock.advance(8 * 3600)
    assert life.it.current(life.clock.now()) is None
    assert life.due(wanted=True) is Reason.EXPIRED


def test_an_operator_gets_a_flight_at_once_but_not_two() -> None:
    life = Life()
    life.obtain()
    life.clock.advance(10)
    assert life.it.requested(life.clock.now()) == life.clock.now()
    assert life.due() is Reason.REQUESTED
    life.fly()
    assert life.it.requested(life.clock.now()) == life.clock.now()
    life.land()
    assert life.due() is None
    assert life.it.requested(life.clock.now()) == life.clock.now() + schedule.MIN_DELAY
    assert life.due() is None
    life.to_next_attempt()
    assert life.due() is Reason.REQUESTED


def test_an_operators_wish_is_granted_once() -> None:
    life = Life()
    life.obtain()
    life.clock.advance(10)
    life.it.requested(life.clock.now())
    life.obtain()
    life.to_next_attempt()
    assert life.due() is Reason.SCHEDULED


def test_an_operators_wish_during_a_flight_is_that_flight() -> None:
    life = Life()
    life.obtain()
    life.to_next_attempt()
    life.fly()
    life.it.requested(life.clock.now())
    life.fail()
    life.to_next_attempt()
    assert life.due() is Reason.RETRY


def test_an_operators_wish_does_not_break_retry_after() -> None:
    life = Life()
    life.obtain()
    life.clock.advance(3000)
    life.fly()
    life.fail(retry_after=60)
    now = life.clock.now()
    assert life.it.requested(now) == now + 60


class AnyLife(RuleBasedStateMachine):
    """Whatever happens, in whatever order."""

    @initialize(seed=st.integers(0, 2**16))
    def begin(self, seed: int) -> None:
        self.life = Life(seed)
        self.flights = 0
        self.tokens: list[AccessToken] = []

    @rule(seconds=st.floats(0, 5000))
    def time_passes(self, seconds: float) -> None:
        self.life.clock.advance(seconds)

    @rule(seconds=st.floats(-1e6, 1e6))
    def the_wall_clock_jumps(self, seconds: float) -> None:
        self.life.clock.jump_wall(seconds)

    @rule(wanted=st.booleans())
    def the_ticker_ticks(self, wanted: bool) -> None:
        if self.life.due(wanted=wanted) is not None:
            self.life.fly()
            self.flights += 1

    @precondition(lambda self: self.life.it.in_flight)
    @rule(lifetime=st.floats(0.5, 7200), candidate_taken=st.booleans())
    def the_flight_lands(self, lifetime: float, candidate_taken: bool) -> None:
        self.flights -= 1
        self.tokens.append(self.life.land(lifetime, candidate_taken=candidate_taken))

    @precondition(lambda self: self.life.it.in_flight)
    @rule(denied=st.booleans(), retry_after=st.none() | st.floats(0, 1e6))
    def the_candidate_fails(self, denied: bool, retry_after: float | None) -> None:
        self.flights -= 1
        self.life.it.candidate_failed(self.life.clock.now(), denied=denied, retry_after=retry_after)

    @precondition(lambda self: self.tokens)
    @rule(data=st.data(), operation=st.sampled_from("xyz"))
    def the_api_accepts(self, data: st.DataObject, operation: str) -> None:
        self.life.it.accepted(data.draw(st.sampled_from(self.tokens)), operation)

    @rule()
    def a_request_is_turned_away(self) -> None:
        self.life.it.wanted(self.life.clock.now())

    @precondition(lambda self: self.life.it.in_flight)
    @rule(denied=st.booleans(), retry_after=st.none() | st.floats(0, 1e6))
    def the_flight_fails(self, denied: bool, retry_after: float | None) -> None:
        self.flights -= 1
        self.life.fail(denied=denied, retry_after=retry_after)

    @rule()
    def credentials_change(self) -> None:
        self.life.it.credentials_changed(self.life.clock.now())

    @rule()
    def an_operator_asks(self) -> None:
        at = self.life.it.requested(self.life.clock.now())
        assert self.life.it.in_flight or self.life.it.attempt_at <= at

    @precondition(lambda self: self.tokens)
    @rule(data=st.data(), operation=st.sampled_from("xyz"), repeated=st.booleans())
    def the_api_refuses(self, data: st.DataObject, operation: str, repeated: bool) -> None:
        token = data.draw(st.sampled_from(self.tokens))
        now = self.life.clock.now()
        answer = self.life.it.unauthorized(token, operation, now, repeated=repeated)
        current = self.life.it.current(now)
        if answer is Replacement.AT_HAND:
            assert self.life.it.alternative(token, now) not in (None, token)
        if answer is Replacement.AGAIN:
            assert not token.proven
            assert self.life.it.try_at - now <= 30
        if answer is Replacement.COMING:
            soon = self.life.it.next_at(wanted=False) - now <= WORTH_WAITING
            assert self.life.it.in_flight or soon or current is None

    @invariant()
    def no_expired_token_is_served(self) -> None:
        now = self.life.clock.now()
        current = self.life.it.current(now)
        assert current is None or now < current.expires_at
        assert (self.life.state() in (TokenState.ABSENT, TokenState.EXPIRED)) is (current is None)

    @invariant()
    def there_is_one_flight_at_most_and_always_a_next_action(self) -> None:
        assert self.flights == self.life.it.in_flight
        wait = self.life.it.next_at(wanted=False) - self.life.clock.now()
        # A token of two hours is refreshed before 80 % of it; all other waits are shorter.
        assert self.life.it.in_flight or wait <= 0.8 * 7200 + 1

    @invariant()
    def a_valid_token_is_not_left_to_die_without_an_attempt(self) -> None:
        token = self.life.it.token
        valid = token is not None and self.life.clock.now() < token.expires_at
        if token is not None and valid and not self.life.it.in_flight and self.life.it.failures == 0:
            assert self.life.it.attempt_at < token.expires_at


TestAnyLife = AnyLife.TestCase
TestAnyLife.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
