from itertools import pairwise

import pytest

from bits_auth_proxy.auth.operations import Operations


def test_an_operation_is_accepted_until_it_is_doubted() -> None:
    operations = Operations()
    assert not operations.accepts("x")
    operations.accept("x")
    assert operations.accepts("x")
    operations.doubt("x")
    operations.doubt("never seen")
    assert not operations.accepts("x")
    assert not operations.is_paced("x", 0.0)


def test_an_operation_may_force_a_flight_at_intervals_that_double_up_to_an_hour() -> None:
    operations = Operations()
    at = [now for now in range(20_000) if operations.may_force("x", float(now))]
    gaps = [later - earlier for earlier, later in pairwise(at)]
    assert gaps[:9] == [30, 60, 120, 240, 480, 960, 1920, 3600, 3600]
    assert set(gaps[7:]) == {3600}


def test_after_a_long_time_the_intervals_begin_anew() -> None:
    operations = Operations()
    assert operations.may_force("x", 0.0)
    assert operations.may_force("x", 30.0)
    # Its second interval is 60 s, and ended at 90 s.
    assert operations.may_force("x", 150.0)
    assert not operations.may_force("x", 179.0)
    assert operations.may_force("x", 180.0)


@pytest.mark.parametrize("count", [2, 1000])
def test_all_operations_together_force_a_flight_every_5_s_at_most(count: int) -> None:
    operations = Operations()
    forced = [
        now for now in range(100) if any(operations.may_force(f"x-{number}", now) for number in range(count))
    ]
    assert forced == ([0, 5, 30, 35, 90, 95] if count == 2 else list(range(0, 100, 5)))


def test_blame_begins_an_interval_but_none_within_another() -> None:
    operations = Operations()
    operations.accept("x")
    operations.blame("x", 0.0)
    operations.blame("x", 29.0)
    assert not operations.accepts("x")
    assert operations.is_paced("x", 29.9)
    assert not operations.is_paced("x", 30.0)


def test_names_that_callers_make_up_are_forgotten() -> None:
    operations = Operations()
    for number in range(10_000):
        operations.accept(f"x-{number}")
        operations.blame(f"y-{number}", 0.0)
    assert len(operations._accepted) <= 256
    assert len(operations._paces) <= 256
    assert operations.is_paced("y-9999", 1.0)
    assert not operations.is_paced("y-1", 1.0)
