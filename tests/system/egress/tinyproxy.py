"""tinyproxy, an egress proxy like those that companies run between their networks and the internet."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from tests.support import evidence
from tests.support.ports import free_port
from tests.support.waiting import seen


class Tinyproxy:
    """A running tinyproxy on `port`, with its log."""

    def __init__(self, process: asyncio.subprocess.Process, port: int) -> None:
        self.port = port
        self.log = ""
        self._process = process
        evidence.keep(f"tinyproxy on port {port}", lambda: self.log)
        self._reading = asyncio.ensure_future(self._read())

    @property
    def tunnels(self) -> list[str]:
        """The requests for tunnels so far."""
        return [line for line in self.log.splitlines() if "CONNECT " in line and "Request (" in line]

    async def says(self, text: str) -> None:
        """Wait until the log holds `text`."""
        await seen(lambda: text in self.log, lambda: f"{text} in {self.log}")

    async def stop(self) -> None:
        """Stop it, which also ends its tunnels."""
        if self._process.returncode is None:
            self._process.kill()
        await self._reading
        await self._process.wait()

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            self.log += line.decode()


@contextlib.asynccontextmanager
async def tinyproxy(
    directory: Path, *, connect_port: int, port: int | None = None, login: str | None = None
) -> AsyncIterator[Tinyproxy]:
    """Serve tunnels to `connect_port`, for everybody or only with `login` ("user password")."""
    port = port or free_port()
    lines = [f"Port {port}", "Listen 127.0.0.1", "Allow 127.0.0.1", "LogLevel Info", "Timeout 60"]
    lines += [f"ConnectPort {connect_port}", *([f"BasicAuth {login}"] if login else [])]
    config = directory / "tinyproxy.conf"
    config.write_text("\n".join([*lines, ""]), "utf-8")
    process = await asyncio.create_subprocess_exec(
        *("tinyproxy", "-d", "-c", str(config)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    running = Tinyproxy(process, port)
    try:
        await running.says("Accepting connections")
        yield running
    finally:
        await running.stop()
