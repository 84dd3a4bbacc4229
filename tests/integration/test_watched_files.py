"""Files that can't be read, or whose mount hangs, cost a report: traffic, probes and shutdown go on."""

import asyncio
import os
import signal
import threading
from pathlib import Path
from typing import NoReturn

import aiohttp
import pytest

from tests.support.commands import CLIENT_SECRET, Command, command, get, proxy_env, run
from tests.support.credentials import mount
from tests.support.pki import Pki
from tests.support.stand import APPLICATION, CREATE, emulating
from tests.support.stepped import Stage, stepped


async def serves(running: Command) -> None:
    started = await running.event("started")
    url = f"http://{started['listen'][0]}"
    async with aiohttp.ClientSession(url) as session, session.post(CREATE, json=APPLICATION) as answer:
        assert answer.status == 200
    assert (await get(f"http://{started['admin'][0]}/livez"))[0] == 200


async def test_a_fifo_in_place_of_the_secret_is_named_and_freezes_nothing(tmp_path: Path) -> None:
    mount(tmp_path, CLIENT_SECRET)
    async with emulating() as (_, api):
        env = proxy_env(api, BITS_CREDENTIALS_DIR=str(tmp_path))
        async with command("run", env=env) as running:
            await running.event("token_refreshed")
            (tmp_path / "client_secret").unlink()
            os.mkfifo(tmp_path / "client_secret")
            running.send_signal(signal.SIGHUP)
            await serves(running)
            event = await running.event("credentials_unreadable")
            assert "client_secret can't be read: it is a FIFO" in event["detail"]
            running.send_signal(signal.SIGTERM)
            assert await running.ended() == 0


async def test_a_fifo_in_place_of_the_listeners_key_is_named_and_freezes_nothing(tmp_path: Path) -> None:
    pki = Pki(tmp_path)
    async with emulating() as (_, api), command("run", env=proxy_env(api, **pki.settings)) as running:
        started = await running.event("started")
        (tmp_path / "tls.key").unlink()
        os.mkfifo(tmp_path / "tls.key")
        running.send_signal(signal.SIGHUP)
        assert (await get(f"http://{started['admin'][0]}/livez"))[0] == 200
        event = await running.event("listen_certificate_refused")
        assert "tls.key can't be read: it is a FIFO" in event["detail"]
        running.send_signal(signal.SIGTERM)
        assert await running.ended() == 0


@stepped
async def test_a_mount_that_hangs_is_reported_and_freezes_nothing(stage: Stage, tmp_path: Path) -> None:
    mount(tmp_path, CLIENT_SECRET)
    await stage.begin(BITS_CREDENTIALS_DIR=str(tmp_path))
    released = threading.Event()

    def hang(path: Path) -> NoReturn:
        released.wait()
        raise FileNotFoundError(2, "gone", path)

    stage.sidecar._source._read_file = hang
    try:
        stage.sidecar.reload()
        for number in range(3):
            assert await stage.call() == 200
            assert (await stage.get("/livez"))[0] == 200
            assert len(stage.events("credentials_unreadable")) == min(1, number)
            stage.clock.advance(5)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        (event,) = stage.events("credentials_unreadable")
        assert str(tmp_path / "client_secret") in event["detail"]
        assert event["detail"].endswith("can't be read: no answer within 5 s")
        stage.sidecar.stop()
        assert await stage.sidecar.wait()
    finally:
        released.set()


@pytest.mark.parametrize("name", ["run", "check"])
async def test_a_pair_that_looks_like_a_slip_is_named(name: str, tmp_path: Path) -> None:
    client_id = "bits:client::3f1c"
    mount(tmp_path, f'"{CLIENT_SECRET}"', client_id)
    async with emulating() as (_, api):
        env = proxy_env(api, BITS_CREDENTIALS_DIR=str(tmp_path))
        if name == "check":
            _, output, _ = await run("check", env=env)
        else:
            async with command("run", env=env) as running:
                await running.event("credentials_unusual", times=2)
            output = running.output
    assert "BITS_CLIENT_SECRET_FILE: " in output
    assert "in quotes" in output
    assert "contains a colon" in output
    assert CLIENT_SECRET not in output
    assert client_id not in output
