"""One soak run: the emulator, the proxy in a process of its own, the clients, and what disturbs them."""

import asyncio
import contextlib
import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import aiohttp

from tests.support.commands import CLIENT_SECRET, Command, command, proxy_env
from tests.support.credentials import mount
from tests.support.stand import APPLICATION, CREATE, emulating
from tools.soak.relay import TokenRelay

LIFETIME: Final = 2.0
"""Seconds that a token lives."""
CLIENTS: Final = 16
FAULTS: Final = {"next_500": 500, "next_429": 429, "next_cut": 502, "next_401": 401}
"""Faults of the API's calls, with the status that a client gets; a retry may hide a 401."""
TOKEN_STATUSES: Final = (429, 500, 503)
TOKEN_ANSWERS: Final = {
    "reset": b"",
    "cut": b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"type":"Bearer","access_tok',
    "HTML": b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>",
    "no HTTP": b"220 mail.example ESMTP\r\n\r\n",
}
"""Broken answers of the token endpoint; the connection is cut after each."""


class Soak:
    """One run; `seen` counts responses by status, `injected` the faults by name."""

    def __init__(
        self, api: str, running: Command, relay: TokenRelay, mounted: Path, rng: random.Random
    ) -> None:
        self.seen: Counter[int] = Counter()
        self.injected: Counter[str] = Counter()
        self.done: Counter[str] = Counter()
        self.slowest = 0.0
        self.held_up = 0.0
        """The longest time, in seconds, for which the machine stopped this process, and so the API."""
        self.arrived = 0
        """Calls that reached the API, by its own count."""
        self._api = api
        self._running = running
        self._relay = relay
        self._mounted = mounted
        self._rng = rng
        self._stop = False

    async def run(self, seconds: float) -> None:
        started = await self._running.event("started")
        async with aiohttp.ClientSession(f"http://{started['listen'][0]}") as session:
            clients = [asyncio.ensure_future(self._client(session)) for _ in range(CLIENTS)]
            watching = asyncio.ensure_future(self._watch())
            await self._disturb(seconds)
            self._stop = True
            await asyncio.gather(*clients, watching)
        async with aiohttp.ClientSession(self._api) as controls:
            self.arrived = (await self._state(controls))["counters"]["applications.create"]

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events in the proxy's log."""
        return self._running.events

    def verdict(self) -> list[str]:
        """Return a sentence for each thing that the injected faults do not explain."""
        wrong = []
        allowed = {200, *FAULTS.values()}
        for status, count in self.seen.items():
            if status not in allowed:
                wrong.append(f"{count} responses with {status}, which was not injected")
        for name, status in FAULTS.items():
            seen, injected = self.seen[status], self.injected[name]
            if seen > injected or (seen < injected and status != 401):
                wrong.append(f"{seen} responses with {status}, but {injected} were injected")
        replayed = self.injected["next_401"] - self.seen[401]
        if self.arrived != self.seen.total() + replayed:
            wrong.append(
                f"{self.arrived} calls reached the API; clients made {self.seen.total()}, "
                f"and {replayed} were replayed"
            )
        return wrong

    async def _client(self, session: aiohttp.ClientSession) -> None:
        while not self._stop:
            began = time.perf_counter()
            async with session.post(CREATE, json=APPLICATION) as answer:
                await answer.read()
                self.seen[answer.status] += 1
            self.slowest = max(self.slowest, time.perf_counter() - began)

    async def _watch(self) -> None:
        while not self._stop:
            began = time.monotonic()
            await asyncio.sleep(0.1)
            self.held_up = max(self.held_up, time.monotonic() - began - 0.1)

    async def _disturb(self, seconds: float) -> None:
        """Disturb the run, one thing at a time. Each is over before a request has waited for 5 s."""
        end = time.monotonic() + seconds
        async with aiohttp.ClientSession(self._api) as controls:
            while time.monotonic() < end:
                name = self._rng.choice(("refuse", "fail", "break", "slow", "rotate", "nothing"))
                self.done[name] += 1
                await getattr(self, f"_{name}")(controls)
                await asyncio.sleep(self._rng.uniform(1.0, 3.0))
            await self._used_up(controls)

    async def _refuse(self, controls: aiohttp.ClientSession) -> None:
        name = self._rng.choice(list(FAULTS))
        count = self._rng.randint(1, 5)
        await self._used_up(controls)
        self.injected[name] += count
        await self._set(controls, **{name: count})

    async def _fail(self, controls: aiohttp.ClientSession) -> None:
        await self._set(controls, token_mode="fail", token_status=self._rng.choice(TOKEN_STATUSES))
        await asyncio.sleep(self._rng.uniform(0.1, 1.5))
        await self._set(controls, token_mode="ok")

    async def _break(self, controls: aiohttp.ClientSession) -> None:
        kind = self._rng.choice(list(TOKEN_ANSWERS))
        self.done[f"break: {kind}"] += 1
        self._relay.answer = TOKEN_ANSWERS[kind]
        await asyncio.sleep(self._rng.uniform(0.1, 1.5))
        self._relay.answer = None

    async def _slow(self, controls: aiohttp.ClientSession) -> None:
        await self._set(controls, token_delay=self._rng.uniform(0.1, 1.0))
        await asyncio.sleep(self._rng.uniform(0.5, 2.0))
        await self._set(controls, token_delay=0.0)

    async def _rotate(self, controls: aiohttp.ClientSession) -> None:
        secret = f"rotated-{self._rng.random()}"
        async with controls.post("/_emulator/rotate", json={"client_secret": secret}) as answer:
            assert answer.status == 200
        # In a thread, so that a busy disk does not delay the API, which this event loop serves.
        await asyncio.to_thread(mount, self._mounted, secret)
        self._running.send_signal(signal.SIGHUP)

    async def _nothing(self, controls: aiohttp.ClientSession) -> None:
        """Leave it undisturbed for a moment."""

    async def _used_up(self, controls: aiohttp.ClientSession) -> None:
        """Wait until every injected fault has affected a call."""
        while True:
            faults = (await self._state(controls))["faults"]
            if not any(faults[name] for name in FAULTS):
                return
            await asyncio.sleep(0.05)

    async def _state(self, controls: aiohttp.ClientSession) -> dict[str, Any]:
        async with controls.get("/_emulator/state") as answer:
            found: dict[str, Any] = await answer.json()
            return found

    async def _set(self, controls: aiohttp.ClientSession, **faults: Any) -> None:
        async with controls.post("/_emulator/faults", json=faults) as answer:
            assert answer.status == 200


@contextlib.asynccontextmanager
async def standing(rng: random.Random) -> AsyncIterator[Soak]:
    """Serve the emulator, and run the real command in front of it as a separate process."""
    with tempfile.TemporaryDirectory() as directory:
        mount(Path(directory), CLIENT_SECRET)
        async with emulating(token_lifetime=LIFETIME) as (_, api):
            relay = TokenRelay(int(api.rpartition(":")[2]))
            server = await asyncio.start_server(relay.serve, "127.0.0.1", 0)
            token_url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/oauth2/token"
            env = proxy_env(
                api, BITS_TOKEN_URL=token_url, BITS_CREDENTIALS_DIR=directory, BITS_ACCESS_LOG="off"
            )
            async with server, command("run", env=env) as running:
                yield Soak(api, running, relay, Path(directory), rng)
                running.send_signal(signal.SIGTERM)
                assert await running.ended() == 0
