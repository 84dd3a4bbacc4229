"""Tokens of seconds under steady traffic: refreshes go unnoticed.

`make test ARGS="-k short_tokens --steady-seconds 60 -s"` runs it for a minute and prints the figures.
"""

import asyncio

import aiohttp
import pytest

from tests.support.stand import APPLICATION, CREATE, standing

LIFETIME = 4.0
CLIENTS = 8


async def test_no_answer_but_2xx_while_tokens_of_4_seconds_come_and_go(pytestconfig: pytest.Config) -> None:
    seconds = float(pytestconfig.getoption("--steady-seconds"))
    loop = asyncio.get_running_loop()
    statuses: list[int] = []

    async def client(session: aiohttp.ClientSession, end: float) -> None:
        while loop.time() < end:
            async with session.post(CREATE, json=APPLICATION) as answer:
                await answer.read()
                statuses.append(answer.status)

    async with standing(token_lifetime=LIFETIME, BITS_ACCESS_LOG="off") as stand:
        async with aiohttp.ClientSession(stand.url) as session:
            await asyncio.gather(*(client(session, loop.time() + seconds) for _ in range(CLIENTS)))
        async with aiohttp.ClientSession(stand.admin) as session, session.get("/metrics") as answer:
            metrics = await answer.text()
    refreshes = sum(
        float(line.rpartition(" ")[2])
        for line in metrics.splitlines()
        if line.startswith('bits_proxy_token_refreshes_total{outcome="success"')
    )
    others = [status for status in statuses if not 200 <= status < 300]
    print(f"{len(statuses)} requests, {refreshes:.0f} tokens, {len(others)} answers that are not 2xx")
    # Each token is replaced before 80 % of its life have gone.
    assert refreshes >= seconds / (LIFETIME * 0.8)
    assert statuses
    assert others == []
