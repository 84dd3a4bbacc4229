"""Tokens of 2 s, faults at random, rotations, 16 clients: every answer is accounted for.

`make soak` runs 10 minutes. An answer is a success, or a fault of the API that was injected; none fails
because of the token. Exit 0 if that held.
"""

import argparse
import asyncio
import contextlib
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

from tests.fakes.commands import CLIENT_SECRET, Command, command, proxy_env
from tests.fakes.credentials import mount
from tests.fakes.stand import APPLICATION, CREATE, emulating

LIFETIME = 2.0
CLIENTS = 16
FAULTS = {"next_500": 500, "next_429": 429, "next_cut": 502, "next_401": 401}
"""What is injected into the API's calls, and the status it may show as."""


class Soak:
    """One run; `seen` counts the answers, `injected` the faults of the API's calls."""

    def __init__(self, api: str, running: Command, mounted: Path, rng: random.Random) -> None:
        self.seen: Counter[int] = Counter()
        self.injected: Counter[str] = Counter()
        self.done: Counter[str] = Counter()
        self.slowest = 0.0
        self._api = api
        self._running = running
        self._mounted = mounted
        self._rng = rng
        self._stop = False

    async def run(self, seconds: float) -> None:
        started = await self._running.event("started")
        async with aiohttp.ClientSession(f"http://{started['listen'][0]}") as session:
            clients = [asyncio.ensure_future(self._client(session)) for _ in range(CLIENTS)]
            await self._disturb(seconds)
            self._stop = True
            await asyncio.gather(*clients)

    @property
    def events(self) -> list[dict[str, Any]]:
        """The proxy's log."""
        return self._running.events

    def verdict(self) -> list[str]:
        """Return what can't be accounted for."""
        wrong = []
        allowed = {200, *FAULTS.values()}
        for status, count in self.seen.items():
            if status not in allowed:
                wrong.append(f"{count} answers with {status}, which nobody injected")
        for name, status in FAULTS.items():
            if self.seen[status] > self.injected[name]:
                wrong.append(f"{self.seen[status]} answers with {status}, {self.injected[name]} injected")
        return wrong

    async def _client(self, session: aiohttp.ClientSession) -> None:
        while not self._stop:
            began = time.perf_counter()
            async with session.post(CREATE, json=APPLICATION) as answer:
                await answer.read()
                self.seen[answer.status] += 1
            self.slowest = max(self.slowest, time.perf_counter() - began)

    async def _disturb(self, seconds: float) -> None:
        """Do one thing after the other; each is over before the next, and before a request waits 5 s."""
        end = time.monotonic() + seconds
        async with aiohttp.ClientSession(self._api) as controls:
            while time.monotonic() < end:
                name = self._rng.choice(("refuse", "fail", "slow", "rotate", "nothing"))
                self.done[name] += 1
                await getattr(self, f"_{name}")(controls)
                await asyncio.sleep(self._rng.uniform(1.0, 3.0))

    async def _refuse(self, controls: aiohttp.ClientSession) -> None:
        name = self._rng.choice(list(FAULTS))
        count = self._rng.randint(1, 5)
        self.injected[name] += count
        await self._set(controls, **{name: count})

    async def _fail(self, controls: aiohttp.ClientSession) -> None:
        await self._set(controls, token_mode="fail", token_status=self._rng.choice((429, 500, 503)))
        await asyncio.sleep(self._rng.uniform(0.1, 1.5))
        await self._set(controls, token_mode="ok")

    async def _slow(self, controls: aiohttp.ClientSession) -> None:
        await self._set(controls, token_delay=self._rng.uniform(0.1, 1.0))
        await asyncio.sleep(self._rng.uniform(0.5, 2.0))
        await self._set(controls, token_delay=0.0)

    async def _rotate(self, controls: aiohttp.ClientSession) -> None:
        secret = f"rotated-{self._rng.random()}"
        async with controls.post("/_emulator/rotate", json={"client_secret": secret}) as answer:
            assert answer.status == 200
        mount(self._mounted, secret)
        self._running.send_signal(signal.SIGHUP)

    async def _nothing(self, controls: aiohttp.ClientSession) -> None:
        """Let it rest."""

    async def _set(self, controls: aiohttp.ClientSession, **faults: Any) -> None:
        async with controls.post("/_emulator/faults", json=faults) as answer:
            assert answer.status == 200


@contextlib.asynccontextmanager
async def standing(rng: random.Random) -> AsyncIterator[Soak]:
    """Serve the emulator, and the real command before it in a process of its own."""
    with tempfile.TemporaryDirectory() as directory:
        mount(Path(directory), CLIENT_SECRET)
        async with emulating(token_lifetime=LIFETIME) as (_, api):
            env = proxy_env(api, BITS_CREDENTIALS_DIR=directory, BITS_ACCESS_LOG="off")
            async with command("run", env=env) as running:
                yield Soak(api, running, Path(directory), rng)
                running.send_signal(signal.SIGTERM)
                assert await running.ended() == 0


async def main() -> int:
    """Run, tell, judge."""
    parser = argparse.ArgumentParser(prog="make soak ARGS=…", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    arguments = parser.parse_args()
    async with standing(random.Random(arguments.seed)) as soak:
        await soak.run(arguments.seconds)
        wrong = soak.verdict()
        metrics = Counter(event["event"] for event in soak.events)
    print(f"seed {arguments.seed}, {arguments.seconds:g} s, {CLIENTS} clients, tokens of {LIFETIME:g} s")
    print(f"answers by status: {dict(sorted(soak.seen.items()))}; the slowest took {soak.slowest:.2f} s")
    print(f"faults injected: {dict(soak.injected)}; done: {dict(soak.done)}")
    print(f"tokens: {metrics['token_refreshed']}, failed token requests: {metrics['token_refresh_failed']}")
    for each in wrong:
        print(f"NOT ACCOUNTED FOR: {each}")
    return 1 if wrong or not soak.seen[200] else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
