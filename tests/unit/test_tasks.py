"""Tasks have an owner: none is lost, none fails in silence, none outlives it."""

import asyncio
import gc

import pytest

from bits_auth_proxy.clock import SystemClock
from bits_auth_proxy.tasks import TaskOwner
from tests.support.waiting import HANGS


def owner() -> tuple[TaskOwner, list[BaseException]]:
    crashes: list[BaseException] = []
    return TaskOwner(crashes.append), crashes


async def test_a_task_runs_and_is_forgotten() -> None:
    tasks, crashes = owner()
    ran = asyncio.Event()

    async def run() -> None:
        ran.set()

    task = tasks.start(run(), name="run")
    assert task.get_name() == "run"
    assert len(tasks._tasks) == 1
    await task
    await asyncio.sleep(0)
    assert ran.is_set()
    assert len(tasks._tasks) == 0
    assert crashes == []


async def test_a_task_that_nobody_holds_is_not_collected() -> None:
    tasks, _ = owner()
    done = asyncio.get_running_loop().create_future()

    async def wait_on_a_cycle() -> None:
        # Nothing but the task refers to this future.
        inner = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(inner.set_result, None)
        await inner
        done.set_result(None)

    tasks.start(wait_on_a_cycle(), name="wait")
    gc.collect()
    async with asyncio.timeout(HANGS):
        await done


async def test_every_crash_is_told_once() -> None:
    tasks, crashes = owner()
    error = RuntimeError("boom")

    async def crash() -> None:
        raise error

    async with asyncio.timeout(HANGS):
        await asyncio.wait([tasks.start(crash(), name="crash")])
    await asyncio.sleep(0)
    assert crashes == [error]
    assert len(tasks._tasks) == 0


async def test_close_cancels_what_runs_waits_for_its_end_and_tells_no_crash() -> None:
    tasks, crashes = owner()
    ended = []

    async def wait(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(name)

    for name in ("a", "b"):
        tasks.start(wait(name), name=name)
    await asyncio.sleep(0)
    await tasks.close()
    assert sorted(ended) == ["a", "b"]
    assert len(tasks._tasks) == 0
    assert crashes == []


async def test_a_crash_while_closing_is_told() -> None:
    tasks, crashes = owner()

    async def crash_at_the_end() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise RuntimeError("late")

    tasks.start(crash_at_the_end(), name="crash")
    await asyncio.sleep(0)
    await tasks.close()
    assert [str(error) for error in crashes] == ["late"]


async def test_closing_an_owner_of_nothing_is_fine() -> None:
    tasks, _ = owner()
    await tasks.close()
    await tasks.close()
    assert len(tasks._tasks) == 0


def test_without_a_loop_a_task_is_refused() -> None:
    tasks, _ = owner()

    async def run() -> None:
        raise AssertionError

    coroutine = run()
    with pytest.raises(RuntimeError, match="no running event loop"):
        tasks.start(coroutine, name="run")
    coroutine.close()
    assert len(tasks._tasks) == 0


def test_the_systems_clocks_go_on() -> None:
    clock = SystemClock()
    readings = [clock.now() for _ in range(100)]
    assert readings == sorted(readings)
    assert clock.wall() > 1_700_000_000
