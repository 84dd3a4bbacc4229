"""Every command of the documentation works, in a shell and with curl.

Commands of the proxy and of curl run here, against an emulator. Those that need other programs run elsewhere.
`ELSEWHERE` names the file that runs them, and that file must contain them.
"""

import asyncio
import contextlib
import os
import re
import shlex
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.commands import ROOT, Command, command, proxy_env, run
from tests.support.documentation import PAGES, commands_of, named
from tests.support.stand import emulating
from tests.support.waiting import HANGS
from tools.screencast import calls

# The beginning of a command → the file that runs it, and a text that this file must contain.
ELSEWHERE: dict[str, tuple[str, str]] = {
    "docker compose -f compose.bits.yaml": ("tests/system/containers/test_compose.py", "compose.bits.yaml"),
    "docker compose": ("tests/system/containers/test_compose.py", "compose.yaml"),
    "docker": ("tests/system/containers/test_docker_page.py", "docker.md"),
    "install -d -m 700 credentials": ("compose.bits.yaml", "install -d -m 700 credentials"),
    "sudo apt-get install wrk nginx caddy valgrind": (".ci/run", "valgrind:valgrind"),
    "printf": ("compose.bits.yaml", "printf"),
}
SERVING = ("run", "demo", "emulator")
PORTS = {"8080": "BITS_LISTEN", "9090": "BITS_ADMIN_LISTEN", "8090": "BITS_EMULATOR__LISTEN"}
ALL_COMMANDS = [(page, line) for page in PAGES for line in commands_of(page)]


def test_commands_are_found() -> None:
    assert len(ALL_COMMANDS) >= 15


@pytest.mark.parametrize(
    ("page", "line"), ALL_COMMANDS, ids=lambda part: part if isinstance(part, str) else named(part)
)
async def test_the_command_works(page: Path, line: str, tmp_path: Path) -> None:
    words = shlex.split(line)
    if words[0] == "make":
        # The verbs themselves run this test, or are steps of .ci/run.
        assert await shell(shlex.join(["make", "-n", *words[1:]]), cwd=ROOT) == 0
    elif words[0] == "curl":
        async with demonstrating() as ports:
            assert await shell(moved(line, ports)) == 0
    elif words[0] == "export":
        assert all("=" in word for word in words[1:])
    elif "bits-auth-proxy" in words[0]:
        await the_proxy_takes(words[1:], tmp_path)
    else:
        where = next((place for start, place in ELSEWHERE.items() if line.startswith(start)), None)
        assert where is not None, f"no test runs this: {line}"
        file, word = where
        assert word in (ROOT / file).read_text("utf-8")


async def test_the_readmes_calls_in_one_session_print_what_it_says() -> None:
    async with demonstrating() as ports:
        *_, last = [await printed_by(moved(call, ports)) for call in calls()]
    assert last == "bits_proxy_token_refused_total 1.0\n"
    assert f"prints `{last.strip()}`" in (ROOT / "README.md").read_text("utf-8")


async def printed_by(line: str) -> str:
    process = await asyncio.create_subprocess_exec(
        "bash", "-o", "pipefail", "-c", line, stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(HANGS):
        printed, _ = await process.communicate()
    assert process.returncode == 0
    return printed.decode()


async def the_proxy_takes(arguments: list[str], directory: Path) -> None:
    (directory / "bits.toml").write_text("[upstream]\nmax_connections = 20\n", "utf-8")
    if arguments[0] in SERVING:
        async with (
            emulating() as (_, api),
            command(*arguments, env=settings(api), cwd=directory) as running,
        ):
            await served(running)
            running.send_signal(signal.SIGTERM)
            assert await running.ended() == 0
        return
    async with emulating() as (_, api):
        code, _, stderr = await run(*arguments, env=settings(api), cwd=directory)
    assert code == 0, stderr


def settings(api: str) -> dict[str, str]:
    return {**proxy_env(api), "BITS_EMULATOR__LISTEN": "127.0.0.1:0"}


async def served(running: Command) -> None:
    await running.until(
        lambda: '"started"' in running.output or "is ready at" in running.output, "a word of serving"
    )


@contextlib.asynccontextmanager
async def demonstrating() -> AsyncIterator[dict[str, str]]:
    """Run a demo on free ports; yield a map from the documentation's ports to these."""
    free = {**dict.fromkeys(PORTS.values(), "127.0.0.1:0"), "BITS_LOG_FORMAT": "json"}
    async with command("demo", env=free) as running:
        started = await running.event("started")
        # Until then, /readyz responds with 503.
        await running.event("token_refreshed")
        printed = await running.text("_emulator/revoke\n")
        emulator = re.findall(r"127\.0\.0\.1:(\d+)/_emulator", printed)[0]
        yield {
            "8080": started["listen"][0].rpartition(":")[2],
            "9090": started["admin"][0].rpartition(":")[2],
            "8090": emulator,
        }


def moved(line: str, ports: dict[str, str]) -> str:
    return re.sub(r"(localhost|127\.0\.0\.1):(\d+)", lambda found: f"{found[1]}:{ports[found[2]]}", line)


async def shell(line: str, cwd: Path | None = None) -> int:
    """Run a line in a shell, in which a pipe fails if any part fails; return the exit code."""
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    if line.startswith("curl"):
        line = line.replace("curl ", "curl --fail ", 1)
    process = await asyncio.create_subprocess_exec(
        "bash", "-o", "pipefail", "-c", line, cwd=cwd, env=env, stdout=asyncio.subprocess.DEVNULL
    )
    async with asyncio.timeout(HANGS):
        return await process.wait()
