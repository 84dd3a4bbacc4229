"""Clocks that jump: the machine slept, or its time was set."""

import pytest

from bits_auth_proxy.auth.tokens import TokenState
from tests.support.stepped import Stage, stepped


@stepped
async def test_after_hours_of_sleep_the_first_call_goes_with_a_new_token(stage: Stage) -> None:
    await stage.begin()
    assert await stage.call() == 200
    stage.suspend(6 * 3600)
    assert stage.token.state is TokenState.EXPIRED
    assert await stage.call() == 200
    assert stage.api.seen == ["token-1", "token-2"]


@stepped
async def test_after_a_nap_the_token_is_refreshed_in_the_background(stage: Stage) -> None:
    await stage.begin()
    stage.suspend(0.85 * 3600)
    assert await stage.call() == 200
    assert stage.api.seen == ["token-1"]
    await stage.pass_time(1)
    assert await stage.call() == 200
    assert stage.api.seen == ["token-1", "token-2"]


@stepped
async def test_a_wall_clock_set_ahead_refreshes_in_the_background_once(stage: Stage) -> None:
    await stage.begin()
    stage.clock.jump_wall(7 * 86400)
    assert stage.token.state is TokenState.STALE
    assert await stage.call() == 200
    assert stage.api.seen == ["token-1"]
    await stage.pass_time(60)
    assert await stage.call() == 200
    assert stage.api.seen == ["token-1", "token-2"]
    assert stage.door.asked == 2


@stepped
async def test_a_wall_clock_set_ahead_while_the_endpoint_is_down_costs_nothing(stage: Stage) -> None:
    await stage.begin()
    await stage.door.shut()
    stage.clock.jump_wall(7 * 86400)
    for _ in range(60):
        await stage.pass_time(10)
        assert await stage.call() == 200
    assert stage.token.consecutive_failures < 120


@pytest.mark.parametrize("seconds", [-3600, -7 * 86400])
@stepped
async def test_a_wall_clock_set_back_changes_nothing(stage: Stage, seconds: float) -> None:
    await stage.begin()
    due = stage.token.next_refresh - stage.clock.wall()
    stage.clock.jump_wall(seconds)
    await stage.pass_time(due - 1, step=20)
    assert stage.door.asked == 1
    await stage.pass_time(2)
    assert stage.door.asked == 2
    assert await stage.call() == 200
