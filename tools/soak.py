"""Tokens of 2 s, faults at random, rotations, 16 clients: every answer is accounted for.

`make soak` runs 10 minutes. An answer is a success, or a fault of the API that was injected; none fails
because of the token, and no call reaches the API twice but after a 401. Exit 0 if that held.
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

from tests.support import evidence
from tests.support.commands import CLIENT_SECRET, Command, command, proxy_env
from tests.support.credentials import mount
from tests.support.stand import APPLICATION, CREATE, emulating

LIFETIME = 2.0
CLIENTS = 16
FAULTS = {"next_500": 500, "next_429": 429, "next_cut": 502, "next_401": 401}
"""What is injected into the API's calls, and the status it shows as; of a 401 the caller need not hear."""
TOKEN_STATUSES = (429, 500, 503)
TOKEN_ANSWERS = {
    "reset": b"",
    "cut": b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"type":"Bearer","access_tok',
    "HTML": b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>",
    "no HTTP": b"220 mail.example ESMTP\r\n\r\n",
}
"""What comes instead of a token endpoint's answer before the connection is cut."""


class TokenRelay:
    """Stands before the token endpoint; while `answer` is set, nothing gets there."""

    def __init__(self, port: int) -> None:
        self.answer: bytes | None = None
        self._port = port

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            if self.answer is not None:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(self.answer)
                await writer.drain()
            else:
                far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
                await asyncio.wait(
                    [
                        asyncio.ensure_future(pump(reader, far_writer)),
                        asyncio.ensure_future(pump(far_reader, writer)),
                    ],
                )
        writer.transport.abort()


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass on bytes until one side has no more."""
    with contextlib.suppress(ConnectionError):
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
    writer.close()


class Soak:
    """One run; `seen` counts the answers, `injected` the faults of the API's calls."""

    def __init__(
        self, api: str, running: Command, relay: TokenRelay, mounted: Path, rng: random.Random
    ) -> None:
        self.seen: Counter[int] = Counter()
        self.injected: Counter[str] = Counter()
        self.done: Counter[str] = Counter()
        self.slowest = 0.0
        self.held_up = 0.0
        """Seconds for which the machine held up this process at most, and with it the API."""
        self.arrived = 0
        """Calls that the API counted."""
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
            seen, injected = self.seen[status], self.injected[name]
            if seen > injected or (seen < injected and status != 401):
                wrong.append(f"{seen} answers with {status}, {injected} injected")
        replayed = self.injected["next_401"] - self.seen[401]
        if self.arrived != self.seen.total() + replayed:
            wrong.append(
                f"{self.arrived} calls at the API of {self.seen.total()}, {replayed} of them replayed"
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
        """Do one thing after the other; each is over before the next, and before a request waits 5 s."""
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
        # In a thread: a busy disk is not to hold up the API, which is served by this event loop.
        await asyncio.to_thread(mount, self._mounted, secret)
        self._running.send_signal(signal.SIGHUP)

    async def _nothing(self, controls: aiohttp.ClientSession) -> None:
        """Let it rest."""

    async def _used_up(self, controls: aiohttp.ClientSession) -> None:
        """Wait until every fault that was injected has hit a call."""
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
    """Serve the emulator, and the real command before it in a process of its own."""
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


async def main() -> int:
    """Run, tell, judge; once more, if the machine stood still for longer than a token lives."""
    parser = argparse.ArgumentParser(prog="make soak ARGS=…", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6))
    arguments = parser.parse_args()
    good, held_up = await one(arguments.seconds, arguments.seed)
    if not good and held_up > LIFETIME:
        print(f"The machine stood still for {held_up:.1f} s: that proves nothing. Once more.")
        good, _ = await one(arguments.seconds, arguments.seed)
    return 0 if good else 1


async def one(seconds: float, seed: int) -> tuple[bool, float]:
    """Run and tell; return whether it went well, and for how long the machine stood still."""
    async with standing(random.Random(seed)) as soak:
        await soak.run(seconds)
        wrong = soak.verdict()
        metrics = Counter(event["event"] for event in soak.events)
    print(f"seed {seed}, {seconds:g} s, {CLIENTS} clients, tokens of {LIFETIME:g} s")
    print(f"answers by status: {dict(sorted(soak.seen.items()))}; the slowest took {soak.slowest:.2f} s")
    print(f"calls at the API: {soak.arrived}")
    print(f"faults injected: {dict(soak.injected)}; done: {dict(soak.done)}")
    print(f"tokens: {metrics['token_refreshed']}, failed token requests: {metrics['token_refresh_failed']}")
    if wrong:
        print("\n".join(f"{name}:\n{text}" for name, text in evidence.told()))
    for each in wrong:
        print(f"NOT ACCOUNTED FOR: {each}")
    return not wrong and soak.seen[200] > 0, soak.held_up


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
