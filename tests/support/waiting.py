"""Waiting for what is under way elsewhere, on sockets and in other processes."""

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

HANGS: Final = 120.0
"""Seconds after which a wait is taken for one without end: a busy machine can hold up a process for most of a
minute, and that is no fault of the code."""

T = TypeVar("T")


async def seen(condition: Callable[[], T], told: Callable[[], str] = str) -> T:
    """Wait until a condition holds; return its value. Where it never does, `told` says how things are."""
    try:
        async with asyncio.timeout(HANGS):
            while not (value := condition()):  # noqa: ASYNC110 - the far side of a socket sets no event
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"never seen: {told()}") from None
    return value


async def at_rest(count: Callable[[], int]) -> int:
    """Wait until a count that sockets drive grows no more; return it.

    Each look comes after a turn of the event loop, so however slow the machine is, who could go on has had
    many chances to.
    """
    before, still = count(), 0
    async with asyncio.timeout(HANGS):
        while still < 20:
            await asyncio.sleep(0.015)
            now = count()
            before, still = now, still + 1 if now == before else 0
    return before
