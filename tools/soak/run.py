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
FAULTS: Final = {"next_500": 500, "next_429": 429, "next_cut": 502}
"""Faults of the API's calls, with the status that a client gets."""
REFUSED: Final = "applications.organization.get"
"""An operation for which the API accepts no token."""
TOKEN_STATUSES: Final = (429, 500, 503)
TOKEN_ANSWERS: Final = {
    "reset": b"",
    "cut": b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"type":"Bearer","access_tok',
    "HTML": b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>",
    "no HTTP": b"220 mail.example ESMTP\r\n\r\n",
}
"""Broken answers of the token endpoint; the connection is cut after each."""
WRONG_PAIR_ANSWERS: Final = {"500": b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", "hang": None}
"""What the token endpoint answers to some of the new pairs that are never taken; None is nothing at all. It
denies the others.
"""
DISTURBANCES: Final = (
    "refuse",
    "fail",
    "break",
    "slow",
    "hang",
    "revoke",
    "lag",
    "die",
    "rotate",
    "mistake_denied",
    "mistake_500",
    "mistake_hang",
    "nothing",
)


class Soak:
    """One run. `seen` and `refused` count the responses by status: those of ordinary calls, and those of the
    operation that the API refuses. `injected` counts the faults by name.
    """

    def __init__(
        self, api: str, running: Command, relay: TokenRelay, mounted: Path, rng: random.Random
    ) -> None:
        self.seen: Counter[int] = Counter()
        self.refused: Counter[int] = Counter()
        self.injected: Counter[str] = Counter()
        self.done: Counter[str] = Counter()
        self.slowest = 0.0
        self.held_up = 0.0
        """The longest time, in seconds, for which the machine stopped this process, and so the API."""
        self.arrived = 0
        """Ordinary calls that reached the API, by its own count."""
        self.replayed = 0
        """Of these, how many were sent again after a 401."""
        self._api = api
        self._running = running
        self._relay = relay
        self._mounted = mounted
        self._secret = CLIENT_SECRET
        self._rng = rng
        self._stop = False

    async def run(self, seconds: float) -> None:
        started = await self._running.event("started")
        async with aiohttp.ClientSession(f"http://{started['listen'][0]}") as session:
            clients = [asyncio.ensure_future(self._client(session)) for _ in range(CLIENTS)]
            clients.append(asyncio.ensure_future(self._refused_client(session)))
            watching = asyncio.ensure_future(self._watch())
            await self._disturb(seconds)
            self._stop = True
            await asyncio.gather(*clients, watching)
        async with aiohttp.ClientSession(self._api) as controls:
            counters = (await self._state(controls))["counters"]
            self.arrived = counters["applications.create"]
            self.replayed = counters.get("applications.create 401", 0) - self.seen[401]

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events in the proxy's log."""
        return self._running.events

    @property
    def failures(self) -> Counter[int]:
        """The responses that no fault of the API explains, by status."""
        explained = {200, *FAULTS.values()}
        failed = Counter({status: count for status, count in self.seen.items() if status not in explained})
        return failed + Counter({status: count for status, count in self.refused.items() if status != 401})

    def verdict(self) -> list[str]:
        """Return a sentence for each thing that the injected faults do not explain."""
        wrong = [
            f"{count} responses with {status}, which was not injected"
            for status, count in self.failures.items()
        ]
        for name, status in FAULTS.items():
            seen, injected = self.seen[status], self.injected[name]
            if seen != injected:
                wrong.append(f"{seen} responses with {status}, but {injected} were injected")
        if self.arrived != self.seen.total() + self.replayed:
            wrong.append(
                f"{self.arrived} calls reached the API; clients made {self.seen.total()}, "
                f"and {self.replayed} were replayed"
            )
        adopted = sum(event["event"] == "credentials_adopted" for event in self.events)
        if adopted != self.done["rotate"]:
            wrong.append(f"{adopted} pairs were adopted, but {self.done['rotate']} were good")
        return wrong

    async def _client(self, session: aiohttp.ClientSession) -> None:
        while not self._stop:
            began = time.perf_counter()
            async with session.post(CREATE, json=APPLICATION) as answer:
                await answer.read()
                self.seen[answer.status] += 1
            self.slowest = max(self.slowest, time.perf_counter() - began)

    async def _refused_client(self, session: aiohttp.ClientSession) -> None:
        while not self._stop:
            async with session.post(f"/v1/{REFUSED}", json={}) as answer:
                await answer.read()
                self.refused[answer.status] += 1
            await asyncio.sleep(0.1)

    async def _watch(self) -> None:
        while not self._stop:
            began = time.monotonic()
            await asyncio.sleep(0.1)
            self.held_up = max(self.held_up, time.monotonic() - began - 0.1)

    async def _disturb(self, seconds: float) -> None:
        """Disturb the run, one thing at a time. Each is over before a request has waited for 5 s.

        Each happens at least once, which takes less than a minute.
        """
        end = time.monotonic() + seconds
        async with aiohttp.ClientSession(self._api) as controls:
            await self._set(controls, always_401=REFUSED)
            while True:
                for name in self._rng.sample(DISTURBANCES, len(DISTURBANCES)):
                    what, _, kind = name.partition("_")
                    await getattr(self, f"_{what}")(controls, *([kind] if kind else []))
                    self.done[name] += 1
                    await asyncio.sleep(self._rng.uniform(0.5, 2.0))
                    if time.monotonic() > end and len(self.done) >= len(DISTURBANCES):
                        return

    async def _refuse(self, controls: aiohttp.ClientSession) -> None:
        name = self._rng.choice(list(FAULTS))
        count = self._rng.randint(1, 5)
        self.injected[name] += count
        await self._set(controls, **{name: count})
        while True:
            if not (await self._state(controls))["faults"][name]:
                return
            await asyncio.sleep(0.05)

    async def _fail(self, controls: aiohttp.ClientSession) -> None:
        await self._set(controls, token_mode="fail", token_status=self._rng.choice(TOKEN_STATUSES))
        await asyncio.sleep(self._rng.uniform(0.1, 1.5))
        await self._set(controls, token_mode="ok")

    async def _break(self, controls: aiohttp.ClientSession) -> None:
        kind = self._rng.choice(list(TOKEN_ANSWERS))
        self._relay.answer = TOKEN_ANSWERS[kind]
        await asyncio.sleep(self._rng.uniform(0.1, 1.5))
        self._relay.answer = None

    async def _slow(self, controls: aiohttp.ClientSession) -> None:
        await self._set(controls, token_delay=self._rng.uniform(0.1, 1.0))
        await asyncio.sleep(self._rng.uniform(0.5, 2.0))
        await self._set(controls, token_delay=0.0)

    async def _hang(self, _: aiohttp.ClientSession) -> None:
        """Let one token request hang; the proxy waits 2.5 s for it."""
        self._relay.hangs = 1
        await self._relay.until(lambda: not self._relay.hangs)
        await asyncio.sleep(3)

    async def _revoke(self, controls: aiohttp.ClientSession) -> None:
        async with controls.post("/_emulator/revoke") as answer:
            assert answer.status == 200

    async def _lag(self, controls: aiohttp.ClientSession) -> None:
        await self._set(controls, token_lag=self._rng.uniform(0.2, 0.6))
        await asyncio.sleep(self._rng.uniform(2.0, 4.0))
        await self._set(controls, token_lag=0.0)

    async def _die(self, controls: aiohttp.ClientSession) -> None:
        """Let tokens die early; the proxy replaces the last of them within 4 s."""
        await self._set(controls, token_death=self._rng.uniform(0.6, 1.2))
        await asyncio.sleep(self._rng.uniform(2.0, 4.0))
        await self._set(controls, token_death=0.0)
        await asyncio.sleep(4)

    async def _rotate(self, controls: aiohttp.ClientSession) -> None:
        secret = self._secret = f"rotated-{self._rng.random()}"
        async with controls.post("/_emulator/rotate", json={"client_secret": secret}) as answer:
            assert answer.status == 200
        await self._mount(secret)
        await self._running.event("credentials_adopted", times=self.done["rotate"] + 1)

    async def _mistake(self, _: aiohttp.ClientSession, kind: str) -> None:
        """Put a wrong pair into the files for a while."""
        secret = f"mistake-{self._rng.random()}"
        if kind in WRONG_PAIR_ANSWERS:
            self._relay.answers_to[secret] = WRONG_PAIR_ANSWERS[kind]
        await self._mount(secret)
        await self._relay.until(lambda: self._relay.asked[secret] > 0)
        await asyncio.sleep(self._rng.uniform(0.5, 2.5))
        await self._mount(self._secret)
        if kind == "hang":
            # Until the proxy has given up the token request.
            await asyncio.sleep(3)

    async def _mount(self, secret: str) -> None:
        # In a thread, so that a busy disk does not delay the API, which this event loop serves.
        await asyncio.to_thread(mount, self._mounted, secret)
        self._running.send_signal(signal.SIGHUP)

    async def _nothing(self, controls: aiohttp.ClientSession) -> None:
        """Leave it undisturbed for a moment."""

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
