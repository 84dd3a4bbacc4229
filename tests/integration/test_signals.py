"""What signals do to the command while it starts, and while a DNS lookup hangs."""

import asyncio
import signal
import time
from pathlib import Path

import pytest

from tests.support import silent_dns
from tests.support.commands import Command, command, proxy_env
from tests.support.stand import emulating
from tests.support.waiting import seen

# Some kernels allow namespaces only to root, and nothing that the project installs can change that. A missing
# tool is no reason to skip: it ends the run with an error.
SILENT = pytest.mark.skipif(
    not silent_dns.is_possible(), reason="this kernel does not let ordinary users create namespaces"
)
AT_ONCE = 5.0
"""Seconds, on a busy machine: a resolver gives up after ten at the earliest."""


def handles(running: Command, number: signal.Signals) -> bool:
    """Return whether a process has a handler of its own for a signal."""
    status = Path(f"/proc/{running.process.pid}/status").read_text("utf-8")
    (mask,) = (line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(mask, 16) >> (number - 1) & 1)


@pytest.mark.parametrize("name", ["run", "demo"])
async def test_sighup_never_kills_not_even_during_start(name: str) -> None:
    async with emulating() as (_, api):
        env = proxy_env(api, BITS_EMULATOR__LISTEN="127.0.0.1:0")
        async with command(name, env=env) as running:
            await seen(lambda: handles(running, signal.SIGTERM))
            while not any(event["event"] == "started" for event in running.events):
                assert running.process.returncode is None, "killed"
                running.send_signal(signal.SIGHUP)
                await asyncio.sleep(0.005)
            running.send_signal(signal.SIGHUP)
            await running.event("token_refreshed")
            running.send_signal(signal.SIGTERM)
            assert await running.ended() == 0


async def lookup_hangs(running: Command) -> None:
    await running.event("started")
    await seen(lambda: silent_dns.asked(running.process.pid))


@SILENT
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_sigterm_ends_at_once_while_dns_is_silent(scheme: str) -> None:
    env = proxy_env(f"{scheme}://silent.test", BITS_ALLOW_INSECURE_HTTP="true")
    async with command("run", env=env, prefix=silent_dns.PREFIX) as running:
        await lookup_hangs(running)
        began = time.monotonic()
        running.send_signal(signal.SIGTERM)
        assert await running.ended() == 0
        assert time.monotonic() - began < AT_ONCE
    assert '"event": "stopped"' in running.output


@SILENT
async def test_signals_that_follow_change_no_exit_code() -> None:
    env = proxy_env("https://silent.test")
    async with command("run", env=env, prefix=silent_dns.PREFIX) as running:
        await lookup_hangs(running)
        running.send_signal(signal.SIGTERM)
        await running.event("draining")
        while running.process.returncode is None:
            running.send_signal(signal.SIGTERM)
            running.send_signal(signal.SIGHUP)
            running.send_signal(signal.SIGINT)
            await asyncio.sleep(0)
        # 0 if it had drained before it heard of the second one.
        assert await running.ended() in (0, 1)
