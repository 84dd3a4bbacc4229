"""Output that nobody reads, a full disk and a closed terminal cost log lines, and nothing else."""

import asyncio
import contextlib
import fcntl
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from typing import Any

import aiohttp
import pytest

from tests.support.commands import ROOT, get, proxy_env
from tests.support.ports import free_port
from tests.support.stand import APPLICATION, CREATE, emulating
from tests.support.waiting import HANGS

CALLS = 700
"""More than fit into a pipe and the queue."""


class Started:
    """A proxy whose standard output is a descriptor of the test's choice."""

    def __init__(self, process: asyncio.subprocess.Process, port: int, admin_port: int) -> None:
        self.process = process
        self.url = f"http://127.0.0.1:{port}"
        self.admin = f"http://127.0.0.1:{admin_port}"

    async def call(self, times: int) -> None:
        async with asyncio.timeout(HANGS), aiohttp.ClientSession(self.url) as client:
            for _ in range(times):
                async with client.post(CREATE, json=APPLICATION) as answer:
                    assert answer.status == 200

    async def dropped(self, *, at_least: int = 0) -> int:
        """Wait until so many lines were dropped, of which the log's thread decides; return how many."""
        async with asyncio.timeout(HANGS):
            while True:
                _, text = await get(f"{self.admin}/status")
                count = int(json.loads(text)["metrics"]["log_lines_dropped_total"])
                if count >= at_least:
                    return count

    async def ended(self) -> int:
        async with asyncio.timeout(HANGS):
            return await self.process.wait()


@contextlib.asynccontextmanager
async def started(stdout: int, **more: str) -> AsyncIterator[Started]:
    """Run the proxy before an emulator; it serves when this begins."""
    port, admin_port = free_port(), free_port()
    async with emulating() as (_, api):
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "bits_auth_proxy",
            "run",
            cwd=ROOT / "tests",
            env=environment(
                proxy_env(
                    api,
                    BITS_LISTEN=f"127.0.0.1:{port}",
                    BITS_ADMIN_LISTEN=f"127.0.0.1:{admin_port}",
                    BITS_ACCESS_LOG="all",
                    **more,
                )
            ),
            stdout=stdout,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            its = Started(process, port, admin_port)
            await serves(its)
            yield its
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()


async def serves(its: Started) -> None:
    async with asyncio.timeout(HANGS):
        while True:
            with contextlib.suppress(aiohttp.ClientConnectionError):
                if (await get(f"{its.admin}/startupz"))[0] == 200:
                    return
            assert its.process.returncode is None
            await asyncio.sleep(0.01)


def environment(more: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("BITS_")} | dict(more)


async def lines_of(descriptor: int) -> list[dict[str, Any]]:
    """Read all that is there until the writers are gone."""

    def read() -> bytes:
        pieces = []
        while piece := os.read(descriptor, 65_536):
            pieces.append(piece)
        return b"".join(pieces)

    content = await asyncio.to_thread(read)
    return [json.loads(line) for line in content.splitlines()]


async def test_a_reader_that_stalls_stops_no_call_and_no_probe_and_is_told_what_it_missed() -> None:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    async with started(writer) as its:
        os.close(writer)
        await its.call(CALLS)
        assert (await get(f"{its.admin}/livez"))[0] == 200
        dropped = await its.dropped(at_least=1)
        assert dropped < CALLS
        # The reader is back.
        reading = asyncio.ensure_future(lines_of(reader))
        await its.call(1)
        its.process.send_signal(signal.SIGTERM)
        assert await its.ended() == 0
        found = await reading
    os.close(reader)
    told = [line["count"] for line in found if line["event"] == "log_lines_dropped"]
    assert sum(told) >= dropped
    written = sum(line["event"] == "request" for line in found)
    assert written + sum(told) >= CALLS


async def test_sigterm_ends_with_0_while_the_reader_stalls() -> None:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    async with started(writer) as its:
        os.close(writer)
        await its.call(CALLS)
        its.process.send_signal(signal.SIGTERM)
        assert await its.ended() == 0
    os.close(reader)


async def test_a_closed_pipe_costs_lines_alone() -> None:
    reader, writer = os.pipe()
    async with started(writer) as its:
        os.close(writer)
        os.close(reader)
        await its.call(10)
        await its.dropped(at_least=10)
        its.process.send_signal(signal.SIGTERM)
        assert await its.ended() == 0


@pytest.mark.parametrize("fmt", ["json", "console"])
async def test_a_full_disk_costs_lines_alone(fmt: str) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    async with started(full, BITS_LOG_FORMAT=fmt) as its:
        await its.call(10)
        assert (await get(f"{its.admin}/readyz"))[0] == 200
        await its.dropped(at_least=10)
        its.process.send_signal(signal.SIGTERM)
        assert await its.ended() == 0
        assert its.process.stderr is not None
        assert await its.process.stderr.read() == b""
    os.close(full)


async def test_a_pipe_that_somebody_made_non_blocking_loses_nothing() -> None:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(writer, False)
    async with started(writer) as its:
        os.close(writer)
        await its.call(40)
        reading = asyncio.ensure_future(lines_of(reader))
        its.process.send_signal(signal.SIGTERM)
        assert await its.ended() == 0
        found = await reading
    os.close(reader)
    assert sum(line["event"] == "request" for line in found) == 40


async def test_the_terminals_mode_is_left_as_it_is() -> None:
    reader, writer = os.pipe()
    async with started(writer) as its:
        await its.call(1)
        assert os.get_blocking(writer)
        its.process.send_signal(signal.SIGTERM)
        assert await its.ended() == 0
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize("more", [{}, {"BITS_LOG_FORMAT": "", "TERM": "xterm"}], ids=["log", "live view"])
async def test_a_terminal_that_is_stopped_stops_no_call(more: dict[str, str]) -> None:
    master, slave = pty.openpty()
    async with started(slave, **more) as its:
        os.close(slave)
        # Nobody reads the master's end, as after Ctrl-S.
        await its.call(CALLS)
        assert (await get(f"{its.admin}/livez"))[0] == 200
        assert 0 < await its.dropped(at_least=1) < CALLS
        its.process.send_signal(signal.SIGTERM)
        assert await its.ended() == 0
    os.close(master)


FREE_PORTS = {
    "BITS_LISTEN": "127.0.0.1:0",
    "BITS_ADMIN_LISTEN": "127.0.0.1:0",
    "BITS_EMULATOR__LISTEN": "127.0.0.1:0",
}


async def test_a_closed_terminal_does_not_end_run() -> None:
    master, slave = pty.openpty()
    async with started(slave) as its:
        os.close(slave)
        os.close(master)
        its.process.send_signal(signal.SIGHUP)
        await its.call(5)
        await its.dropped(at_least=5)
        its.process.send_signal(signal.SIGTERM)
        assert await its.ended() == 0


@pytest.mark.parametrize("output", ["/dev/full", "closed pipe"])
async def test_the_demo_ends_with_a_failure_if_it_cannot_say_what_to_try(output: str) -> None:
    if output == "/dev/full":
        stdout = os.open(output, os.O_WRONLY)
    else:
        reader, stdout = os.pipe()
        os.close(reader)
    code, stderr = await ending(stdout, "demo", **FREE_PORTS)
    os.close(stdout)
    assert code == 1
    assert "Traceback" not in stderr


@pytest.mark.parametrize("output", ["/dev/full", "closed pipe"])
async def test_the_health_check_tells_the_truth_though_nobody_reads_it(output: str) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    async with started(null) as its:
        if output == "/dev/full":
            stdout = os.open(output, os.O_WRONLY)
        else:
            reader, stdout = os.pipe()
            os.close(reader)
        address = its.admin.removeprefix("http://")
        assert await ending(stdout, "healthcheck", "--admin-listen", address) == (0, "")
        code, _ = await ending(stdout, "healthcheck", "--admin-listen", f"127.0.0.1:{free_port()}")
        assert code == 1
        os.close(stdout)
    os.close(null)


async def ending(stdout: int, *arguments: str, **env: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "bits_auth_proxy",
        *arguments,
        cwd=ROOT / "tests",
        env=environment(env),
        stdout=stdout,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(HANGS):
        _, stderr = await process.communicate()
    assert process.returncode is not None
    return process.returncode, stderr.decode()


def test_bad_settings_exit_with_64_though_standard_error_is_full_or_closed() -> None:
    command = [sys.executable, "-m", "bits_auth_proxy", "run", "--drain-timeout", "x"]
    for redirection in (">/dev/full 2>&1", "2>&-", ">&- 2>&-", "2>/dev/full"):
        shell = ["sh", "-c", f'exec "$@" {redirection}', "sh", *command]
        ended = subprocess.run(shell, cwd=ROOT / "tests", env=environment({}), check=False, timeout=HANGS)
        assert ended.returncode == 64, redirection
