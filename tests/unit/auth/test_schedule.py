from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bits_auth_proxy.auth import schedule
from bits_auth_proxy.auth.tokens import AccessToken

LIFETIMES = st.floats(min_value=0.5, max_value=86_400 * 30)
SEEDS = st.integers(0, 2**32)


class Edge(Random):
    """Draws always the one end of what it may."""

    def __init__(self, *, upper: bool) -> None:
        super().__init__(0)
        self._upper = upper

    def uniform(self, a: float, b: float) -> float:
        return b if self._upper else a


LOWER, UPPER = Edge(upper=False), Edge(upper=True)


def token(lifetime: float, issued_at: float = 1000.0) -> AccessToken:
    return AccessToken(
        "t",
        issued_at=issued_at,
        issued_wall=0.0,
        lifetime=lifetime,
        margin=schedule.safety_margin(lifetime),
    )


@given(LIFETIMES)
def test_the_margin_is_30_s_and_at_most_a_tenth(lifetime: float) -> None:
    assert schedule.safety_margin(lifetime) == pytest.approx(min(30.0, lifetime / 10))


@given(LIFETIMES, SEEDS)
def test_a_refresh_is_due_between_70_and_80_percent_and_before_the_end(lifetime: float, seed: int) -> None:
    each = token(lifetime)
    at = schedule.refresh_at(each, Random(seed))
    assert 0.7 * lifetime - 1e-6 <= at - each.issued_at <= 0.8 * lifetime + 1e-6
    assert at < each.expires_at


def test_refreshes_of_a_fleet_are_spread_over_the_whole_window() -> None:
    rng = Random(1)
    moments = [schedule.refresh_at(token(3600), rng) - 1000 for _ in range(1000)]
    in_tenths = [sum(2520 + 36 * n <= moment < 2556 + 36 * n for moment in moments) for n in range(10)]
    assert sum(in_tenths) == 1000
    assert all(70 <= count <= 130 for count in in_tenths)


@given(st.integers(1, 10_000), SEEDS)
def test_backoff_lies_between_1_s_and_a_bound_that_doubles_to_30(failures: int, seed: int) -> None:
    delay = (
        schedule.retry_at(now=50.0, failures=failures, retry_after=None, token=None, rng=Random(seed)) - 50.0
    )
    assert 1.0 <= delay <= min(30.0, 2.0 ** min(failures, 10))


@pytest.mark.parametrize(
    ("failures", "retry_after", "least", "most"),
    [
        (1, None, 1, 2),
        (2, None, 1, 4),
        (3, None, 1, 8),
        (4, None, 1, 16),
        (5, None, 1, 30),
        (2000, None, 1, 30),
        (1, 0.0, 1, 2),
        (1, 4.0, 5, 6),
        (4, 4.0, 5, 20),
        # The quarter of what was asked for: a fleet that was told the same instant comes back spread out.
        (1, 100.0, 101, 125),
        (1, 300.0, 301, 330),
        (1, 1e9, 301, 330),
    ],
)
def test_the_bounds_of_the_delay(failures: int, retry_after: float | None, least: float, most: float) -> None:
    found = [
        schedule.retry_at(now=50.0, failures=failures, retry_after=retry_after, token=None, rng=rng) - 50.0
        for rng in (LOWER, UPPER)
    ]
    assert found == [least, most]


@pytest.mark.parametrize(
    ("lifetime", "left", "at_left"),
    [
        # With 3600 s: 20 to 10 s before the end, and 1 s from now at least.
        (3600, 300, (20, 10)),
        (3600, 41, (20, 10)),
        # Later than that, half-way to the end.
        (3600, 21, (10.5, 10)),
        (3600, 11, (5.5, 5.5)),
        (3600, 2, (1, 1)),
        (3600, 1.5, None),
        # Short tokens: a fifth to a tenth of the lifetime before the end.
        (50, 40, (10, 5)),
        (2, 1.5, (0.4, 0.2)),
    ],
)
def test_the_last_chance_is_taken_10_to_20_s_before_the_end(
    lifetime: float, left: float, at_left: tuple[float | None, float | None] | None
) -> None:
    each = token(lifetime)
    now = each.expires_at - left
    for rng, expected in zip((UPPER, LOWER), at_left or (None, None), strict=True):
        at = schedule.retry_at(now=now, failures=1, retry_after=300.0, token=each, rng=rng)
        if expected is None:
            assert at > each.expires_at
        else:
            assert each.expires_at - at == pytest.approx(expected)


@given(st.integers(1, 20), st.floats(0, 1e9), SEEDS)
def test_retry_after_is_waited_for_up_to_5_minutes(failures: int, retry_after: float, seed: int) -> None:
    delay = schedule.retry_at(
        now=0.0, failures=failures, retry_after=retry_after, token=None, rng=Random(seed)
    )
    assert min(retry_after, 300.0) <= delay <= min(retry_after, 300.0) + 30.0


@given(LIFETIMES, st.floats(0, 1), st.integers(1, 20), st.none() | st.floats(0, 1e6), SEEDS)
def test_no_valid_token_is_left_to_die_without_one_more_try(
    lifetime: float, share: float, failures: int, retry_after: float | None, seed: int
) -> None:
    each = token(lifetime)
    now = each.issued_at + share * lifetime
    at = schedule.retry_at(now=now, failures=failures, retry_after=retry_after, token=each, rng=Random(seed))
    assert at > now
    left = each.expires_at - now
    if left / 2 >= min(1.0, lifetime / 10):
        assert at <= each.expires_at - min(10.0, lifetime / 10, left / 2) + 1e-6


@given(LIFETIMES, st.floats(0, 2), st.integers(3, 50), SEEDS)
def test_after_refusals_the_pace_is_a_quarter_of_what_is_left_and_at_most_5_minutes(
    lifetime: float, share: float, denials: int, seed: int
) -> None:
    each = token(lifetime)
    now = each.issued_at + share * lifetime
    delay = (
        schedule.retry_denied_at(now=now, denials=denials, retry_after=None, token=each, rng=Random(seed))
        - now
    )
    left = each.expires_at - now
    assert 1.0 - 1e-6 <= delay <= 300.0 + 1e-6
    if left > 0:
        assert delay <= max(1.0, left / 4) + 1e-6


@pytest.mark.parametrize(("left", "pace"), [(3000, 300), (1200, 300), (400, 100), (40, 10), (2, 1), (-5, 1)])
def test_the_pace_after_refusals_with_a_token(left: float, pace: float) -> None:
    each = token(3600)
    now = each.expires_at - left
    found = [
        schedule.retry_denied_at(now=now, denials=9, retry_after=None, token=each, rng=rng) - now
        for rng in (LOWER, UPPER)
    ]
    assert found == [pytest.approx(max(1.0, 0.8 * pace)), pytest.approx(pace)]


@pytest.mark.parametrize(
    ("left", "retry_after", "least", "most"),
    [
        (None, 200.0, 200, 200),
        (None, 1e9, 300, 300),
        (None, 5.0, 24, 30),
        (3000, 290.0, 290, 300),
        # Never past the last chance, 20 to 10 s before the end.
        (100, 200.0, 80, 90),
    ],
)
def test_a_refusal_that_names_when_to_retry_is_heeded(
    left: float | None, retry_after: float, least: float, most: float
) -> None:
    each = token(3600)
    now = 0.0 if left is None else each.expires_at - left
    for seed in range(50):
        delay = (
            schedule.retry_denied_at(
                now=now,
                denials=3,
                retry_after=retry_after,
                token=None if left is None else each,
                rng=Random(seed),
            )
            - now
        )
        assert least - 1e-6 <= delay <= most + 1e-6


def test_without_a_token_the_pace_after_refusals_doubles_from_30_s_to_5_minutes() -> None:
    rng = Random(7)
    for denials, pace in ((1, 30), (2, 30), (3, 30), (4, 60), (5, 120), (6, 240), (7, 300), (50, 300)):
        delay = schedule.retry_denied_at(now=0.0, denials=denials, retry_after=None, token=None, rng=rng)
        assert 0.8 * pace <= delay <= pace
    assert schedule.retry_denied_at(now=0.0, denials=10_000, retry_after=None, token=None, rng=UPPER) == 300.0
