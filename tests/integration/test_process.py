"""What the operating system lets others see of the process."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from tests.support.commands import CLIENT_SECRET, command, proxy_env
from tests.support.stand import emulating

# Root may look into everything, by its capabilities: here nobody has any.
UNPRIVILEGED = ("setpriv", "--bounding-set=-all") if os.getuid() == 0 else ()
PEEK = "import sys; print(open(sys.argv[1], 'rb').read().decode())"


async def peek(path: str) -> tuple[int, str]:
    """Read a file as another process of the same user."""
    process = await asyncio.create_subprocess_exec(
        *UNPRIVILEGED,
        sys.executable,
        "-S",
        "-c",
        PEEK,
        path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    stdout, stderr = await process.communicate()
    return process.returncode or 0, (stdout + stderr).decode()


@pytest.mark.parametrize("allowed", [False, True])
async def test_the_same_users_processes_read_the_environment_only_if_allowed(allowed: bool) -> None:
    async with emulating() as (_, api):
        env = proxy_env(api, BITS_ALLOW_DEBUGGERS=str(allowed).lower())
        async with command("run", env=env, prefix=UNPRIVILEGED) as running:
            await running.event("started")
            code, output = await peek(f"/proc/{running.process.pid}/environ")
    assert (CLIENT_SECRET in output) is allowed
    assert ("PermissionError" in output) is not allowed
    assert (code == 0) is allowed


@pytest.mark.parametrize(("allowed", "size"), [(False, "0"), (True, None)])
async def test_core_dumps_are_written_only_if_allowed(allowed: bool, size: str | None) -> None:
    async with emulating() as (_, api):
        env = proxy_env(api, BITS_ALLOW_CORE_DUMPS=str(allowed).lower(), BITS_ALLOW_DEBUGGERS="true")
        async with command("run", env=env) as running:
            await running.event("started")
            limits = Path(f"/proc/{running.process.pid}/limits").read_text("utf-8")
    own = Path("/proc/self/limits").read_text("utf-8")
    (line,) = (each for each in limits.splitlines() if each.startswith("Max core file size"))
    (before,) = (each for each in own.splitlines() if each.startswith("Max core file size"))
    soft = line.split()[4]
    assert soft == (size or before.split()[4])


async def test_the_soft_limit_of_open_files_is_raised_to_the_hard_limit() -> None:
    async with (
        emulating() as (_, api),
        command("run", env=proxy_env(api), prefix=("prlimit", "--nofile=64:4096")) as running,
    ):
        await running.event("started")
        limits = Path(f"/proc/{running.process.pid}/limits").read_text("utf-8")
    (line,) = (each for each in limits.splitlines() if each.startswith("Max open files"))
    assert line.split()[3:5] == ["4096", "4096"]
