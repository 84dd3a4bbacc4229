"""Credential files that come after the start, as a Vault agent's do."""

import signal
from pathlib import Path

import aiohttp
import pytest

from tests.support.commands import CLIENT_SECRET, Command, command, get, proxy_env, run
from tests.support.credentials import mount
from tests.support.stand import APPLICATION, CREATE, emulating


async def call(running: Command) -> tuple[int, str]:
    started = await running.event("started")
    url = f"http://{started['listen'][0]}"
    async with aiohttp.ClientSession(url) as session, session.post(CREATE, json=APPLICATION) as answer:
        return answer.status, await answer.text()


@pytest.mark.parametrize("before", ["nothing", "an empty directory", "a directory in place of a file"])
async def test_they_are_awaited_live_and_not_started(before: str, tmp_path: Path) -> None:
    directory = tmp_path / "secret"
    if before != "nothing":
        directory.mkdir()
    if before.startswith("a directory"):
        (directory / "client_id").mkdir()
    async with emulating() as (_, api):
        env = proxy_env(api, BITS_CREDENTIALS_DIR=str(directory), BITS_STARTUP_GRACE="0")
        async with command("run", env=env) as running:
            awaited = await running.event("credentials_awaited")
            assert str(directory / "client_id") in awaited["detail"]
            assert ("it is a directory" in awaited["detail"]) is before.startswith("a directory")
            admin = f"http://{(await running.event('started'))['admin'][0]}"
            assert (await get(f"{admin}/livez"))[0] == 200
            for path in ("/startupz", "/readyz"):
                assert await get(f"{admin}{path}") == (503, "waiting for the credential files\n")
            assert "waiting for the credential files: " in (await get(f"{admin}/status"))[1]
            assert 'token_state{state="absent"} 1.0' in (await get(f"{admin}/metrics"))[1]
            status, text = await call(running)
            assert (status, "waiting for its credential files" in text) == (503, True)

            directory.mkdir(exist_ok=True)
            if before.startswith("a directory"):
                (directory / "client_id").rmdir()
            mount(directory, CLIENT_SECRET)
            running.send_signal(signal.SIGHUP)
            await running.event("token_refreshed")
            assert (await call(running))[0] == 200
            assert (await get(f"{admin}/startupz"))[0] == 200
            # From now on a change is a change.
            mount(directory, f"{CLIENT_SECRET}-2")
            running.send_signal(signal.SIGHUP)
            await running.event("credentials_changed")
            assert (await call(running))[0] == 200
            running.send_signal(signal.SIGTERM)
            assert await running.ended() == 0
    assert "internal_error" not in running.output
    assert CLIENT_SECRET not in running.output


async def test_they_are_found_without_a_signal(tmp_path: Path) -> None:
    async with emulating() as (_, api):
        env = proxy_env(api, BITS_CREDENTIALS_DIR=str(tmp_path))
        async with command("run", env=env) as running:
            await running.event("credentials_awaited")
            mount(tmp_path, CLIENT_SECRET)
            await running.event("token_refreshed")


async def test_after_the_wait_the_files_are_named(tmp_path: Path) -> None:
    env = proxy_env("http://127.0.0.1:1", BITS_CREDENTIALS_DIR=str(tmp_path), BITS_CREDENTIALS_WAIT="0.2")
    code, _, stderr = await run("run", env=env)
    assert code == 64
    assert f"BITS_CLIENT_ID_FILE: {tmp_path / 'client_id'}" in stderr
    assert f"BITS_CLIENT_SECRET_FILE: {tmp_path / 'client_secret'}" in stderr
    assert "not there within 0.2 s" in stderr


@pytest.mark.parametrize(("name", "wait"), [("run", "0"), ("check", "30")])
async def test_where_nothing_is_awaited_they_are_missed_at_once(name: str, wait: str, tmp_path: Path) -> None:
    directory = tmp_path / "secret"
    env = proxy_env("http://127.0.0.1:1", BITS_CREDENTIALS_DIR=str(directory), BITS_CREDENTIALS_WAIT=wait)
    code, _, stderr = await run(name, env=env)
    assert code == 64
    assert f"BITS_CREDENTIALS_DIR: there is no directory {directory}" in stderr


async def test_a_signal_ends_the_wait(tmp_path: Path) -> None:
    env = proxy_env("http://127.0.0.1:1", BITS_CREDENTIALS_DIR=str(tmp_path))
    async with command("run", env=env) as running:
        await running.event("credentials_awaited")
        await running.event("started")
        running.send_signal(signal.SIGTERM)
        assert await running.ended() == 0
