"""Credentials that change in their files while requests go on: none of these fails."""

import asyncio
import datetime as dt
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Self

import aiohttp
import pytest

from tests.support.commands import CLIENT_ID, CLIENT_SECRET, Command, command, proxy_env
from tests.support.credentials import mount
from tests.support.stand import APPLICATION, CREATE, emulating
from tests.support.stepped import Stage, stepped

NEW_SECRET = "rotated-secret-51c8"


class Traffic:
    """A client that calls all the time."""

    def __init__(self, url: str) -> None:
        self.statuses: list[int] = []
        self._url = url
        self._stop = False

    async def __aenter__(self) -> Self:
        self._task = asyncio.ensure_future(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop = True
        await self._task
        assert self.statuses
        assert set(self.statuses) == {200}

    async def _run(self) -> None:
        async with aiohttp.ClientSession(self._url) as session:
            while not self._stop:
                async with session.post(CREATE, json=APPLICATION) as answer:
                    await answer.read()
                    self.statuses.append(answer.status)


async def rotate_at_bits(api: str) -> None:
    async with (
        aiohttp.ClientSession(api) as session,
        session.post("/_emulator/rotate", json={"client_secret": NEW_SECRET}) as answer,
    ):
        assert answer.status == 200


async def token_of_new_pair(running: Command) -> None:
    """Wait for a token that was asked for because of other credentials."""
    told = {"event": "token_refreshed", "reason": "credentials"}
    await running.until(lambda: any(told.items() <= event.items() for event in running.events), str(told))


@pytest.fixture
async def stand(tmp_path: Path) -> AsyncIterator[tuple[Command, str, Path]]:
    """A proxy whose pair is mounted, its emulator's origin, and the mount."""
    directory = tmp_path / "secret"
    directory.mkdir()
    mount(directory, CLIENT_SECRET)
    async with emulating() as (_, api):
        env = proxy_env(api, BITS_CREDENTIALS_DIR=str(directory))
        async with command("run", env=env) as running:
            await running.event("token_refreshed")
            yield running, api, directory


def url_of(running: Command) -> str:
    (started,) = (event for event in running.events if event["event"] == "started")
    return f"http://{started['listen'][0]}"


async def test_a_swapped_mount_is_noticed_by_itself_and_no_call_fails(
    stand: tuple[Command, str, Path],
) -> None:
    running, api, directory = stand
    async with Traffic(url_of(running)):
        await rotate_at_bits(api)
        mount(directory, NEW_SECRET)
        await token_of_new_pair(running)
    assert NEW_SECRET not in running.output


@stepped
async def test_that_takes_ten_seconds_at_most(stage: Stage, tmp_path: Path) -> None:
    mount(tmp_path, CLIENT_SECRET)
    await stage.begin(BITS_CREDENTIALS_DIR=str(tmp_path))
    for number in range(3):
        await stage.pass_time(7 * number)
        mount(tmp_path, f"{NEW_SECRET}-{number}")
        await stage.pass_time(10)
        assert [event["reason"] for event in stage.events("token_refreshed")][1:] == (
            ["credentials"] * (number + 1)
        )


async def test_sighup_has_them_looked_at_now(stand: tuple[Command, str, Path]) -> None:
    running, api, directory = stand
    async with Traffic(url_of(running)):
        await rotate_at_bits(api)
        mount(directory, NEW_SECRET)
        running.send_signal(signal.SIGHUP)
        await token_of_new_pair(running)
        # Without the signals, these would be noticed 5 s apart.
        for number in range(2, 7):
            mount(directory, f"{NEW_SECRET}-{number}")
            running.send_signal(signal.SIGHUP)
            await running.event("credentials_changed", times=number)
    first, *_, last = (
        dt.datetime.fromisoformat(event["timestamp"])
        for event in running.events
        if event["event"] == "credentials_changed"
    )
    assert (last - first).total_seconds() < 20


async def test_a_pair_that_is_refused_leaves_the_old_token_in_use_and_is_told(
    stand: tuple[Command, str, Path],
) -> None:
    running, _, directory = stand
    async with Traffic(url_of(running)):
        mount(directory, "not-the-secret")
        running.send_signal(signal.SIGHUP)
        failed = await running.event("token_refresh_failed")
    assert (failed["kind"], failed["reason"], failed["level"]) == ("refused", "credentials", "error")
    assert "not-the-secret" not in running.output


async def test_a_removed_or_half_written_file_changes_nothing_until_it_is_whole(
    stand: tuple[Command, str, Path],
) -> None:
    running, api, directory = stand
    secret = directory / "client_secret"
    async with Traffic(url_of(running)):
        secret.unlink()
        running.send_signal(signal.SIGHUP)
        secret.write_text("", "utf-8")
        running.send_signal(signal.SIGHUP)
        await rotate_at_bits(api)
        half = directory / ".half"
        half.write_text(NEW_SECRET, "utf-8")
        half.replace(secret)
        running.send_signal(signal.SIGHUP)
        await token_of_new_pair(running)
    changes = [event for event in running.events if event["event"] == "credentials_changed"]
    assert len(changes) == 1
    assert json.dumps(running.events).count("token_refresh_failed") == 0


async def test_a_secret_file_that_all_may_read_is_named_in_a_warning(tmp_path: Path) -> None:
    directory = tmp_path / "secret"
    directory.mkdir()
    (directory / "client_id").write_text(CLIENT_ID, "utf-8")
    secret = directory / "client_secret"
    secret.write_text(CLIENT_SECRET, "utf-8")
    secret.chmod(0o644)
    async with emulating() as (_, api):
        env = proxy_env(api, BITS_CREDENTIALS_DIR=str(directory))
        async with command("run", env=env) as running:
            warning = await running.event("credentials_readable_by_others")
    assert (warning["level"], warning["file"], warning["mode"]) == ("warning", str(secret), "0644")
